"""Passes over the machines of a cluster: the files of this machine, to the bit, for methods, targets and outputs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.base import file_jobs
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.pipeline import parts
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.pass_parts import divides
from lhuc_asr.pipeline.plan import passes_of

pytestmark = pytest.mark.usefixtures("a_part_for_each_speaker")
Run = Callable[..., list[str]]
# What it took, and not what came out.
TIMES = "adaptation.json"
FMLLR = "{kind: fmllr, min_counts: {full: 100}}"
ADAM = "optimizer: adam, learning_rate: 0.3, sweeps: 3"
# A pass for each thing that jobs are given: kinds of models, of features, of parameters, of targets and of sets.
PASSES = f"""passes={{
  lhuc: {{method: {{kind: lhuc, {ADAM}}}, data: {{mode: one_shot, parts: 3}}}},
  online: {{method: {{kind: moments}}, data: {{mode: online}}, targets: {{source: lhuc}}}},
  onwards: {{method: {{kind: lhuc, {ADAM}}}, data: {{mode: incremental}}}},
  bayes: {{method: {{kind: bayes}}, targets: {{kind: confidence, lm_order: 1}}}},
  subspace: {{method: {{kind: subspace, dimensions: 2}}, targets: {{kind: lattice}}}},
  statistics: {{method: {{kind: lora, rank: 2}}, targets: {{kind: agreement}}}},
  delayed: {{network: delayed, method: {{kind: prelu}}, own_search: true}},
  smbr: {{network: smbr, method: {{kind: lin}}}},
  fmllr_gmm: {{network: fmllr_sat, method: {FMLLR}}},
  fmllr: {{network: fmllr, method: {{kind: basis_fmllr}}, targets: {{source: fmllr_gmm}}}},
  fmllr_lhuc: {{network: fmllr, targets: {{source: fmllr, kind: lattice}}, method: {{kind: lhuc, on: fmllr, {ADAM}}}}},
  fdlr: {{method: {{kind: fdlr}}}},
  ivector: {{network: voices, method: {{kind: ivector}}}},
  ivector_lhuc: {{network: voices, targets: {{source: ivector}}, method: {{kind: lhuc, on: ivector, {ADAM}}}}}
}}"""
MORE = (
    "controls=[others_mean, others_mean_of_both, another]",
    "outputs={risk: {words: least_risk, lm: {order: 3}, passes: [si, lhuc, fmllr_lhuc, ivector_lhuc]}}",
)


def files_of(folder: Path) -> dict[str, bytes]:
    """What passes over the test set wrote, by place."""
    paths = [*(folder / "decode" / "test").glob("*/*"), *(folder / "speakers").glob("*/test/*")]
    wanted = [path for path in paths if path.is_file() and path.name != TIMES]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in wanted}


def differing(here: dict[str, bytes], there: dict[str, bytes]) -> list[str]:
    """The files that are not the same, to the bit."""
    assert there.keys() == here.keys()
    return [place for place in here if here[place] != there[place]]


def forget(folder: Path) -> None:
    """Make all passes over the test set unfinished."""
    for path in (folder / "stages").glob("* over test.json"):
        path.unlink()
    for path in (folder / "decode" / "test", *(folder / "speakers").glob("*/test")):
        shutil.rmtree(path)


def over_test(stages: list[str]) -> list[str]:
    """The stages of passes over the test set."""
    return [stage for stage in stages if stage.endswith(" over test")]


def test_passes_of_all_kinds_are_those_of_this_machine(
    two_machines: Any,
    bucket: str,
    ladder: Path,
    tmp_path: Path,
    run_ladder: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = Path(shutil.copytree(ladder, tmp_path / "exp"))
    forget(copy)
    made_here = over_test(run_ladder(copy, PASSES, *MORE))
    here = files_of(copy)
    forget(copy)
    # Not a pass is made here but by a job.
    for name in ("run_pass", "run_outputs"):
        monkeypatch.setattr(f"lhuc_asr.pipeline.pass_parts.{name}", None)
    cluster = "executor=ray", f"ray.store={bucket}", f"ray.address={two_machines.address}"
    assert over_test(run_ladder(copy, PASSES, *MORE, *cluster)) == made_here
    assert len(made_here) > 50
    there = files_of(copy)
    assert differing(here, there) == []
    assert len([place for place in here if place.startswith("speakers/")]) > 40


def test_machines_that_are_lost_in_decoding_and_in_adaptation_change_nothing(
    machines: Callable[..., Any], bucket: str, copied: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three machines is ended in each pass, as soon as its first job is finished."""
    here = files_of(copied)
    forget(copied)
    jobs, ended = file_jobs.run_jobs, []
    with machines(3) as cluster:

        def then_lost(*arguments: Any) -> Iterator[tuple[file_jobs.Job, Path]]:
            for job, results in jobs(*arguments):
                if (stage := job.title.partition(",")[0]) in ("si over test", "lhuc over test") and stage not in ended:
                    ended.append(stage)
                    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
                yield job, results

        monkeypatch.setattr(parts, "run_jobs", then_lost)
        run(copied, "executor=ray", f"ray.store={bucket}", f"ray.address={cluster.address}")
    assert ended == ["si over test", "lhuc over test"]
    assert differing(here, files_of(copied)) == []


def test_what_depends_on_other_speakers_is_made_here(finished: Path) -> None:
    config, _ = read_experiment(finished)
    passes = passes_of(config)
    lhuc, control = passes["lhuc"], passes["lhuc__others_mean"]

    def divided(**options: Any) -> bool:
        changed = replace(lhuc, adaptation=replace(lhuc.adaptation, **options))
        of_control = replace(control, adaptation=replace(control.adaptation, source=changed))
        assert divides("test", changed) == divides("test", of_control)
        return divides("test", changed)

    assert divided()
    assert divides(HELDOUT, lhuc)
    assert not divides(HELDOUT, passes["si"])  # it tunes the search
    assert not divided(data=DataConfig(unit="environment"))
    assert not divided(data=DataConfig(environments=("rain",)))
    assert not divided(max_unaligned=0.1)
    of_a_user = type("OtherConfig", (METHODS["lhuc"],), {"__module__": "mine"})
    assert not divided(method=of_a_user())
