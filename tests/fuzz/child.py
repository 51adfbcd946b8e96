"""The process in which changed inputs are read: ``child.py PARSER SEEDS WORK FIRST END``; a line for each.

One input is made and read again, with its traceback, by ``child.py PARSER SEEDS WORK NUMBER``; it stays in WORK.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import shutil
import sys
import warnings
from pathlib import Path

from isolation import BYTES
from parsers import PARSERS
from peak_memory import peak_of_memory

from lhuc_asr.base.errors import LhucError


def made(parser: str, seeds: Path, work: Path, number: int) -> Path:
    """The folder of an input: the whole one's files, linked, and one or more of them changed."""
    folder = work / parser
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(seeds / PARSERS[parser].seeds, folder, copy_function=os.link, symlinks=True)
    PARSERS[parser].change(folder, random.Random(f"{parser} {number}"))
    return folder


def verdict(parser: str, folder: Path) -> str:
    """What comes of reading an input, in one line."""
    try:
        PARSERS[parser].read(folder)
    except LhucError as error:
        message = str(error)
        if "\n" in message or not message:
            return f"fault a message of several lines, or none: {message!r}"
        return f"refused {message}"
    except Exception as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        place = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame else "?"
        return f"fault {type(error).__name__} at {place}: {error}"
    return "accepted"


def main() -> None:
    parser, seeds, work, first, *end = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # Address space is no measure: torch and numba reserve much that they never touch.
    resource.setrlimit(resource.RLIMIT_DATA, (2 * BYTES, 2 * BYTES))
    if not end:
        PARSERS[parser].read(made(parser, Path(seeds), Path(work), int(first)))
        return
    for number in range(int(first), int(end[0])):
        line = verdict(parser, made(parser, Path(seeds), Path(work), number))
        used = peak_of_memory()
        if used > BYTES:
            line = f"fault {used / 2**30:.1f} GiB of memory"
        text = line.replace("\n", " ")[:500].encode(errors="replace") + b"\n"
        os.write(1, text)
        if used > BYTES:
            sys.exit("too much memory")


if __name__ == "__main__":
    main()
