"""How the threads of matrix products wait for each other.

Training and search are many short products, each divided among the threads of OpenMP. A thread that has done its part
waits for the others by spinning, for milliseconds by default. On a machine with other work one of the threads has no
core at times, and the others burn their own shares while they wait: beside two busy processes on two cores, an
iteration of monophones took 19 s instead of 3. Threads that sleep after a short spin give the core away, and are put
back at once when the others are done (docs/decisions/0016).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# Turns of the waiting loop before a thread sleeps, some microseconds: as long as the gap between two products. With 100
# turns a step of training takes half as long again on an idle machine. With 1000 it takes as long as by default, and
# about twice that beside one busy process on each core (benchmarks/busy.py).
SPINS = 1000


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep after a short spin, in this process and those that it starts.

    It works only before torch is imported, with GNU's OpenMP, which torch has on Linux. What the user has set stays.

    Args:
        environment: Environment variables to change.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = str(SPINS)
