"""A new speaker: adapt to recordings, transcribe them before and after. Aim: a third of their length, under 1.5 GB.

    python benchmarks/offline.py MODEL AUDIO...    # a folder that lhuc-asr export made; a minute of one person

The whole is what a user waits for: three commands, each a process that imports torch and loads the model. The parts are
measured beside it in one process, each once after a first time that is thrown away: compiling the search's loops takes
some ten seconds, once an installation.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from timing import show

from lhuc_asr.base.runlog import stopwatch

CORES = 2
AIM_OF_REAL_TIME, AIM_BYTES = 1 / 3, 1.5e9


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
            rows = [
                (name, *measured(lambda arguments=arguments: run([*lhuc_asr, *arguments])))
                for name, arguments in commands.items()
            ]
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
    """Seconds of speech, and what takes how long in a process that has torch imported."""
    import torch
    from lhuc_asr.recognizer.from_experiment import find_model

    from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
    from lhuc_asr.adapt.methods import make_method
    from lhuc_asr.adapt.two_pass import TwoPass, targets_of
    from lhuc_asr.decode.pool import SearchPool
    from lhuc_asr.hmm.topology import load as load_topology
    from lhuc_asr.nnet.checkpoint import load_model
    from lhuc_asr.nnet.scoring import score_utterance
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import recordings
    from lhuc_asr.recognizer.speech import read_speech

    torch.set_num_threads(CORES)
    description, files = find_model(model)
    rows: list[tuple[str, float, float]] = []

    def part(name: str, work: Callable[[], object]) -> object:
        work()
        result: list[object] = []
        rows.append((name, *measured(lambda: result.append(work()))))
        return result[0]

    part("loading the model", lambda: load(model))
    network, pool = load_model(files.network), SearchPool(files.lang, processes=0)
    with recordings(audio) as found:
        speech = part("features", lambda: read_speech(found, description, "speaker"))
        seconds = sum(recording.info.seconds for recording in found)
    two_pass = TwoPass(network, speech.features, load_topology(files.topology).silence_pdfs)
    scores = part(
        "network", lambda: [(u.id, score_utterance(network, speech.features[u.id])) for u in speech.features.utterances]
    )
    best = part("first search", lambda: list(pool.search_all(scores, description.first_search)))
    targets = two_pass.alignment_targets(targets_of(best), description.targets.silence_weight)
    method = make_method(description.method, files.prepared)
    who = adaptation_sets(speech.features, {piece.id: "" for piece in speech.pieces}, DataConfig(), description.seed)
    part("adaptation", lambda: two_pass.adapt(method, targets, who, description.seed))
    part(
        "search with lattices", lambda: list(pool.lattices_all(scores, description.adapted_search, description.lattice))
    )
    return seconds, rows


def run(command: list[str]) -> None:
    """Run a command; its words are of no interest here."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and those of the processor with the processes that were waited for."""

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
