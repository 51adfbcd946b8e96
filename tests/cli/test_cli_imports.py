"""A new speaker needs nothing of training: what a fresh process has imported when its work is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest

# Rooms and modules that only training needs; matplotlib is slow to import.
TRAINING = ("pipeline", "study", "corpus", "ppnet", "score", "nnet.trainer")
LIBRARIES = ("matplotlib", "jiwer")

# Runs command lines one after the other, a list of arguments each, then tells what was imported.
COMMANDS = (
    "import json, sys\n"
    "from lhuc_asr.cli.main import main\n"
    "for arguments in json.loads(sys.argv[1]):\n"
    "    sys.argv[1:] = arguments\n"
    "    try: main()\n"
    "    except SystemExit as ended: assert not ended.code, ended.code\n"
)
TELLING = "import json, sys; print(json.dumps(sorted(sys.modules)))"
LIBRARY = (
    "import lhuc_asr, sys\n"
    "recognizer = lhuc_asr.load(sys.argv[1])\n"
    "person = recognizer.adapt(sys.argv[2])\n"
    "person.save(sys.argv[3])\n"
    "assert recognizer.transcribe(sys.argv[2], person) == recognizer.transcribe(sys.argv[2], sys.argv[3])\n"
)


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment's model, elsewhere."""
    from lhuc_asr.pipeline.export import export

    folder = tmp_path_factory.mktemp("elsewhere") / "model"
    export(finished, folder)
    return folder


@pytest.fixture
def recording(finished: Path) -> Path:
    return next(utterance.audio for utterance in read_manifest(finished / "corpus" / "test.jsonl"))


def imported(code: str, *arguments: object) -> set[str]:
    """Modules that a fresh process has when the code is done."""
    ran = subprocess.run(
        [sys.executable, "-c", code + TELLING, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def imported_by_commands(*commands: tuple[object, ...]) -> set[str]:
    """Modules that a fresh process has when these command lines are done."""
    return imported(COMMANDS, json.dumps([[str(argument) for argument in command] for command in commands]))


def of_training(modules: set[str]) -> list[str]:
    forbidden = (*(f"lhuc_asr.{name}" for name in TRAINING), *LIBRARIES)
    return sorted(name for name in modules if any(name == one or name.startswith(f"{one}.") for one in forbidden))


def test_the_check_sees_what_training_imports() -> None:
    rooms = ("pipeline.run", "study.run", "ppnet.model", "score.figures", "nnet.trainer", "corpus.sources")
    modules = imported(f"import {', '.join(f'lhuc_asr.{name}' for name in rooms)}\n")
    assert {f"lhuc_asr.{name}" for name in TRAINING} | set(LIBRARIES) <= set(of_training(modules))


def test_adapt_and_transcribe_import_nothing_of_training(exported: Path, recording: Path, tmp_path: Path) -> None:
    person, text = tmp_path / "alice.safetensors", tmp_path / "text"
    words = tmp_path / "words"
    words.write_text((exported / "lang" / "lexicon.txt").read_text().split()[0])
    text.write_text(f"{recording.stem} {words.read_text()}\n")
    adapt = ("adapt", exported, "--speaker", "alice", recording, "-o")
    modules = imported_by_commands(
        (*adapt, person),
        (*adapt, tmp_path / "known.safetensors", "--transcripts", text),
        ("transcribe", exported, "--speaker", person, recording),
        ("transcribe", exported, recording, "--format", "json"),
        ("align", exported, recording, words, "--format", "json"),
    )
    assert "lhuc_asr.recognizer.recognizer" in modules
    assert of_training(modules) == []


def test_an_experiments_folder_needs_nothing_of_training_either(
    finished: Path, recording: Path, tmp_path: Path
) -> None:
    person = tmp_path / "alice.safetensors"
    modules = imported_by_commands(
        ("adapt", finished, "--speaker", "alice", recording, "-o", person),
        ("transcribe", finished, "--speaker", person, recording),
        ("info", finished),
        ("speakers", "show", person),
    )
    assert "lhuc_asr.recognizer.recognizer" in modules
    assert of_training(modules) == []


def test_the_library_imports_nothing_of_training(exported: Path, recording: Path, tmp_path: Path) -> None:
    modules = imported(LIBRARY, exported, recording, tmp_path / "person.safetensors")
    assert "lhuc_asr.recognizer.recognizer" in modules
    assert of_training(modules) == []
