"""Settings of adaptation methods, compared on development speakers' recordings that nothing was adapted on.

    python benchmarks/other_half.py EXPERIMENT [--split SPLIT] [--speakers N] [--seconds S]
        [--targets '{kind: lattice}'] [--controls] [METHOD ...]

Each half of a speaker's recordings is adapted on the best paths of the other half, or on other targets. The score is
the cross-entropy of all frames, with the reference alignment as targets, in nats per frame. ``own`` is its change by
the speaker's own parameters, with the standard error over speakers. ``--controls`` adds ``others``, the change by the
mean of the other speakers' parameters, and ``two-pass``, that by parameters of the same recordings, which shows what
is learned by heart. The speakers are the held-out training speakers, or those of a test set that nothing is reported
on; their references are aligned with the unadapted network then. A METHOD is written as in a recipe: '{kind: moments}'.

These are the comparisons that the defaults of ``adapt/`` were chosen by (docs/settings.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from adapting import first_pass, methods_of, ready, title_of

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, DataConfig, adaptation_sets
from lhuc_asr.adapt.controls import others_mean
from lhuc_asr.adapt.method import AdaptedSpeakers, MethodConfig, SpeakerScores
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.earlier_pass import two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_experiment
from lhuc_asr.pipeline.pass_config import SI
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.transcripts import reference_pdfs

DESCENT = [
    f"{{kind: lhuc, optimizer: {optimizer}, learning_rate: {rate}, sweeps: {sweeps}, kl_weight: {rho}}}"
    for rho in (0.0, 0.4, 0.7)
    for optimizer, rate, sweeps in (
        ("adam", 0.002, 5), ("adam", 0.005, 5), ("adam", 0.01, 5), ("adam", 0.005, 2),
        ("sgd", 0.2, 5), ("sgd", 0.8, 1), ("sgd", 0.8, 5),
    )
]  # fmt: skip
MOMENTS = [f"{{kind: moments, prior_frames: {frames}}}" for frames in (2000, 4000, 8000, 16000, 32000)]


def main(
    path: Path,
    split: str,
    wanted: int | None,
    methods: Sequence[MethodConfig],
    seconds: float | None,
    targets: TargetsConfig,
    controls: bool,
) -> None:
    """Print the table of an experiment whose first pass over the split is finished."""
    config, experiment = read_experiment(path)
    plan = passes_of(config)[SI]
    loop = two_pass(experiment, split, plan)
    pdfs = references(experiment, split, loop)
    environments = {utterance.id: utterance.environment for utterance in experiment.utterances(split)}
    chosen = spread(sorted(loop.features.speakers), wanted)
    halves, whole = (
        [
            each
            for each in adaptation_sets(
                loop.features, environments, DataConfig(mode=mode, seconds=seconds), config.seed
            )
            if each.speaker in chosen
        ]
        for mode in ("one_shot", "two_pass")
    )
    unadapted = cross_entropies(loop, None, whole, pdfs)
    heard = np.mean([sum(frames for _, frames in each.estimated_on) for each in halves]) * FRAME_SHIFT_SECONDS
    sys.stdout.write(
        f"{len(unadapted)} speakers, {heard:.0f} s of each half; unadapted {unadapted.mean():.4f} nats per frame\n\n"
    )
    headings = ["method", "own", "standard error", *(["others", "two-pass"] if controls else [])]
    write_row(headings)
    write_row(["---"] * len(headings))

    def estimate(method: MethodConfig, sets: Sequence[AdaptationSet]) -> AdaptedSpeakers:
        made = ready(experiment, method, targets.silence_weight, config.seed)
        earlier = first_pass(experiment, split, plan, method, targets, loop)
        return loop.adapt(made, earlier, targets, sets, config.seed)

    for method in methods:
        speakers = estimate(method, halves)
        changes = [cross_entropies(loop, speakers, halves, pdfs) - unadapted]
        if controls:
            others = others_mean(speakers, halves, by_environment=False)
            changes.append(cross_entropies(loop, others, halves, pdfs) - unadapted)
            changes.append(cross_entropies(loop, estimate(method, whole), whole, pdfs) - unadapted)
        error = changes[0].std(ddof=1) / np.sqrt(len(unadapted))
        own, *rest = (f"{change.mean():+.4f}" for change in changes)
        write_row([f"`{title_of(method)}`", own, f"{error:.4f}", *rest])


def spread(names: Sequence[str], wanted: int | None) -> Sequence[str]:
    """So many of the names, spread evenly; all of them for None, or where there are fewer."""
    return names if wanted is None else [names[i] for i in sorted({i * len(names) // wanted for i in range(wanted)})]


def references(experiment: AlignedExperiment, split: str, loop: TwoPass) -> dict[str, np.ndarray]:
    """The pdf of each frame of each utterance, shape (T,), along its transcript; -1 where it cannot be aligned."""
    if split == HELDOUT:
        aligned = experiment.aligned(experiment.alignment, split)
        return {utterance.id: aligned[utterance.id] for utterance in loop.features.utterances}
    pdfs = reference_pdfs(experiment, split, ModelPlace(), loop.model, max_unaligned=1.0)
    return {
        utterance.id: pdfs[utterance.id] if utterance.id in pdfs else np.full(utterance.frames, -1)
        for utterance in loop.features.utterances
    }


def write_row(cells: Sequence[str]) -> None:
    """A row of the table, at once: the whole of it takes an hour."""
    sys.stdout.write(f"| {' | '.join(cells)} |\n")
    sys.stdout.flush()


def cross_entropies(
    loop: TwoPass, speakers: SpeakerScores | None, sets: Sequence[AdaptationSet], pdfs: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Each speaker's mean cross-entropy per frame, shape (S,), in the order of the speakers' names.

    Speakers without a set, or without any aligned frame, are left out.

    Args:
        loop: The network and the features.
        speakers: Parameters of the sets; None for the unadapted network.
        sets: The sets, of the speakers who count.
        pdfs: Reference pdf of each frame of each utterance.
    """
    log_prior = loop.model.log_prior.cpu()
    totals: dict[str, tuple[float, int]] = {}
    among = {each.speaker for each in sets}
    for utterance, scores in loop.first_pass() if speakers is None else loop.second_pass(speakers, sets):
        targets, speaker = pdfs[utterance], loop.features.by_id[utterance].speaker
        known = targets >= 0
        if speaker not in among or not known.any():
            continue
        log_posteriors = torch.log_softmax(torch.from_numpy(scores) + log_prior, dim=1).numpy()
        total, frames = totals.get(speaker, (0.0, 0))
        chosen = log_posteriors[np.flatnonzero(known), targets[known]]
        totals[speaker] = total - float(chosen.sum()), frames + int(known.sum())
    return np.array([total / frames for _, (total, frames) in sorted(totals.items())])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--split", default=HELDOUT, help="a test set's name; the held-out speakers unless given")
    parser.add_argument("--speakers", type=int, help="number of the split's speakers to take; all unless given")
    parser.add_argument("--seconds", type=float, help="seconds of each half to adapt on; all unless given")
    parser.add_argument("--targets", default="{}", help="options of the targets, as in a recipe")
    parser.add_argument("--controls", action="store_true", help="also the others' mean, and two-pass adaptation")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="options of a method; a grid unless given")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    main(
        arguments.experiment,
        arguments.split,
        arguments.speakers,
        methods_of(arguments.methods or MOMENTS + DESCENT),
        arguments.seconds,
        TargetsConfig(**yaml.safe_load(arguments.targets)),
        arguments.controls,
    )
