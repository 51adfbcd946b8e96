"""Speakers who are adapted on a cluster, into a folder of archives: those of one machine, told by their names."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from lhuc_asr.audio.formats import AudioInfo, probe
from lhuc_asr.base.errors import CheckpointError, LhucError, ModelMismatchError, OutputError, SpeakerError
from lhuc_asr.cli.main import app
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer import adapting_together
from lhuc_asr.recognizer.adapting_together import Machines, Ways, adapt_together
from lhuc_asr.recognizer.archive_folder import ArchiveFolder, archive_name, number_of
from lhuc_asr.recognizer.crowd import Request
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.recordings import Recording
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus, speaker_corpus
from lhuc_asr.recognizer.transcript import Span


def called(name: str) -> str:
    """Another name of a speaker: of these, two are in either of two archives."""
    return f"{name}-a"


@pytest.fixture(scope="module")
def corpus_folder(heard: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of recordings for each speaker."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, paths in heard.items():
        (folder / called(name)).mkdir()
        for path in paths:
            shutil.copy(path, folder / called(name))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def opened(folder: Path) -> SpeakerCorpus:
    with speaker_corpus(folder) as corpus:
        return corpus


def test_a_cluster_adapts_as_this_machine_does(
    corpus_folder: Path,
    exported: Path,
    store: Path,
    two_machines: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """To the bit, with the verdict, whatever the banks. A second run has nothing left to do."""
    alone = {}
    for each in load(exported).adapt_corpus(corpus_folder, judged=True):
        each.speaker.save(tmp_path / "one.safetensors")
        alone[each.speaker.name] = SpeakerState.load(tmp_path / "one.safetensors")
    monkeypatch.setattr(adapting_together, "SPEAKERS_A_FILE", 2)
    machines, ways, written = Machines(two_machines.address, str(store)), Ways(judged=True), []
    folder = tmp_path / "people"
    for most, finished in ((2, 0), (1, 0), (1, 4)):
        monkeypatch.setattr(adapting_together, "BANK_SPEAKERS", most)
        caplog.clear()
        with caplog.at_level(logging.INFO, "lhuc_asr"):
            assert adapt_together(exported, opened(corpus_folder), folder, machines, ways, overwrite=True) == 4
        assert caplog.text.count("finished before") == finished
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0].keys() == {archive_name(0, 2), archive_name(1, 2)}
    assert written[0] == written[1] == written[2]
    ours = ArchiveFolder(folder)
    assert len(ours) == len(alone) == 4
    for name, expected in alone.items():
        state = ours.state(name)
        assert (state.model, state.amplitude, state.sites) == (expected.model, expected.amplitude, expected.sites)
        for mine, theirs in ((state.r, expected.r), (state.extras, expected.extras)):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert any(bool(values.any()) for state in alone.values() for values in state.r.values())


def test_speakers_of_one_recording_send_it_once(tmp_path: Path) -> None:
    """Turns of a talk, as an RTTM has them: each with its part and its channel."""
    talk = tmp_path / "talk.wav"
    soundfile.write(talk, np.zeros((32000, 2)), 16000)
    turns = [
        Recording(f"talk-{number}", talk, probe(talk), "talk.wav", Span(number / 2, number / 2 + 0.5), number + 1)
        for number in range(2)
    ]
    ((title, _, bank),) = adapting_together._banks({"alice": turns[:1], "bob": turns[1:]}, 1)
    job = adapting_together._job(title, bank, {}, asdict(Ways()))
    assert job.inputs == {"recordings/0.wav": talk}
    assert job.alone == {"recordings/0.wav"}
    (inputs := tmp_path / "inputs" / "recordings").mkdir(parents=True)
    shutil.copy(talk, inputs / "0.wav")
    plain = json.loads(json.dumps(job.options["speakers"]))
    for name, turn in zip(("alice", "bob"), turns, strict=True):
        (found,) = adapting_together._recordings(tmp_path / "inputs", plain[name], None)
        assert (found.name, found.span, found.channel) == (turn.name, turn.span, turn.channel)


@pytest.mark.parametrize(
    ("speakers", "seconds", "banks"),
    [
        (40, 20.0, 14),  # 800 s: banks of a minute, of three speakers each
        (64, 60.0, 16),  # about 16 banks, of four minutes
        (800, 60.0, 27),  # 13 hours: half an hour each
        (1000, 1.0, 17),  # a minute again, of 62 speakers: the last has 8
        (20_000, 1.0, 79),  # at most 256 speakers
    ],
)
def test_banks_are_neither_small_nor_large(speakers: int, seconds: float, banks: int) -> None:
    info = AudioInfo(16000, 1, int(16000 * seconds), seconds)
    corpus = {f"{n:05d}": [Recording(f"r{n}", Path("r.wav"), info, "r.wav")] for n in range(speakers)}
    cut = [bank for _, _, bank in adapting_together._banks(corpus, 1)]
    assert len(cut) == banks
    assert [name for bank in cut for name in bank] == list(corpus)


def test_what_comes_into_the_folder_meanwhile_stays(
    corpus_folder: Path, exported: Path, store: Path, two_machines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(path: Path, parts: Any) -> int:
        (tmp_path / "people").mkdir()
        (tmp_path / "people" / "notes.txt").write_text("mine")
        return 4

    monkeypatch.setattr(adapting_together, "_write", written)
    machines = Machines(two_machines.address, str(store))
    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        adapt_together(exported, opened(corpus_folder), tmp_path / "people", machines)
    assert (tmp_path / "people" / "notes.txt").read_text() == "mine"


def test_the_command_leaves_out_what_cannot_be_used(
    corpus_folder: Path, exported: Path, store: Path, two_machines: Any, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))
    (first, second, *_) = sorted(each.name for each in folder.iterdir())
    next((folder / first).iterdir()).write_bytes(b"RIFF, but no sound")
    silent = sorted((folder / second).iterdir())
    for path in silent:
        path.write_bytes(b"")
    options = ["--cluster", two_machines.address, "--store", str(store)]
    done = CliRunner().invoke(app, ["adapt", str(exported), str(folder), "-o", str(tmp_path / "people"), *options])
    assert done.exit_code == 1
    assert "left out" in str(done.exception)
    assert "people: 3 speakers" in done.stdout
    assert first in ArchiveFolder(tmp_path / "people")
    assert second not in ArchiveFolder(tmp_path / "people")
    again = CliRunner().invoke(app, ["adapt", str(exported), str(folder), "-o", str(tmp_path / "people"), *options])
    assert isinstance(again.exception, OutputError)
    assert "give --overwrite" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cluster", "auto"), "--cluster and --store go together"),
        (("--cluster", "auto", "--store", "s", "--speaker", "alice"), "--cluster goes with a corpus"),
        (("--cluster", "auto", "--store", "s", "--device", "cuda"), "on a processor each"),
    ],
)
def test_options_that_do_not_go_together(arguments: tuple[str, ...], message: str, corpus_folder: Path) -> None:
    done = CliRunner().invoke(app, ["adapt", "model", str(corpus_folder), *arguments], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_folder_with_other_files_is_left_alone(corpus_folder: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"thesis\.txt, and the archives would take its place"):
        adapt_together(exported, opened(corpus_folder), tmp_path, Machines("auto", "unused"), overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.fixture
def folder_of_two(archive: Path, tmp_path: Path) -> Path:
    """The archive's speakers in two files, by other names."""
    folder, states = (
        tmp_path / "two",
        [replace(each, speaker=called(each.speaker)) for each in SpeakerArchive(archive).states()],
    )
    folder.mkdir()
    for number in range(2):
        own = [state for state in states if number_of(state.speaker, 2) == number]
        write_archive(folder / archive_name(number, 2), own)
    return folder


