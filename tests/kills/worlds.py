"""The commands that are disturbed, on a tiny experiment: where each begins, and what must never be lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from kills import Command

from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.pipeline.export import export
from lhuc_asr.recognizer.recognizer import load

RANKERS = """
name: rank
data: {kind: synthetic, users: 20, examples: 60, heldout: 40, numbers: 2, factors: 2, strength: 2.0, spread: 0.9}
examples:
  features:
    - {name: user, kind: id, group: prior}
    - {name: x1, kind: number, embedding: 2}
    - {name: x2, kind: number, embedding: 2}
  labels: [click]
  user: user
models:
  dnn: {kind: dnn, hidden_units: [4]}
  ppnet: {kind: ppnet, hidden_units: [4], gate: {hidden: null}}
baseline: dnn
trainer: {batch_size: 64, epochs: 3, monitor: log_loss}
seeds: [1]
"""


def commands(root: Path, recipe: Path, finished: Path) -> list[Command]:
    """The commands, each with a folder to begin in.

    Args:
        root: Folder for these folders.
        recipe: The tiny recipe's configuration.
        finished: Its finished experiment.
    """
    nothing = root / "nothing"
    nothing.mkdir(parents=True)
    shutil.copy(recipe, nothing / "config.yaml")
    (nothing / "rank.yaml").write_text(RANKERS)

    model = root / "model"
    shutil.copytree(nothing, model)
    experiment = model / "exp"
    shutil.copytree(finished, experiment)
    tree = yaml.safe_load((experiment / "config.yaml").read_text())
    (experiment / "config.yaml").write_text(yaml.safe_dump(tree | {"exp": "exp"}, sort_keys=False, allow_unicode=True))
    export(experiment, model / "model")
    talks = sorted((experiment / "corpus").rglob("test/**/*.flac"))[:3] or sorted(experiment.rglob("*.flac"))[:3]
    (model / "talks").mkdir()
    for talk in talks:
        shutil.copy(talk, model / "talks")
    speaker = load(model / "model").adapt(talks[:1], "alice")
    speaker.save(model / "alice.safetensors")
    for folder, names in (("into", ("alice", "bob")), ("more", ("carol", "dave", "eve"))):
        (model / folder).mkdir()
        for name in names:
            state = SpeakerState.load(model / "alice.safetensors")
            type(state)(**{**vars_of(state), "speaker": name}).save(model / folder / f"{name}.safetensors")
    (model / "words.txt").write_text("what was here before\n")
    return [
        Command("run", ("run", "config.yaml", "exp=exp"), nothing),
        Command("run with another option", ("run", "config.yaml", "exp=exp", "lhuc.sweeps=1"), model),
        Command("export over a model", ("export", "exp", "model"), model, ("model",)),
        Command(
            "adapt over a file", ("adapt", "model", "--speaker", "alice", "talks", "-o", "alice.safetensors"), model,
            ("alice.safetensors", "talks", "model"),
        ),
        Command("transcribe over a file", ("transcribe", "model", "talks", "-o", "words.txt", "--overwrite"), model,
            ("words.txt",),
        ),
        Command(
            "merge", ("speakers", "merge", "into", "more"), model,
            ("into/alice.safetensors", "into/bob.safetensors", "more"),
        ),
        Command("ppnet train", ("ppnet", "train", "rank.yaml", "exp=rank"), nothing),
        Command("benchmark", ("benchmark", "exp", "-e", "steps"), model),
    ]  # fmt: skip


def vars_of(state: SpeakerState) -> dict[str, object]:
    """The fields of a speaker's state."""
    return {name: getattr(state, name) for name in state.__dataclass_fields__}
