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
    corpus: Annotated[Corpus, typer.Argument(help="Which corpus.")],
    subset: Annotated[
        str, typer.Argument(help="Such as dev-clean, train-clean-100, or mini LibriSpeech's train-clean-5.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where LibriSpeech/SUBSET goes.")],
) -> None:
    """Download a subset of LibriSpeech from openslr.org; a download that broke off is gone on with."""
    from lhuc_asr.corpus.download import download_librispeech

    typer.echo(f"{corpus.value} {subset}: {download_librispeech(subset, folder)}")
