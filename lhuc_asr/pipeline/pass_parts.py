"""Passes on a cluster: each of its jobs is the same pass over some of the speakers.

A job has an experiment's folder with what the pass reads of its speakers (``pass_files``), and makes the pass there as
it would be made here. What it wrote of the speakers is put together in the order of the whole split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import atomic_folder, read_json_lines, write_json
from lhuc_asr.base.cluster import PACKAGE
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.file_jobs import Job
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.decode.hypothesis import Hypothesis, from_row
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.earlier_pass import (
    ADAPTATION_FILE,
    ADAPTATIONS,
    ALIGNMENT_FILE,
    HYPOTHESES_FILE,
    AdaptationCost,
    borrowed_by,
    sets_of,
    tuned_search,
    two_pass,
)
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.parts import experiment_of, part_results, pdfs_in, plain_experiment
from lhuc_asr.pipeline.pass_files import SpeakersFiles, whole_files
from lhuc_asr.pipeline.passes import run_outputs, run_pass, write_pass
from lhuc_asr.pipeline.plan import with_needed
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass, Reuse, stage_of

# Plans as plain values.
_PLANS = TypeAdapter(tuple[Pass, ...])


def make_pass(experiment: AlignedExperiment, split: str, plan: Pass) -> None:
    """``run_pass``, on the cluster if there is one and the pass can be divided: the same files, to the bit."""
    if experiment.ray is None or not divides(split, plan):
        run_pass(experiment, split, plan)
    else:
        _run_on_cluster(experiment.ray, experiment, split, [plan])


def make_outputs(experiment: AlignedExperiment, split: str, plans: Sequence[Pass]) -> None:
    """``run_outputs``, on the cluster if there is one and the pass can be divided; as ``make_pass``."""
    if experiment.ray is None or not divides(split, plans[0]):
        run_outputs(experiment, split, plans)
    else:
        _run_on_cluster(experiment.ray, experiment, split, plans)


def divides(split: str, plan: Pass) -> bool:
    """Whether a pass over some speakers of a split gives what it gives of them in a pass over all.

    A search is tuned on all held-out speakers. Parameters of environments are estimated on other speakers.
    A reference may fail to align in a part of the split only, and be refused there. A method that is not of this
    package is not known on other machines. Borrowed parameters do not prevent it: the jobs are given them.
    """
    return not (split == HELDOUT and plan.tuned) and all(map(_is_apart, with_needed([plan])))


def _is_apart(plan: Pass) -> bool:
    if not isinstance(plan.adaptation, Adaptation):
        return True
    adaptation, method = plan.adaptation, type(plan.adaptation.method)
    return (
        adaptation.data.unit != "environment"
        and adaptation.data.environments is None
        and adaptation.max_unaligned is None
        and METHODS.get(adaptation.method.kind) is method
        and method.__module__.partition(".")[0] == PACKAGE
    )


def _run_on_cluster(settings: RayConfig, experiment: AlignedExperiment, split: str, plans: Sequence[Pass]) -> None:
    """Make a pass, or all outputs of one, over the parts of a split, and put the parts together."""
    plan, folder = plans[0], experiment.folder
    loop = two_pass(experiment, split, plan)
    sets = sets_of(experiment, split, plan, loop.features)
    inputs, borrowed = plans, None
    if plan.borrows and isinstance(plan.adaptation, Reuse):
        # What others lend is known here alone; jobs read it as if the speakers had estimated it.
        borrowed = borrowed_by(experiment, split, plan, plan.adaptation, sets, loop.model)
        own = replace(plan.adaptation, whose="own")
        inputs = [replace(each, adaptation=own) for each in plans]
    shared, of_speakers = whole_files(experiment, split, inputs), SpeakersFiles(experiment, split, inputs, borrowed)
    plain = {"split": split, "plans": _PLANS.dump_python(tuple(inputs), mode="json")}
    options = plain | plain_experiment(experiment)

    def job(title: str, home: Path, part: Sequence[Utterance]) -> Job:
        return Job(title, pass_over_part, options, shared | of_speakers.write(home, part))

    title = f"{stage_of(plan)} over {split}"
    with part_results(settings, folder.decode(split), title, experiment.utterances(split), job) as results:
        parts = list(results)
        if plan.estimates:
            _put_speakers_together(folder, split, plan, [part for _, part in parts])
        order = [each.id for one in sets for each in one.used_for] or [each.id for each in loop.features.utterances]
        search = tuned_search(experiment, plan).model_dump(mode="json")
        for each in plans:
            hypotheses = {h.utterance: h for part in parts for h in _hypotheses(*part, split, each, loop.features)}
            write_pass(experiment, split, each, loop.features, [hypotheses[name] for name in order], search)


def _put_speakers_together(folder: ExperimentFolder, split: str, plan: Pass, parts: Iterable[Path]) -> None:
    """Write the speakers' folder of a pass, and what the adaptation cost on all machines together."""
    made = [ExperimentFolder(part) for part in parts]
    costs = [ADAPTATIONS.read(each.decode(split, plan.name) / ADAPTATION_FILE) for each in made]
    cost = AdaptationCost(seconds=round(sum(c.seconds for c in costs), 3), sets=sum(c.sets for c in costs))
    write_json(folder.decode(split, plan.name) / ADAPTATION_FILE, cost.model_dump())
    with atomic_folder(folder.speakers(split, plan.name)) as temporary:
        for each in made:
            for path in each.speakers(split, plan.name).iterdir():
                path.replace(temporary / path.name)  # each part has row 0, the same in all


def _hypotheses(
    part: Sequence[Utterance], results: Path, split: str, plan: Pass, features: FeatureTable
) -> Iterator[Hypothesis]:
    """The hypotheses that a job wrote."""
    place = ExperimentFolder(results).decode(split, plan.name)
    pdfs = dict(pdfs_in(place / ALIGNMENT_FILE, [utterance.id for utterance in part], features))
    for row in read_json_lines(place / HYPOTHESES_FILE):
        yield from_row(row, pdfs[row["utterance"]])


# On a machine of the cluster.


def pass_over_part(inputs: Path, results: Path, options: Mapping[str, Any]) -> None:
    """A pass, or all outputs of one, over some speakers, as a job over files.

    Args:
        inputs: Folder that is laid out like an experiment's, with what the pass reads of these speakers.
        results: Folder for what the pass writes of them, laid out in the same way.
        options: ``split``, ``plans``, and attributes of the experiment.

    Raises:
        LhucError: What the pass raises.
    """
    split, plans = options["split"], _PLANS.validate_python(options["plans"])
    experiment = experiment_of(inputs, options)
    if plans[0].output is None:
        run_pass(experiment, split, plans[0])
    else:
        run_outputs(experiment, split, plans)
    for plan in plans:
        made = experiment.folder.decode(split, plan.name)
        written = [made / name for name in (HYPOTHESES_FILE, ALIGNMENT_FILE)]
        if plan.estimates:
            written += [made / ADAPTATION_FILE, experiment.folder.speakers(split, plan.name)]
        for path in written:
            place = results / path.relative_to(inputs)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
