"""Real-time factor of recognition with adaptation, from recordings to second-pass words. Aim: under 0.3 on 2 cores.

    python benchmarks/two_pass.py [EXPERIMENT]        # exp/an4 unless given

Takes whole speakers of an experiment's first test split, about six minutes of speech, and does the work of a run:
features, first pass, adaptation in three sweeps, second pass. Both passes include the network's scores, and the first
one includes the start of the search's worker processes. The search alone, on finished scores, is measured beside them.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from timing import show

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.runlog import stopwatch

# Not at run time: the worker processes import this file too, and do not need torch.
if TYPE_CHECKING:
    from lhuc_asr.adapt.two_pass import TwoPass

SPEECH_SECONDS = 360.0
SWEEPS = 3
CORES = 2
AIM = 0.3
HOW_TO_MAKE_ONE = """make an experiment first, for example:
  .venv/bin/lhuc-asr run recipes/an4 corpus.dir=DIR    # makes exp/an4
  .venv/bin/lhuc-asr run recipes/demo                  # makes exp/demo, without any download
and name its folder: python benchmarks/two_pass.py exp/demo"""


def main(path: Path) -> None:
    """Measure an experiment whose scales are tuned."""
    import torch

    from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
    from lhuc_asr.adapt.targets import TargetsConfig
    from lhuc_asr.adapt.two_pass import TwoPass
    from lhuc_asr.decode.lattice_search import LatticeConfig
    from lhuc_asr.decode.pool import SearchPool
    from lhuc_asr.features.extraction import extract
    from lhuc_asr.pipeline.earlier_pass import tuned_search
    from lhuc_asr.pipeline.experiment import read_experiment
    from lhuc_asr.pipeline.pass_config import SI
    from lhuc_asr.pipeline.plan import passes_of
    from lhuc_asr.recognizer.first_pass import SearchedFirstPass

    torch.set_num_threads(CORES)
    try:
        config, experiment = read_experiment(path)
        passes, adapted = passes_of(config), next(iter(config.passes))
        first_search, adapted_search = (tuned_search(experiment, passes[name]) for name in (SI, adapted))
    except (LhucError, FileNotFoundError) as error:
        sys.exit(f"{error}\n{HOW_TO_MAKE_ONE}")
    split = config.test_sets[0]
    utterances = whole_speakers(experiment.utterances(split))
    method = config.lhuc.model_copy(update={"sweeps": SWEEPS}).make(None)
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary, SearchPool(experiment.folder.lang, CORES) as pool:
        with stopwatch() as watch:
            store = extract(
                Path(temporary) / "features",
                utterances,
                config.features.resolved,
                CORES,
                by_environment=config.normalised_by == "environment",
            )
        seconds["features"] = watch.seconds
        sets = adaptation_sets(store, {each.id: each.environment for each in utterances}, DataConfig(), config.seed)
        loop = TwoPass(experiment.network(SI), store, experiment.topology.silence_pdfs)
        first_pass = SearchedFirstPass(loop.first_pass, len(store.utterances), pool, first_search, LatticeConfig())
        with stopwatch() as watch:
            speakers = loop.adapt(method, first_pass, TargetsConfig(), sets, config.seed)
        seconds[f"first pass, adaptation in {SWEEPS} sweeps"] = watch.seconds
        with stopwatch() as watch:
            list(pool.search_all(loop.second_pass(speakers, sets), adapted_search))
        seconds["second pass"] = watch.seconds
        scores = list(loop.first_pass())
        with stopwatch() as watch:
            list(pool.search_all(scores, first_search))
    show_parts(f"{path}, {split}", loop, utterances, seconds, watch.seconds)


def show_parts(
    title: str, loop: TwoPass, utterances: list[Utterance], seconds: dict[str, float], search_alone: float
) -> None:
    """Print the seconds of each part, of the whole, and of the search alone."""
    speech, whole = sum(utterance.seconds for utterance in utterances), sum(seconds.values())
    parts = {**seconds, f"whole (aim: under {AIM})": whole, "the search alone": search_alone}
    rows = [[part, f"{taken:.1f}", f"{taken / speech:.3f}"] for part, taken in parts.items()]
    speakers = len(loop.features.speakers)
    show(f"{title}: {speech:.0f} s of {speakers} speakers on {CORES} cores", ["", "seconds", "of real time"], rows)


def whole_speakers(utterances: list[Utterance]) -> list[Utterance]:
    """All utterances of the first speakers, as many speakers as give enough speech."""
    chosen: list[Utterance] = []
    by_speaker = groupby(sorted(utterances, key=lambda utterance: utterance.speaker), lambda u: u.speaker)
    for _, theirs in by_speaker:
        if sum(utterance.seconds for utterance in chosen) >= SPEECH_SECONDS:
            break
        chosen.extend(theirs)
    return chosen


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "exp/an4"))
