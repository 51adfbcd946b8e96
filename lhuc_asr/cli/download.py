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
            help="Name of the subset, such as test-clean or train-clean-100; mini for mini LibriSpeech, which is "
            "train-clean-5 and dev-clean-2.",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to download to; it will hold LibriSpeech/SUBSET.")
    ],
) -> None:
    """Download LibriSpeech, a subset at a time, from openslr.org; a download that was interrupted is resumed."""
    from lhuc_asr.corpus.download import download_subsets

    for path in download_subsets(subset, folder):
        typer.echo(f"{corpus.value} {path.name}: {path}")
