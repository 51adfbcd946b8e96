"""The text of the language models: whose transcripts are in it."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.base.stages import Stages
from lhuc_asr.lang.arpa import read_arpa
from lhuc_asr.lang.text import UNKNOWN
from lhuc_asr.pipeline.experiment import read_config

LAST = "perplexity"


class Reached(Exception):
    """The language models are made."""


@pytest.fixture
def to_language_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run) -> Callable[..., Path]:
    """Run the tiny recipe up to its language models."""
    real = Stages.run

    def stop_after(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        real(self, name, work, **arguments)
        if name == LAST:
            raise Reached

    def run_in(*overrides: str) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(Stages, "run", stop_after)
            with pytest.raises(Reached):
                run(tmp_path / "exp", *overrides)
        return tmp_path / "exp"

    return run_in


def test_librispeech_has_its_whole_text_with_a_few_hours_of_speech(finished: Path, to_language_models) -> None:
    voices = next(finished.glob("voices-*"))
    source = f"corpus={{kind: librispeech, dir: {voices}, train: [train], test: [test]}}"
    folder = to_language_models(source, "lexicon.language=en-us", "hours=0.005")
    heard = [u for split in ("train", "heldout") for u in read_manifest(folder / "corpus" / f"{split}.jsonl")]
    everything = [u for split in ("train", "heldout") for u in read_manifest(finished / "corpus" / f"{split}.jsonl")]
    assert len(heard) < len(everything) / 2
    lexicon = (folder / "lang" / "lexicon.txt").read_text(encoding="utf-8").splitlines()
    assert {line.split()[0] for line in lexicon} - {UNKNOWN} == {word for u in everything for word in u.words}
    assert (folder / "lang" / "lm.arpa").read_bytes() == (finished / "lang" / "lm.arpa").read_bytes()
    # The text for tuning is the whole text too, without the held-out speakers.
    assert (folder / "lang" / "tuning" / "lm.arpa").stat().st_size > 0.6 * (folder / "lang" / "lm.arpa").stat().st_size
    assert (folder / "lang" / "tuning" / "lm.arpa").read_bytes() != (folder / "lang" / "lm.arpa").read_bytes()


def test_text_of_its_own_makes_one_language_model(finished: Path, to_language_models, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("GO ON\nGO BACK\n", encoding="utf-8")
    folder = to_language_models(f"lm.text=[{tmp_path / 'text.txt'}]")
    assert "GO ON" in " ".join((folder / "lang" / "lm.arpa").read_text(encoding="utf-8").split())
    assert not (folder / "lang" / "tuning").exists()


def test_a_given_language_model_takes_the_place_of_an_estimated_one(
    finished: Path, to_language_models, tmp_path: Path
) -> None:
    given, lang = tmp_path / "given.arpa.gz", finished / "lang"
    given.write_bytes(gzip.compress((lang / "lm.arpa").read_bytes()))
    folder = to_language_models(f"lm.arpa={given}", "lm.order=1")
    assert (folder / "lang" / "lexicon.txt").read_bytes() == (lang / "lexicon.txt").read_bytes()
    assert (folder / "lang" / "lm.arpa").read_bytes() == (lang / "lm.arpa").read_bytes()
    assert not (folder / "lang" / "tuning").exists()
    assert read_config(folder / "config.yaml").lm.order == 2  # the file's


def test_a_language_model_that_is_none_is_refused_before_any_work(tmp_path: Path, run) -> None:
    (tmp_path / "lm.arpa").write_text("GO ON\n", encoding="utf-8")
    with pytest.raises(LanguageModelError, match="not an ARPA language model"):
        run(tmp_path / "exp", f"lm.arpa={tmp_path / 'lm.arpa'}")
    long = "".join(f"ngram {n}=1\n" for n in range(1, 6))
    (tmp_path / "lm.arpa").write_text(f"\\data\\\n{long}", encoding="utf-8")
    with pytest.raises(LanguageModelError, match=r"a model of order 5, expected at most 4, .*; cut it: ngram -order 4"):
        run(tmp_path / "exp", f"lm.arpa={tmp_path / 'lm.arpa'}")
    assert not (tmp_path / "exp").exists()


def test_the_fit_of_each_split_is_written(finished: Path) -> None:
    fits = read_json(finished / "lang" / "perplexity.json")
    model = read_arpa(finished / "lang" / "lm.arpa")
    spoken = {split: [u.words for u in read_manifest(finished / "corpus" / f"{split}.jsonl")] for split in fits}
    assert set(fits) == {"heldout", "test", "control"}
    for split in ("test", "control"):
        assert fits[split]["perplexity"] == pytest.approx(model.perplexity(spoken[split]), rel=1e-5)
        assert fits[split]["words"] == sum(map(len, spoken[split]))
    tuning = read_arpa(finished / "lang" / "tuning" / "lm.arpa")
    assert fits["heldout"]["perplexity"] == pytest.approx(tuning.perplexity(spoken["heldout"]), rel=1e-5)


def test_text_of_a_test_set_in_the_language_models_text_is_warned_of(
    finished: Path, to_language_models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = [u.text for u in read_manifest(finished / "corpus" / "test.jsonl")]
    long = f"{' '.join(said)} {' '.join(said)}"
    (tmp_path / "text.txt").write_text("GO ON\nGO BACK\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        to_language_models(f"lm.text=[{tmp_path / 'text.txt'}]")
    assert "of the test set" not in caplog.text
    (tmp_path / "text.txt").write_text(long, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        to_language_models(f"lm.text=[{tmp_path / 'text.txt'}]")
    sequences = {tuple(words[n : n + 8]) for words in map(str.split, said) for n in range(len(words) - 7)}
    assert (
        f"lm.text has {len(sequences)} of the {len(sequences)} sequences of 8 words of the test set test" in caplog.text
    )


def test_files_beside_the_corpus_are_taken_and_recorded(
    finished: Path, to_language_models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = tmp_path / "LibriSpeech"
    corpus.symlink_to(next(finished.glob("voices-*")))
    source = f"corpus={{kind: librispeech, dir: {corpus}, train: [train], test: [test]}}"
    lexicon, arpa = tmp_path / "librispeech-lexicon.txt", tmp_path / "3-gram.pruned.3e-7.arpa.gz"
    lexicon.write_text((finished / "lang" / "lexicon.txt").read_text(encoding="utf-8"), encoding="utf-8")
    arpa.write_bytes(gzip.compress((finished / "lang" / "lm.arpa").read_bytes()))
    with caplog.at_level(logging.INFO):
        folder = to_language_models(source)
    config = read_config(folder / "config.yaml")
    assert (config.lexicon.path, config.lm.arpa, config.lm.order) == (lexicon, arpa, 2)
    assert f"pronunciations: {lexicon}" in caplog.text
    assert f"language model: of order 2, from {arpa}" in caplog.text
    assert (folder / "lang" / "lm.arpa").read_bytes() == (finished / "lang" / "lm.arpa").read_bytes()
