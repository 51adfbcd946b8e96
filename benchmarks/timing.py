"""Alternating measurements: the functions to compare run in turns, so that a busy moment of the machine meets all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some measurements."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of a list of numbers."""
        return cls(*(float(quartile) for quartile in np.quantile(values, [0.25, 0.5, 0.75])))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Turns:
    """Seconds of several functions, measured in turns: A B A B ...

    Args:
        candidates: Functions to measure, by name; each is called once before, to warm up.
        seconds: Approximate duration of all rounds; there are at least three.
        clock: ``time.process_time`` counts the processor seconds of this process, so that other work on the machine
            disturbs little; for work in one thread. ``time.perf_counter`` is wall time.
    """

    def __init__(
        self,
        candidates: Mapping[str, Callable[[], object]],
        seconds: float = 10.0,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in candidates}
        for function in candidates.values():
            function()
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < 3 or time.perf_counter() < end:
            for name, function in candidates.items():
                start = clock()
                function()
                self.seconds[name].append(clock() - start)
            rounds += 1

    def of(self, name: str) -> Spread:
        """Seconds of a call."""
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, base: str) -> Spread:
        """Ratio of the seconds of ``name`` to those of ``base``, in each round."""
        return Spread.of([mine / its for mine, its in zip(self.seconds[name], self.seconds[base], strict=True)])


def clock_of(device: torch.device, threads: int) -> Callable[[], float]:
    """Processor time for one thread, else wall time; on a GPU, after all work is done."""
    if device.type == "cuda":

        def wait() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return wait
    return time.process_time if threads == 1 else time.perf_counter


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a small table; the first column is text."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console(width=120).print(table)
