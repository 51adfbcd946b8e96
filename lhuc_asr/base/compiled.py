"""Loops compiled by numba, outside Python's lock, and kept on disk for the next process where there is a place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function when it is first called.

    The result is kept in ``NUMBA_CACHE_DIR``, beside the function's file, or in the user's folder for caches. Where
    none of these can be written to, as in a container that is read-only, each process compiles anew: it is the same
    function, seconds later.
    """
    try:
        return cast(FunctionT, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba's "cannot cache function: no locator available"
        return cast(FunctionT, numba.njit(nogil=True)(function))
