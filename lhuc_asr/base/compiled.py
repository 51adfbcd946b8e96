"""Loops compiled by numba, which run outside Python's lock and are cached on disk where that is possible."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

logger = logging.getLogger(__name__)

PACKAGE = __name__.partition(".")[0]
_IMPORT = re.compile(rf"^ *from ({PACKAGE}[.\w]*) import", re.MULTILINE)


class _ForgivingCache(FunctionCache):
    """numba's cache on disk, but what cannot be read from it is compiled again, and what cannot be written is not kept.

    numba itself fails at each call, for ever, where a full disk or a copy left half a file. Half a pickle can raise
    nearly any exception. Nor does numba look at another file than the function's own: constants and called functions
    are compiled into it, and would stay as they were when only their files change.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        stamp = self._impl.locator.get_source_stamp(), _stamp_of_compiled()
        self._cache_file = IndexDataCacheFile(self._cache_path, self._impl.filename_base, stamp)  # type: ignore[no-untyped-call]

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


@cache
def _stamp_of_compiled() -> str:
    """Hash of all files of the package with compiled functions, and of those that they import from, once a process."""
    folder = Path(__file__).parents[1]
    texts = {
        ".".join((PACKAGE, *path.relative_to(folder).with_suffix("").parts)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*.py")
    }
    imported = {module: _IMPORT.findall(text) for module, text in texts.items()}
    waiting, names = [module for module, others in imported.items() if __name__ in others], set[str]()
    while waiting:
        if (module := waiting.pop()) in texts and module not in names:
            names.add(module)
            waiting += imported[module]
    content = [(module, texts[module]) for module in sorted(names)]
    return hashlib.sha256(repr(content).encode()).hexdigest()


def compiled(function: FunctionT) -> FunctionT:
    """Compile a function when it is first called.

    The result is cached in ``NUMBA_CACHE_DIR``, beside the function's file, or in the user's folder for caches. Where
    none of these can be written to, as in a read-only container, each process compiles again, which takes seconds.
    """
    dispatcher: Any = numba.njit(nogil=True)(function)
    try:
        dispatcher._cache = _ForgivingCache(function)
    except RuntimeError as error:  # numba's "cannot cache function: no locator available"
        logger.debug("%s", error)
    return cast(FunctionT, dispatcher)
