"""A new speaker: adapt to recordings, transcribe them before and after. Aim: a third of their length, under 1.5 GB.

    python benchmarks/offline.py MODEL AUDIO...    # a folder that lhuc-asr export made; a minute of one person

The whole is the time that a user waits for three commands, each a process that imports torch and loads the model. The
parts are measured beside it in one process. Each is done twice and the second time counts, because the first compiles
the loops of the search, which takes some ten seconds once an installation.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from timing import show

from lhuc_asr.base.runlog import stopwatch

CORES = 2
AIM_OF_REAL_TIME, AIM_BYTES = 1 / 3, 1.5e9

ResultT = TypeVar("ResultT")


def main(model: Path, audio: list[str]) -> None:
    """Measure the commands, then the parts."""
    rows: list[tuple[str, float, float]] = []  # what, wall seconds, processor seconds
    with tempfile.TemporaryDirectory() as folder:
        speaker = str(Path(folder) / "speaker.safetensors")
        commands = {
            "transcribe": ["transcribe", str(model), *audio],
            "adapt": ["adapt", str(model), "--speaker", "speaker", "-o", speaker, *audio],
            "transcribe, adapted": ["transcribe", str(model), "--speaker", speaker, *audio],
        }
        lhuc_asr = [sys.executable, "-c", "from lhuc_asr.cli.main import main; main()"]
        for _ in range(2):  # the first time compiles
            rows = [(name, *measured(partial(run, [*lhuc_asr, *arguments]))) for name, arguments in commands.items()]
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    seconds, parts = parts_of(model, audio)
    whole = sum(wall for _, wall, _ in rows)
    table = [[name, f"{wall:.1f}", f"{cpu:.1f}", f"{wall / seconds:.3f}"] for name, wall, cpu in rows]
    table.append(
        [
            f"whole (aim: under {AIM_OF_REAL_TIME * seconds:.0f} s)",
            f"{whole:.1f}",
            f"{sum(r[2] for r in rows):.1f}",
            f"{whole / seconds:.3f}",
        ]
    )
    table += [[f"  {name}", f"{wall:.2f}", f"{cpu:.2f}", f"{wall / seconds:.3f}"] for name, wall, cpu in parts]
    show(
        f"{model}: {seconds:.0f} s of speech on {CORES} cores; memory at most {memory / 1e6:.0f} MB "
        f"(aim: under {AIM_BYTES / 1e6:.0f})",
        ["", "seconds", "of processor", "of real time"],
        table,
    )


def parts_of(model: Path, audio: list[str]) -> tuple[float, list[tuple[str, float, float]]]:
    """Seconds of speech; and name, wall seconds and processor seconds of each part, in a process that has torch."""
    import torch

    from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
    from lhuc_asr.adapt.targets import alignment_targets
    from lhuc_asr.adapt.two_pass import TwoPass
    from lhuc_asr.decode.pool import SearchPool
    from lhuc_asr.hmm import topology
    from lhuc_asr.nnet.checkpoint import load_model
    from lhuc_asr.recognizer.model_folder import read_model
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import recordings
    from lhuc_asr.recognizer.speech import Speech, cut_at_pauses, read_speech, speech_statistics

    torch.set_num_threads(CORES)
    description, files = read_model(model)
    rows: list[tuple[str, float, float]] = []

    def part(name: str, work: Callable[[], ResultT]) -> ResultT:
        work()
        results: list[ResultT] = []
        rows.append((name, *measured(lambda: results.append(work()))))
        return results[0]

    part("loading the model", lambda: load(model))
    first, last = description.named(description.without_speaker), description.with_speaker
    if first.method is not None or last.network is None or last.targets is None or last.method is None:
        sys.exit(f"{model}: the parts are those of a model that adapts a network in two passes; export such a pass")
    pool, silence = SearchPool(files.lang, processes=0), topology.load(files.topology).silence_pdfs
    with recordings(audio) as named:

        def spoken() -> Speech | None:
            parts = [cut_at_pauses(recording, description, "speaker") for recording in named]
            cmvn, parts = speech_statistics(parts, {last.features})
            return read_speech(parts, "speaker", cmvn) if cmvn else None

        speech = part("features", spoken)
        seconds = sum(recording.info.seconds for recording in named)
    if speech is None:
        sys.exit("nothing is said in the recordings; name others")
    features = speech.features[last.features]
    loop = TwoPass(load_model(files.network(last.network)), features, silence)
    sets = adaptation_sets(features, {piece.id: "" for piece in speech.pieces}, DataConfig(), description.seed)
    scores = part("network", lambda: list(loop.first_pass()))
    hypotheses = part("first search", lambda: list(pool.search_all(scores, first.search)))
    paths = {best.utterance: best.pdfs for best in hypotheses}
    targets = alignment_targets(paths, silence, last.targets.silence_weight)
    data = {each.name: loop.speaker_data(targets, each.estimated_on) for each in sets}
    method = last.method.make(files.prepared(last.name))
    part("adaptation", lambda: method.estimate(loop.model, data, description.seed))
    part("search with lattices", lambda: list(pool.lattices_all(scores, last.search, description.lattice)))
    return seconds, rows


def run(command: list[str]) -> None:
    """Run a command without its output."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and processor seconds of some work, with those of its finished processes."""

    def processor() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before = processor()
    with stopwatch() as watch:
        work()
    return watch.seconds, processor() - before


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
