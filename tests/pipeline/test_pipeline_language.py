"""The text of the language models: whose transcripts are in it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.base.stages import Stages
from lhuc_asr.lang.text import UNKNOWN
from lhuc_asr.pipeline.experiment import read_config

LAST = "language model"


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
