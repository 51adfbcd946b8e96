"""Alignments of the training and held-out speakers from the machines of a cluster, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.file_jobs import Job
from lhuc_asr.base.fingerprint import files_below
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.extraction import spoken_at
from lhuc_asr.features.store import gather
from lhuc_asr.hmm.aligner import SelfLoopCounts, check_unaligned
from lhuc_asr.hmm.alignment import UNALIGNED, write_alignment
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.experiment import Experiment
from lhuc_asr.pipeline.parts import part_results, pdfs_in, places_in
from lhuc_asr.pipeline.split_alignment import AlignmentPlan, SplitAlignment, align_split

_PLAN = TypeAdapter(AlignmentPlan)
# Places in the folder of a job's results.
PDFS, TRANSFORMS, LOOPS = "pdfs.ali", "transforms.safetensors", "loops.safetensors"


def aligned_splits(experiment: Experiment, plan: AlignmentPlan) -> Iterator[tuple[str, SplitAlignment]]:
    """Align the training recordings, at all speeds of a plan, and those of the held-out speakers at their own.

    The work is done on the cluster if there is one; what comes out is the same to the bit.

    Raises:
        ClusterError, StoreError: The cluster or its store cannot be reached, or failed.
        AlignmentError: As from ``align_split``.
    """
    for split, speeds in ((TRAIN, plan.speeds), (HELDOUT, (1.0,))):
        own = replace(plan, speeds=speeds)
        if experiment.ray is None:
            yield split, align_split(experiment, split, own)
        else:
            yield split, _on_cluster(experiment.ray, experiment, split, own)


def _on_cluster(settings: RayConfig, experiment: Experiment, split: str, plan: AlignmentPlan) -> SplitAlignment:
    store, shared = experiment.features(split, plan.features), _shared(experiment, plan)
    # How many may fail is counted over all parts.
    plain = {"split": split, "plan": _PLAN.dump_python(replace(plan, max_unaligned=None), mode="json")}

    def names_of(part: Sequence[Utterance]) -> list[str]:
        return [spoken_at(speed, utterance.id) for speed in plan.speeds for utterance in part]

    def job(title: str, home: Path, part: Sequence[Utterance]) -> Job:
        there = ExperimentFolder(home)
        write_manifest(there.manifest(split), part)
        place = there.features(split, plan.features)
        place.parent.mkdir()
        gather(place, [store], names_of(part))
        own = places_in(home, files_below(home))
        return Job(title, align_part, plain, shared | own, alone=frozenset(own))

    pdfs: dict[str, np.ndarray] = {}
    parts: list[SplitAlignment] = []
    title, folder = f"alignment of {split}", experiment.folder.hmm(plan.model)
    with part_results(settings, folder, title, experiment.utterances(split), job) as results:
        for part, made in results:
            # Copies: the files go.
            aligned = ((name, np.array(own)) for name, own in pdfs_in(made / PDFS, names_of(part), store))
            pdfs |= {name: own for name, own in aligned if UNALIGNED not in own[:1]}
            parts.append(_read(made, plan))
    if plan.max_unaligned is not None:
        failed = [utterance.id for utterance in store.utterances if utterance.id not in pdfs]
        check_unaligned(failed, len(pdfs), plan.max_unaligned)
    transforms = [part.transforms for part in parts if part.transforms is not None]
    loops = [part.loops for part in parts if part.loops is not None]
    return SplitAlignment(pdfs, reduce(add, transforms) if transforms else None, reduce(add, loops) if loops else None)


def _read(made: Path, plan: AlignmentPlan) -> SplitAlignment:
    """What a job wrote beside the pdfs."""
    transforms, loops = None, None
    if plan.adaptive is not None:
        tensors, description = load_tensors(made / TRANSFORMS)
        transforms = SpeakerTransforms(tuple(description["names"]), tensors["matrices"])
    if plan.network is not None:
        tensors, _ = load_tensors(made / LOOPS)
        loops = SelfLoopCounts(tensors["stays"].numpy(), tensors["visits"].numpy())
    return SplitAlignment({}, transforms, loops)


def _shared(experiment: Experiment, plan: AlignmentPlan) -> dict[str, Path]:
    """The files that all parts need."""
    folder = experiment.folder
    files = [folder.topology(plan.model), *(folder.lang / name for name in (LEXICON_FILE, PHONES_FILE))]
    if plan.network is not None:
        files.append(folder.network(plan.network))
    else:
        files.append(folder.gmm(plan.model))
    if plan.adaptive is not None:
        files.append(folder.unadapted_gmm(plan.model))
    return places_in(folder.folder, files)


# On a machine of the cluster.


def align_part(inputs: Path, results: Path, options: Mapping[str, Any]) -> None:
    """Align some speakers, as a job over files.

    Args:
        inputs: Folder that is laid out like an experiment's, with what the alignment of these speakers needs.
        results: Folder for the pdfs, ``PDFS``; the speakers' transforms, ``TRANSFORMS``; the paths' self-loops,
            ``LOOPS``; those of them that the plan gives.
        options: ``split`` and ``plan``.

    Raises:
        LhucError: What the alignment raises.
    """
    split, plan = options["split"], _PLAN.validate_python(options["plan"])
    experiment = Experiment(ExperimentFolder(inputs), inputs.name, processes=1, device="cpu")
    made = align_split(experiment, split, plan)
    write_alignment(results / PDFS, experiment.features(split, plan.features), made.pdfs)
    if made.transforms is not None:
        save_tensors(
            results / TRANSFORMS, {"matrices": made.transforms.matrices}, {"names": list(made.transforms.names)}
        )
    if made.loops is not None:
        counts = {"stays": made.loops.stays, "visits": made.loops.visits}
        save_tensors(results / LOOPS, {name: torch.from_numpy(each) for name, each in counts.items()}, {})
