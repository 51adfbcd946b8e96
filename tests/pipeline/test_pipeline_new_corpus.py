"""A corpus of a new kind is one class: this file adds one, and the whole recipe runs on it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import pytest

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.config import dump_config, load_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.corpus.reading import Reading
from lhuc_asr.corpus.source import CorpusReading, CorpusSource
from lhuc_asr.corpus.sources import SOURCES
from lhuc_asr.pipeline.config import ExperimentConfig

Run = Callable[..., list[str]]


class ListedSource(CorpusSource):
    """Recordings listed in ``<set>.list``: speaker, path and words, a line each, with tabs between.

    Attributes:
        dir: Folder of the lists.
        tests: Names of the test sets.
    """

    kind: Literal["listed"] = "listed"
    dir: Path
    tests: tuple[str, ...]

    @property
    def test_sets(self) -> tuple[str, ...]:
        return self.tests

    def paths(self) -> list[Path]:
        return [self.dir]

    def read(
        self, experiment: Path, *, hours: float | None, seed: int, processes: int, own_tags: Collection[str] = ()
    ) -> CorpusReading:
        return CorpusReading(self._read("train"), {name: self._read(name) for name in self.tests})

    def _read(self, name: str) -> Reading:
        utterances = []
        for line in (self.dir / f"{name}.list").read_text(encoding="utf-8").splitlines():
            speaker, path, text = line.split("\t")
            audio = Path(path)
            utterances.append(Utterance(audio.stem, speaker, "", audio, 0.0, probe(audio).seconds, text))
        return Reading(utterances)


@pytest.fixture
def lists(finished: Path, tmp_path: Path) -> Path:
    """The lists of the finished experiment's synthetic voices."""
    folder = tmp_path / "lists"
    folder.mkdir()
    voices = next(finished.glob("voices-*"))
    for name in ("train", "test", "control"):
        lines = []
        for transcript in sorted((voices / name).rglob("*.trans.txt")):
            for line in transcript.read_text(encoding="utf-8").splitlines():
                id, text = line.split(maxsplit=1)
                lines.append(f"{id.split('-')[0]}\t{transcript.parent / f'{id}.flac'}\t{text}")
        (folder / f"{name}.list").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_new_kind_of_corpus_runs_end_to_end_with_one_line_in_the_table(
    lists: Path, finished: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same recordings under another kind give the same hypotheses, to the bit."""
    monkeypatch.setitem(SOURCES, "listed", ListedSource)
    folder = tmp_path / "exp"
    source = f"corpus={{kind: listed, dir: {lists}, tests: [test, control]}}"
    assert run(folder, source)[0] == "corpus"
    assert run(folder, source) == []
    for split in ("test", "control"):
        for name in ("si/hypotheses.jsonl", "si/wer.json", "lhuc/hypotheses.jsonl", "lhuc/wer.json", "table.txt"):
            path = Path("decode") / split / name
            assert (folder / path).read_bytes() == (finished / path).read_bytes()
    assert load_config(ExperimentConfig, folder / "config.yaml").corpus == ListedSource(
        dir=lists, tests=("test", "control")
    )


def test_an_instance_of_a_new_kind_needs_no_table(lists: Path) -> None:
    source = ListedSource(dir=lists, tests=("test",))
    config = ExperimentConfig(name="x", corpus=source)
    assert config.corpus is source
    assert f"dir: {lists}" in dump_config(config)


def test_an_unknown_kind_is_refused_with_those_that_are_known(tiny_recipe: Path) -> None:
    known = "an4, csv, folder, kaldi, lhotse, librispeech, shar, synthetic"
    with pytest.raises(ConfigError, match=f"corpus: unknown kind 'listed'; known kinds: {known}"):
        load_config(ExperimentConfig, tiny_recipe / "config.yaml", ["corpus={kind: listed}"])
