"""Folders that runs make: none is replaced that holds what no run made."""

from __future__ import annotations

from pathlib import Path

from lhuc_asr.base.errors import ExperimentError


def refuse_to_replace(folder: Path, record: Path) -> None:
    """Refuse to lose files that a run did not make: the folders of a run hold their record from the first.

    Raises:
        ExperimentError: ``folder`` has files and no record.
    """
    if folder.exists() and not record.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: holds files that no run made; choose another folder with exp=DIR")
