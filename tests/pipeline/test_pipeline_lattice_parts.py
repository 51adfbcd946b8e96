"""The lattices of sequence training from a cluster: the files of this machine, to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lhuc_asr.base.errors import AlignmentError, LatticeError
from lhuc_asr.pipeline import lattice_parts
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.lattice_parts import _check

pytestmark = pytest.mark.usefixtures("a_part_for_each_speaker")
Run = Callable[..., list[str]]


def files_of(folder: Path) -> dict[str, bytes]:
    below = folder / "am" / "smbr" / "lattices"
    return {path.relative_to(below).as_posix(): path.read_bytes() for path in below.rglob("*") if path.is_file()}


def test_the_lattices_are_those_of_this_machine(
    two_machines: Any,
    bucket: str,
    ladder: Path,
    tmp_path: Path,
    run_ladder: Run,
    ladder_passes: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = Path(shutil.copytree(ladder, tmp_path / "exp"))
    here = files_of(copy)
    assert len(here) == 2 * 9
    shutil.rmtree(copy / "am" / "smbr" / "lattices")
    monkeypatch.setattr(lattice_parts, "write_all_lattices", None)
    cluster = "executor=ray", f"ray.store={bucket}", f"ray.address={two_machines.address}"
    assert run_ladder(copy, ladder_passes, *cluster) == ["lattices of smbr"]
    assert files_of(copy) == here


def test_what_fails_is_counted_over_all_parts(finished: Path) -> None:
    _, experiment = read_experiment(finished)
    names = [utterance.id for utterance in experiment.utterances("train")]
    limits: Any = SimpleNamespace(max_unaligned=0.1, max_without_lattice=0.1)
    check = partial(_check, experiment, "train", names)
    check(names, names, limits)
    check(names[1:], names[1:], limits)
    with pytest.raises(
        LatticeError, match=rf"{len(names) - 3} of {len(names)} utterances have no lattice .*10%.*first"
    ):
        check(names[:3], names, limits)
    with pytest.raises(AlignmentError, match=rf"{len(names) - 3} of {len(names)} utterances cannot be aligned .*10%"):
        check(names, names[:3], limits)
