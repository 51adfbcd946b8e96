"""Seconds of each stage of a recipe beside one busy process on each core, as a ratio to those on an idle machine.

    python benchmarks/busy.py [--recipe recipes/demo] [--niceness 15] [key=value ...]

The recipe is run twice into folders of its own, first idle, then beside the busy processes. All have the same niceness,
so that a fair share is half of the machine. A stage that takes more than 2.5 times as long, of those that take a second
or more, makes the exit status 1. The machine must be idle otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from timing import show

ROOT = Path(__file__).parents[1]
ENTRY = "from lhuc_asr.cli.main import main; main()"
LIMIT = 2.5
# Below this, a stage is start-up and files.
SECONDS = 1.0


def seconds_of_stages(recipe: str, folder: Path, niceness: int, overrides: list[str]) -> dict[str, float]:
    """Run a recipe; seconds of each stage, in order."""
    command = [sys.executable, "-c", ENTRY, "run", recipe, f"exp={folder}", *overrides]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.nice(niceness))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["stage"]: row["seconds"] for row in rows if set(row) == {"stage", "time", "seconds"}}


@contextmanager
def busy_cores(niceness: int) -> Iterator[None]:
    """One process on each core that does nothing but count."""
    code = f"import os; os.nice({niceness})\nwhile True: pass"
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            stack.callback(process.kill)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/demo")
    parser.add_argument("--niceness", type=int, default=15)
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        idle = seconds_of_stages(arguments.recipe, Path(place, "idle"), arguments.niceness, arguments.overrides)
        with busy_cores(arguments.niceness):
            busy = seconds_of_stages(arguments.recipe, Path(place, "busy"), arguments.niceness, arguments.overrides)
    long = [stage for stage in idle if idle[stage] >= SECONDS]
    rows = [(stage, f"{idle[stage]:.1f}", f"{busy[stage]:.1f}", f"{busy[stage] / idle[stage]:.2f}") for stage in long]
    total = sum(busy.values()) / sum(idle.values())
    rows.append(("all", f"{sum(idle.values()):.1f}", f"{sum(busy.values()):.1f}", f"{total:.2f}"))
    show("Beside one busy process a core", ("stage", "idle, s", "busy, s", "ratio"), rows)
    return 1 if any(busy[stage] > LIMIT * idle[stage] for stage in long) else 0


if __name__ == "__main__":
    sys.exit(main())
