"""The check of a recipe: it says what is there, refuses what a run would refuse, and writes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.cli.run import run
from lhuc_asr.lang.lexicon import read_lexicon
from lhuc_asr.pipeline.check import check_recipe
from lhuc_asr.pipeline.config import ExperimentConfig


@pytest.fixture
def recipe(finished: Path, tmp_path: Path):
    """A recipe on the voices of the finished experiment, as if they were LibriSpeech."""

    def configured(**changes: object) -> ExperimentConfig:
        voices = next(finished.glob("voices-*"))
        corpus = {"kind": "librispeech", "dir": str(voices), "train": ["train"], "test": ["test"]}
        lexicon = {"path": str(finished / "lang" / "lexicon.txt")}
        tree = {"name": "x", "exp": str(tmp_path / "exp"), "corpus": corpus, "lexicon": lexicon, "heldout_speakers": 2}
        return parse_config(ExperimentConfig, tree | changes, "test")

    return configured


def test_it_says_what_is_there_and_writes_nothing(finished: Path, recipe, tmp_path: Path) -> None:
    lexicon = tmp_path / "some.txt"
    text = (finished / "lang" / "lexicon.txt").read_text(encoding="utf-8")
    test = read_manifest(finished / "corpus" / "test.jsonl")
    lacking = test[0].words[0]
    lines = [line for line in text.splitlines(keepends=True) if line.split()[0] != lacking]
    lexicon.write_text("".join(lines), encoding="utf-8")
    spelt = {line.split()[0] for line in lines}
    check = check_recipe(recipe(lexicon={"path": str(lexicon), "unknown_words": "unk"}))
    train, heldout, tested = check.splits
    assert (train.name, heldout.name, tested.name) == ("train", "heldout", "test")
    assert (train.speakers, heldout.speakers) == (4, 2)
    assert (tested.utterances, tested.speakers) == (len(test), 2)
    assert tested.seconds == pytest.approx(sum(u.seconds for u in test))
    unknown = Counter(word for u in test for word in u.words if word not in spelt)
    assert lacking in unknown
    assert tested.unknown == unknown
    assert tested.words == sum(len(u.words) for u in test)
    assert sum(check.rates.values()) == train.utterances + heldout.utterances + tested.utterances
    shown = check.lines()
    assert any(line.startswith(f"test: {len(unknown)} words out of vocabulary, most often ") for line in shown)
    assert shown[-2:] == [f"pronunciations: {lexicon}", "language model: of order 2, from the training transcripts"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["some.txt"]


def test_the_vocabulary_is_that_of_the_run(finished: Path, recipe) -> None:
    """The experiment took its training words from espeak-ng; its lexicon, read from the file, has the same."""
    expected = read_lexicon(finished / "lang" / "lexicon.txt")
    assert check_recipe(recipe()).lexicon.pronunciations == expected.pronunciations


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"corpus": {"kind": "synthetic"}},
            ConfigError,
            "corpus synthetic are made or unpacked by the run, there are none to check",
        ),
        ({"heldout_speakers": 6}, CorpusError, "6 training speakers, of which heldout_speakers=6 are kept back"),
        ({"lexicon": {"path": "nowhere.txt"}}, ConfigError, r"lexicon\.path: .*nowhere\.txt: no such file"),
        ({"folds": 9, "heldout_speakers": 1}, CorpusError, "8 speakers are too few for 9 folds"),
    ],
)
def test_what_a_run_refuses_is_refused(recipe, tmp_path: Path, changes, error, message) -> None:
    with pytest.raises(error, match=message):
        check_recipe(recipe(**changes))
    assert not (tmp_path / "exp").exists()


def test_the_command_shows_it_and_trains_nothing(
    finished: Path,
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    source = f"corpus={{kind: librispeech, dir: {next(finished.glob('voices-*'))}, train: [train], test: [test]}}"
    run(tiny_recipe, [source, f"lexicon.path={finished / 'lang' / 'lexicon.txt'}"], check=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["split", "train", "heldout", "test"]
    assert list(tmp_path.iterdir()) == []
