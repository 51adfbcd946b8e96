"""Real-time factor of recognition with adaptation, from recordings to second-pass words. Aim: under 0.3 on 2 cores.

    python benchmarks/two_pass.py [EXPERIMENT]        # exp/an4 where left out

Takes whole speakers of an experiment's first test split, about six minutes of speech, and does what a run does:
features, first search, adaptation in three sweeps, second search. The searches include the network's scores, the first
one the start of its worker processes; the search alone is measured beside them, on scores that are there already.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import groupby
from pathlib import Path

from timing import show

from lhuc_asr.audio.resampling import resolve_sample_rate
from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.runlog import stopwatch

SPEECH_SECONDS = 360.0
SWEEPS = 3
CORES = 2
AIM = 0.3


def main(folder: Path) -> None:
    """Measure an experiment that has been run as far as its tuning."""
    # Here, not above: the worker processes import this file too, and have no use for torch.
    import torch
    from lhuc_asr.pipeline.acoustics import MODEL_FILE, TOPOLOGY_FILE

    from lhuc_asr.adapt.adaptation_sets import adaptation_sets
    from lhuc_asr.adapt.lhuc import Lhuc
    from lhuc_asr.adapt.two_pass import TwoPass, targets_of
    from lhuc_asr.base.config import load_config
    from lhuc_asr.base.experiment_folder import ExperimentFolder
    from lhuc_asr.decode.pool import SearchPool
    from lhuc_asr.features.extraction import extract
    from lhuc_asr.hmm.topology import load as load_topology
    from lhuc_asr.nnet.checkpoint import load_model
    from lhuc_asr.pipeline.config import SI, ExperimentConfig
    from lhuc_asr.pipeline.passes import SEARCH_FILE, tuned_search
    from lhuc_asr.pipeline.splits import HELDOUT, test_names

    if not (ExperimentFolder(folder).decode(HELDOUT, SI) / SEARCH_FILE).exists():
        sys.exit(
            f"{folder}: no experiment that was run as far as its tuning; make one first, for example:\n"
            "  .venv/bin/lhuc-asr run recipes/an4 corpus.dir=DIR    # makes exp/an4\n"
            "  .venv/bin/lhuc-asr run recipes/demo                  # makes exp/demo, without any download\n"
            "and name its folder: python benchmarks/two_pass.py exp/demo"
        )
    layout, config = ExperimentFolder(folder), load_config(ExperimentConfig, folder / "config.yaml")
    torch.set_num_threads(CORES)
    split = test_names(config)[0]
    utterances = whole_speakers(read_manifest(layout.manifest(split)))
    rate = min(config.features.sample_rate, resolve_sample_rate(utterances))
    features = config.features.model_copy(update={"sample_rate": rate})
    method = Lhuc(config.lhuc.model_copy(update={"sweeps": SWEEPS}))
    alignment = f"dnn{config.realignments}" if config.realignments else "mono"
    topology = load_topology(layout.hmm(alignment) / TOPOLOGY_FILE)
    model = load_model(layout.acoustic_model(SI) / MODEL_FILE)
    adapted, plan = next(iter(config.passes.items()))
    searches = {name: tuned_search(config, layout, name) for name in (SI, adapted)}
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary, SearchPool(layout.lang, CORES) as pool:
        with stopwatch() as watch:
            store = extract(Path(temporary) / "features", utterances, features, CORES)
        seconds["features"] = watch.seconds
        environments = {utterance.id: utterance.environment for utterance in utterances}
        who = adaptation_sets(store, environments, plan.data, config.seed)
        two_pass = TwoPass(model, store, topology.silence_pdfs)
        with stopwatch() as watch:
            first = two_pass.decode(pool, searches[SI])
        seconds["first pass"] = watch.seconds
        with stopwatch() as watch:
            targets = two_pass.alignment_targets(targets_of(first), plan.targets.silence_weight)
            speakers = two_pass.adapt(method, targets, who, config.seed)
        seconds[f"adaptation, {SWEEPS} sweeps"] = watch.seconds
        with stopwatch() as watch:
            two_pass.decode(pool, searches[adapted], speakers, who)
        seconds["second pass"] = watch.seconds
        whole = sum(seconds.values())
        scores = list(two_pass.likelihoods())
        with stopwatch() as watch:
            list(pool.search_all(scores, searches[SI]))
        alone = watch.seconds
    speech = sum(utterance.seconds for utterance in utterances)
    rows = [[part, f"{taken:.1f}", f"{taken / speech:.3f}"] for part, taken in seconds.items()]
    rows.append([f"whole (aim: under {AIM})", f"{whole:.1f}", f"{whole / speech:.3f}"])
    rows.append(["the search alone", f"{alone:.1f}", f"{alone / speech:.3f}"])
    show(
        f"{folder}, {split}: {speech:.0f} s of {len(store.speakers)} speakers on {CORES} cores",
        ["", "seconds", "of real time"],
        rows,
    )


def whole_speakers(utterances: list[Utterance]) -> list[Utterance]:
    """The first speakers' utterances, all of them, until there is enough speech."""
    chosen: list[Utterance] = []
    by_speaker = groupby(sorted(utterances, key=lambda utterance: utterance.speaker), lambda u: u.speaker)
    for _, theirs in by_speaker:
        if sum(utterance.seconds for utterance in chosen) >= SPEECH_SECONDS:
            break
        chosen.extend(theirs)
    return chosen


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "exp/an4"))
