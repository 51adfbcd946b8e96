"""``lhuc-asr download librispeech SUBSET DIR``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Corpus(StrEnum):
    """Corpora that can be downloaded."""

    librispeech = "librispeech"


def download(
    corpus: Annotated[Corpus, typer.Argument(metavar="CORPUS", help="Name of the corpus.")],
    subset: Annotated[
        str,
        typer.Argument(
            metavar="SUBSET",
            help="Name of the subset, such as dev-clean, train-clean-100, or train-clean-5 of mini LibriSpeech.",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to download to; it will hold LibriSpeech/SUBSET.")
    ],
) -> None:
    """Download a subset of LibriSpeech from openslr.org; a download that was interrupted is resumed."""
    from lhuc_asr.corpus.download import download_librispeech

    typer.echo(f"{corpus.value} {subset}: {download_librispeech(subset, folder)}")
