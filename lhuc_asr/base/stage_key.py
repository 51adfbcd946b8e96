"""The key of a stage: a hash of its name, its options, the files that it reads, and what it reads of earlier stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from lhuc_asr.base.config import StrictModel


@dataclass(frozen=True)
class PartOf:
    """Some of the files that a stage wrote or named, for a stage that reads no others of them.

    Attributes:
        stage: Name of the stage that wrote or named them.
        files: The files.
    """

    stage: str
    files: tuple[Path, ...]


# A stage that another reads results of: its name where that reads any of them.
Before = str | PartOf


def name_of(before: Before) -> str:
    """Name of a stage that another reads results of."""
    return before.stage if isinstance(before, PartOf) else before


def stage_key(name: str, options: Any, before: Sequence[str], files: str | None = None) -> str:
    """The key of a stage.

    Args:
        name: Name of the stage.
        options: Its options.
        before: The keys of the stages whose results it reads.
        files: Hash of the files that it reads; None for a stage without such files.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        TypeError: A stage reads files, and its options have no names.
    """
    plain = plain_options(options)
    if files is not None:
        plain = {**plain, "files": files}
    content = json.dumps([name, plain, list(before)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def plain_options(options: Any) -> Any:
    """Options as JSON values without None, so that a new option with the default None leaves finished stages valid."""
    if isinstance(options, StrictModel):
        return options.model_dump(mode="json", exclude_none=True)
    if is_dataclass(options):
        return plain_options({field.name: getattr(options, field.name) for field in fields(options)})
    if isinstance(options, dict):
        return {str(name): plain_options(value) for name, value in options.items() if value is not None}
    if isinstance(options, list | tuple):
        return [plain_options(value) for value in options]
    if isinstance(options, Path):
        return str(options)
    return options