def test_a_crowd_reads_a_folder_as_it_reads_one_archive(
    folder_of_two: Path, archive: Path, exported: Path, heard: dict[str, list[Path]]
) -> None:
    requests = [Request(path.stem, name, path.read_bytes()) for name, (path, *_) in heard.items()]
    expected = load(exported).crowd(archive).transcripts(requests)
    renamed = [replace(each, speaker=called(each.speaker or "")) for each in requests]
    *found, strange = (
        load(exported).crowd(folder_of_two).transcripts([*renamed, replace(requests[0], speaker="nobody")])
    )
    assert [each.words for each in found] == [each.words for each in expected]  # type: ignore[union-attr]
    assert isinstance(strange, SpeakerError)
    assert "'nobody' is not among the 4" in str(strange)


def test_names_are_spread_evenly_and_for_good() -> None:
    numbers = [number_of(f"speaker-{n}", 10) for n in range(10_000)]
    counts = [numbers.count(number) for number in range(10)]
    assert max(abs(count - 1000) for count in counts) < 5 * 30  # five standard deviations
    # SHA-256 of "abc" ends in ...15ad, and 0x15ad is 5549: of 16 archives, number 0xd.
    assert number_of("abc", 16) == 0xD


def _another_model(folder: Path) -> None:
    path = folder / archive_name(1, 2)
    write_archive(path, [replace(each, model="0" * 64) for each in SpeakerArchive(path).states()])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / archive_name(1, 2)).unlink(), CheckpointError, "speakers-00001-of-00002.archive is"),
        (lambda folder: (folder / archive_name(0, 3)).touch(), CheckpointError, "archives of several sets"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], CheckpointError, "no archive of speakers"),
        (_another_model, ModelMismatchError, "of another model than"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    damage: Any, error: type[LhucError], message: str, folder_of_two: Path
) -> None:
    damage(folder_of_two)
    with pytest.raises(error, match=message):
        ArchiveFolder(folder_of_two)
