"""Loops compiled by numba, which run outside Python's lock and are cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function when it is first called.

    The result is cached in ``NUMBA_CACHE_DIR``, beside the function's file, or in the user's folder for caches. Where
    none of these can be written to, as in a read-only container, each process compiles again, which takes seconds.
    """
    try:
        return cast(FunctionT, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba's "cannot cache function: no locator available"
        return cast(FunctionT, numba.njit(nogil=True)(function))
