"""Speakers who are adapted on a cluster, into a folder of archives: those of one machine, told by their names."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from lhuc_asr.base.errors import CheckpointError, LhucError, ModelMismatchError, OutputError, SpeakerError
from lhuc_asr.cli.main import app
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.recognizer import adapting_together
from lhuc_asr.recognizer.adapting_together import Machines, adapt_together
from lhuc_asr.recognizer.archive_folder import ArchiveFolder, archive_name, number_of
from lhuc_asr.recognizer.crowd import Request
from lhuc_asr.recognizer.recognizer import load
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus, speaker_corpus


@pytest.fixture(scope="module")
def corpus_folder(heard: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder of recordings for each speaker."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, paths in heard.items():
        (folder / name).mkdir()
        for path in paths:
            shutil.copy(path, folder / name)
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
    archive: Path,
    store: Path,
    two_machines: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """To the bit, whatever the banks: one speaker each here. A second run has nothing left to do."""
    monkeypatch.setattr(adapting_together, "BANK_SPEAKERS", 1)
    machines = Machines(two_machines.address, str(store))
    with caplog.at_level(logging.INFO, "lhuc_asr"):
        assert adapt_together(exported, opened(corpus_folder), tmp_path / "people", machines) == 4
        assert "finished before" not in caplog.text
        assert adapt_together(exported, opened(corpus_folder), tmp_path / "again", machines) == 4
    assert caplog.text.count("finished before") == 4
    ours, alone = ArchiveFolder(tmp_path / "people"), SpeakerArchive(archive)
    assert len(ours) == 4
    for name in alone:
        found, expected = ours.state(name), alone.state(name)
        assert (found.model, found.amplitude, found.sites) == (expected.model, expected.amplitude, expected.sites)
        for mine, theirs in ((found.r, expected.r), (found.extras, expected.extras)):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    files = [sorted(path.read_bytes() for path in (tmp_path / each).iterdir()) for each in ("people", "again")]
    assert files[0] == files[1]


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


def called(name: str) -> str:
    """Another name of a speaker: of these, some are in either of two archives."""
    return f"{name}-a"


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
        len(ArchiveFolder(folder_of_two))
