"""Files that stages read count by their content; a reader of the folder sees which stages are finished."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from stage_bench import Bench, Options

from lhuc_asr.base.atomic import read_json, read_json_lines, write_json, write_json_lines
from lhuc_asr.base.fingerprint import InputFiles, fingerprint, hash_of
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stage_key import stage_key
from lhuc_asr.base.stages import RecordedStages, Stages


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Reader:
    """A stage that reads files, and one after it."""

    def __init__(self, folder: Path, *paths: Path, by_name: frozenset[str] = frozenset()) -> None:
        self.folder = folder
        self.inputs = InputFiles(paths, by_name)

    def add(self, stages: Stages, done: list[str]) -> Stages:
        stages.run("first", lambda _: done.append("first"), options=Options(), inputs=self.inputs)
        stages.run("second", lambda _: done.append("second"), options=None, after=["first"])
        return stages

    def run(self) -> list[str]:
        done: list[str] = []
        self.add(Stages(self.folder, Metrics(self.folder / "metrics.jsonl")), done)
        return done

    def first_stale(self) -> str | None:
        stages = RecordedStages(self.folder)
        self.add(stages, [])
        return stages.first_stale(["second"])


def test_a_file_that_a_stage_reads_counts_by_its_content(tmp_path: Path) -> None:
    table = tmp_path / "corpus" / "text"
    table.parent.mkdir()
    table.write_text("a YES\n")
    os.utime(table, ns=(10**18, 10**18))
    reader = Reader(tmp_path, table.parent, tmp_path / "lm.txt")
    assert reader.run() == ["first", "second"]
    table.touch()
    assert reader.run() == []
    table.write_text("a NOT\n")
    os.utime(table, ns=(10**18, 10**18))
    assert reader.run() == ["first", "second"]
    (tmp_path / "lm.txt").write_text("")
    assert reader.run() == ["first", "second"]
    table.rename(table.with_name("text2"))
    assert reader.run() == ["first", "second"]
    assert reader.run() == []


def test_a_file_that_counts_by_its_name_may_have_another_content(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.WAV").write_text("one")
    reader = Reader(tmp_path, folder, by_name=frozenset({".wav"}))
    reader.run()
    (folder / "a.WAV").write_text("two")
    assert reader.run() == []
    (folder / "b.wav").write_text("one")
    assert reader.run() == ["first", "second"]


def test_a_pipe_beside_the_tables_is_not_read(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    (tmp_path / "corpus").mkdir()
    os.mkfifo(tmp_path / "corpus" / "pipe")
    reader = Reader(tmp_path, tmp_path / "corpus")
    assert reader.run() == ["first", "second"]
    assert reader.run() == []


def test_a_stage_that_an_older_version_finished_stays_finished_and_is_recorded_anew(tmp_path: Path) -> None:
    """Its key is made of the sizes and times of the files."""
    table = tmp_path / "table"
    table.write_text("one")
    reader = Reader(tmp_path, table)
    reader.run()
    path = tmp_path / "stages" / "first.json"
    record = {"key": stage_key("first", Options(), [], fingerprint([table])), "seconds": 0.1, "files": hash_of([])}
    second = stage_key("second", None, [record["key"]])
    write_json(path, record)
    write_json(path.with_name("second.json"), {**record, "key": second})
    assert reader.first_stale() is None
    assert reader.run() == []
    assert read_json(path)["key"] == record["key"]
    table.touch()
    assert reader.run() == []
    assert reader.first_stale() is None
    table.write_text("two")
    assert reader.run() == ["first", "second"]


def test_a_list_of_files_of_an_older_version_is_compared_by_size_and_time(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "elsewhere" / "a"
    file.parent.mkdir()
    file.write_text("one")
    bench.run(outputs=False, files=[file])
    stages = bench.folder / "stages"
    (row,) = read_json_lines(stages / "first.files.jsonl")
    old = {name: row[name] for name in ("path", "bytes", "changed")}
    write_json_lines(stages / "first.files.jsonl", [old])
    key, files = stage_key("first", None, []), hash_of([tuple(old.values())])
    write_json(stages / "first.json", {"key": key, "seconds": 0.1, "files": files})
    second = stage_key("second", None, [hashlib.sha256(f"{key} {files}".encode()).hexdigest()])
    write_json(stages / "second.json", {"key": second, "seconds": 0.1, "files": hash_of([])})
    assert bench.run(files=[file]) == []
    os.utime(file, ns=(0, 0))
    assert bench.run(files=[file]) == ["first", "second"]


def test_a_reader_sees_which_stage_has_other_options_or_is_unfinished(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("one")
    reader = Reader(tmp_path, table)
    assert reader.first_stale() == "first"
    reader.run()
    assert reader.first_stale() is None
    before = sorted(tmp_path.rglob("*"))
    table.unlink()  # the folder still holds one whole result
    assert reader.first_stale() is None
    assert sorted([*tmp_path.rglob("*"), table]) == before
    (tmp_path / "stages" / "second.json").unlink()
    assert reader.first_stale() == "second"
    write_json(tmp_path / "stages" / "first.json", {"key": "another", "seconds": 0.1, "files": hash_of([])})
    assert reader.first_stale() == "first"


def test_a_reader_sees_stages_that_later_ones_do_not_fit(bench: Bench, tmp_path: Path) -> None:
    """A run with other files ended its first stage, and was killed before its second began."""

    def second_record() -> Path:
        return bench.folder / "stages" / "second.json"

    def first_stale(options: object = None) -> str | None:
        stages = RecordedStages(bench.folder)
        stages.run("first", lambda _: None, options=options, outputs=[bench.output])
        stages.run("second", lambda _: None, options=options, after=["first"])
        return stages.first_stale(["second"])

    bench.run(files=[tmp_path / "a"])
    kept = second_record().read_text()
    assert first_stale() is None
    assert first_stale(1) == "first"
    (tmp_path / "a").write_text("new")
    bench.run(files=[tmp_path / "a"])
    second_record().write_text(kept)
    assert first_stale() == "second"
    bench.run(files=[tmp_path / "a"])
    assert first_stale() is None
    before = sorted((bench.folder / "stages").iterdir()), second_record().stat().st_mtime_ns
    bench.output.write_text("that of another experiment")
    assert first_stale() == "first"
    bench.output.unlink()
    assert first_stale() == "first"
    assert (sorted((bench.folder / "stages").iterdir()), second_record().stat().st_mtime_ns) == before
