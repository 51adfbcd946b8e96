"""Folders that runs make: none is replaced that holds what no run made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lhuc_asr.base.destinations import stranger_in
from lhuc_asr.base.errors import ExperimentError


def refuse_to_replace(folder: Path, record: Path) -> None:
    """Refuse to lose files that a run did not make: the folders of a run hold their record from the first.

    Raises:
        ExperimentError: ``folder`` has files and no record.
    """
    if folder.exists() and not record.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: holds files that no run made; choose another folder with exp=DIR")


def refuse_to_lose(folder: Path, known: Iterable[str]) -> None:
    """Refuse to replace a folder of a run in which somebody keeps files of their own, such as predictions.

    Args:
        folder: The folder.
        known: Paths of the files that a run makes there, relative to the folder.

    Raises:
        ExperimentError: The folder has another file.
    """
    if stranger := stranger_in(folder, known):
        raise ExperimentError(f"{stranger}: no run made this file, and it would be lost; move it elsewhere")
