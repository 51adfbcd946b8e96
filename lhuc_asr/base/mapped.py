"""Arrays in files of their own, read through memory maps: processes share their pages, and read only what they use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.plain_file import check_plain_file


def mapped(path: Path, dtype: npt.DTypeLike, length: int, error: type[LhucError], remedy: str) -> np.ndarray:
    """Map a file of numbers, and nothing else, without reading it.

    Args:
        path: The file.
        dtype: Type of the numbers, in the byte order of this machine.
        length: Number of them, L.
        error: Class of the errors.
        remedy: What to do about a file that cannot be mapped, for messages.

    Returns:
        Read-only array, shape (L,).

    Raises:
        LhucError: As ``error``: the file is missing, is not a file on disk, or has another size.
    """
    kind = np.dtype(dtype)
    try:
        size = check_plain_file(path)
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); {remedy}") from problem
    if size != length * kind.itemsize:
        raise error(f"{path}: {size} bytes, expected {length} numbers of {kind.itemsize}; {remedy}")
    # An empty file cannot be mapped.
    return np.memmap(path, kind, "r", shape=(length,)) if length else np.zeros(0, kind)
