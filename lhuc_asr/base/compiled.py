"""Loops compiled by numba, which run outside Python's lock and are cached on disk where that is possible."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

logger = logging.getLogger(__name__)


class _ForgivingCache(FunctionCache):
    """numba's cache on disk, but what cannot be read from it is compiled again, and what cannot be written is not kept.

    numba itself fails at each call, for ever, where a full disk or a copy left half a file. Half a pickle can raise
    nearly any exception.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """A compiled function from the cache; None where it is not there, or damaged."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception as error:
            logger.warning("%s: damaged cache of compiled code (%s); it is compiled again", self.cache_path, error)
            self._guarded(self.flush)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if there is a place for it."""
        self._guarded(partial(super().save_overload, sig, data))

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            logger.debug("%s: compiled code cannot be kept (%s)", self.cache_path, error)


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function when it is first called.

    The result is cached in ``NUMBA_CACHE_DIR``, beside the function's file, or in the user's folder for caches. Where
    none of these can be written to, as in a read-only container, each process compiles again, which takes seconds.
    """
    dispatcher: Any = numba.njit(nogil=True)(function)
    try:
        dispatcher._cache = _ForgivingCache(function)  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # numba's "cannot cache function: no locator available"
        logger.debug("%s", error)
    return cast(FunctionT, dispatcher)
