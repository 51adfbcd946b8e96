"""Run by test_base_partial.py: write a file, a folder or additions, and stop at each step in turn, in a forked process.

    steps_of_writing.py FOLDER file|folder|additions kill|fail|break [two-renames]

Prints a line of JSON for each step: what was there at once, and after the next writer in the same folder. ``kill`` ends
the process before the step, ``fail`` lets this one step fail, ``break`` this and all later ones.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from lhuc_asr.base import partial
from lhuc_asr.base.atomic import atomic_additions, atomic_folder, atomic_path, write_text

STEPS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "fcntl.flock"}
count, stop, way = 0, -1, ""


def step() -> None:
    global count
    count += 1
    if way == "kill" and count == stop:
        os.kill(os.getpid(), signal.SIGKILL)
    if (way == "fail" and count == stop) or (way == "break" and count >= stop):
        raise OSError(errno.EIO, "the disk is gone")


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if stop > 0 and (event in STEPS or (event == "open" and ".partial" in str(arguments[0]))):
        step()


def stepping(function: Any) -> Any:
    def called(*arguments: Any) -> Any:
        if stop > 0:
            step()
        return function(*arguments)

    return called


def write(place: Path, kind: str, text: str) -> None:
    if kind == "file":
        write_text(place / "target", text)
    elif kind == "folder":
        with atomic_folder(place / "target") as temporary:
            (temporary / "a").write_text(text)
            (temporary / "inner").mkdir()
            (temporary / "inner" / "b").write_text(text)
    else:
        with atomic_additions(place / "target") as temporary:
            for name in "xyz":
                (temporary / name).write_text(text)


def content(place: Path) -> Any:
    return {
        str(path.relative_to(place)): path.read_text()
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name not in {"lock", "other"}
    }


def reached(number: int, place: Path, kind: str) -> bool:
    """Whether the writer came to that step, and was stopped there."""
    global stop
    pid = os.fork()
    if pid == 0:
        stop = number
        try:
            write(place, kind, "after")
        except OSError:
            os._exit(1)
        os._exit(1 if count >= number else 0)
    return os.waitpid(pid, 0)[1] != 0


def main() -> None:
    global way
    place, kind, way = Path(sys.argv[1]) / "place", sys.argv[2], sys.argv[3]
    partial._renameat2 = None if "two-renames" in sys.argv else stepping(partial._renameat2)
    os.fsync = stepping(os.fsync)
    sys.addaudithook(hook)
    stopped, number = True, 0
    while stopped:
        number += 1
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        write(place, kind if kind != "additions" else "folder", "before")
        stopped = reached(number, place, kind)
        at_once = content(place)
        with atomic_path(place / "other") as temporary:
            temporary.write_text("")
        (place / "other").unlink()
        if kind == "additions":
            write_text(place / "target" / "other", "")
            (place / "target" / "other").unlink()
        row = {"at_once": at_once, "later": content(place), "left": os.listdir(place)}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
