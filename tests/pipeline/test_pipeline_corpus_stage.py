"""Training, held-out and test speakers never meet; folds test every speaker once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.stage_key import stage_key
from lhuc_asr.corpus.splits import SplitOptions, Splits, fold_splits, write_splits
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.corpus_stage import CorpusOptions


def spoken(speaker: str, number: int = 0) -> Utterance:
    return Utterance(f"{speaker}-{number}", speaker, "", Path(f"{speaker}-{number}.wav"), 0.0, 1.0, "YES")


def corpus(training: int, testing: int) -> Splits:
    return Splits(
        [spoken(f"a{i}", n) for i in range(training) for n in range(2)],
        {"test": [spoken(f"b{i}") for i in range(testing)]},
    )


def recipe(**options: object) -> ExperimentConfig:
    tree = {"name": "x", "corpus": {"kind": "kaldi", "train": "a", "test": "b"}, **options}
    return parse_config(ExperimentConfig, tree, "test")


def options(**changes: object) -> SplitOptions:
    return CorpusOptions.of(recipe(**changes), fold=None).splits


@given(training=st.integers(1, 12), testing=st.integers(1, 12), folds=st.integers(2, 5), seed=st.integers(0, 2**31))
def test_each_speaker_is_tested_in_exactly_one_fold(training: int, testing: int, folds: int, seed: int) -> None:
    splits = corpus(training, testing)
    everybody = {u.speaker for u in splits.train + splits.tests["test"]}
    if len(everybody) < 2 * folds:
        with pytest.raises(CorpusError, match=f"{len(everybody)} speakers are too few for {folds} folds"):
            fold_splits(splits, folds, 1, seed)
        return
    parts = [fold_splits(splits, folds, fold, seed) for fold in range(1, folds + 1)]
    tested = [u.speaker for part in parts for u in part.tests["test"]]
    for part in parts:
        train, test = ({u.speaker for u in side} for side in (part.train, part.tests["test"]))
        assert train | test == everybody
        assert not train & test
        assert len(part.train) + len(part.tests["test"]) == len(splits.train) + testing
    sizes = [len({u.speaker for u in part.tests["test"]}) for part in parts]
    assert sum(sizes) == len(everybody)
    assert set(tested) == everybody
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_heldout_speakers_are_whole_and_chosen_by_the_seed(seed: int, tmp_path: Path) -> None:
    splits = corpus(6, 2)
    write_splits(splits, options(heldout_speakers=2, seed=seed), tmp_path, processes=1)
    train, heldout, test = (read_manifest(tmp_path / f"{name}.jsonl") for name in ("train", "heldout", "test"))
    assert len({u.speaker for u in heldout}) == 2
    assert not {u.speaker for u in train} & {u.speaker for u in heldout}
    assert sorted(train + heldout, key=lambda u: u.id) == sorted(splits.train, key=lambda u: u.id)
    assert test == splits.tests["test"]
    write_splits(splits, options(heldout_speakers=2, seed=seed), tmp_path / "again", processes=1)
    assert read_manifest(tmp_path / "again" / "heldout.jsonl") == heldout


def test_the_same_data_from_another_folder_has_the_same_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "else").mkdir()

    def key(folder: str, train: str, test: str) -> str:
        monkeypatch.chdir(tmp_path / folder)
        corpus = {"kind": "kaldi", "train": train, "test": test}
        return stage_key("corpus", CorpusOptions.of(recipe(corpus=corpus), fold=None), [])

    absolute = key("else", str(tmp_path / "data" / "a"), str(tmp_path / "b"))
    assert key("data", "a", "../b") == key("else", "../data/a", "../b") == absolute
    assert key("data", "b", "../b") != absolute


@pytest.mark.parametrize("heldout", [6, 7])
def test_somebody_must_be_left_to_train_on(heldout: int, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"6 training speakers, of which heldout_speakers={heldout} .* add speakers"):
        write_splits(corpus(6, 2), options(heldout_speakers=heldout), tmp_path, processes=1)
    assert not list(tmp_path.iterdir())


def test_sources_and_test_sets_of_each_kind() -> None:
    libri = recipe(corpus={"kind": "librispeech", "dir": "L", "train": ["t"], "test": ["u", "v"]}).corpus
    assert libri.paths() == [Path("L/t").absolute(), Path("L/u").absolute(), Path("L/v").absolute()]
    assert libri.test_sets == ("u", "v")
    voices = recipe(corpus={"kind": "synthetic"}).corpus
    assert voices.paths() == []
    assert voices.test_sets == ("test", "control")
    other = recipe(corpus={"kind": "synthetic", "voices": {"seed": 2}}).corpus
    assert voices.made_folders(Path("exp")) != other.made_folders(Path("exp"))
    assert recipe().corpus.paths() == [Path("a").absolute(), Path("b").absolute()]
    assert list(recipe().corpus.made_folders(Path("exp"))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"folds": 2, "corpus": {"kind": "synthetic"}},
            "the synthetic corpus has unseen test speakers of its own",
        ),
        (
            {"hours": 1.0, "corpus": {"kind": "synthetic"}},
            "hours: the synthetic corpus is always trained on as a whole; leave it out",
        ),
        ({"speeds": [1.0, 1.0]}, "expected 1.0 among them, and each only once"),
        ({"speeds": [0.9, 1.1]}, "expected 1.0 among them, and each only once"),
        ({"speeds": [1.0, 0.905]}, "expected positive multiples of 0.01"),
        ({"speeds": [1.0, 0.0]}, "speeds.1: Input should be greater than or equal to 0.25"),
        ({"speeds": [1.0, -0.9]}, "speeds.1: Input should be greater than or equal to 0.25"),
        ({"speeds": [1.0, float("inf")]}, "speeds.1: Input should be a finite number"),
        ({"heldout_speakers": 0}, "heldout_speakers: Input should be greater than or equal to 1"),
        ({"max_skipped": 2}, "max_skipped: Input should be less than or equal to 1"),
        ({"workers": 0}, "workers"),
        (
            {"corpus": {"kind": "synthetic", "voices": {"training_speakers": 8}}},
            "heldout_speakers: 8 of 8 training speakers are kept back, so none is left",
        ),
        ({"corpus": {"kind": "kaldi", "train": "a", "test": "b/../a"}}, "train and test are the same, "),
        (
            {"dnn": {"hidden_layers": 2}, "lhuc": {"layers": [0, 2]}},
            "'lhuc' adapts the layer 2, but the network 'si' has 2 hidden layers",
        ),
        ({"lhuc": {"layers": []}}, "lhuc.layers: Tuple should have at least 1 item"),
        ({"lhuc": {"layers": [-1]}}, "lhuc.layers.0: Input should be greater than or equal to 0"),
    ],
)
def test_what_cannot_be_run_is_no_recipe(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**options)


def test_hours_and_folds_are_in_the_folders_name() -> None:
    librispeech = {"kind": "librispeech", "dir": "L"}
    assert recipe(corpus=librispeech, hours=1.5, folds=5).folder == Path("exp/x_1.5h_folds5")
    assert recipe(exp="else/where").folder == Path("else/where").absolute()


def test_folds_in_noise_share_neither_speakers_nor_clips(tmp_path: Path) -> None:
    """Every clip is a tone of its own, far louder than the speech: a copy's loudest frequency names its clip."""
    rate, seconds = 8000, 1.0
    lines = ["path\tclass"]
    for number in range(6):
        tone = np.sin(2 * np.pi * 500 * (number + 1) * np.arange(rate) / rate)
        soundfile.write(tmp_path / f"{number}.flac", 0.5 * tone, rate)
        lines.append(f"{number}.flac\ttone")
    (tmp_path / "noise.tsv").write_text("\n".join(lines))
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.random.default_rng(0).standard_normal(rate), rate)
    whole = [
        Utterance(f"{speaker}-{n}", speaker, "", tmp_path / "speech.wav", 0.0, seconds, "YES")
        for speaker in ("a", "b", "c", "d", "e", "f")
        for n in range(4)
    ]
    noise = {"dir": str(tmp_path), "classes": ["tone"], "snr_decibels": [-30, -30]}
    noisy_options = options(heldout_speakers=1, folds=2, noise=noise)
    files_before = CorpusOptions.of(recipe(noise=noise), fold=None).files.contents()
    heard: dict[str, set[int]] = {"train": set(), "heldout": set(), "test": set()}
    tested = []
    for fold in (1, 2):
        folder = tmp_path / f"fold{fold}" / "corpus"
        write_splits(fold_splits(Splits(whole, {"test": []}), 2, fold, seed=1), noisy_options, folder, processes=1)
        assert (folder / "noisy").is_dir()
        speakers = {}
        for split, clips in heard.items():
            utterances = read_manifest(folder / f"{split}.jsonl")
            assert {u.environment for u in utterances} == {"clean", "tone"}
            speakers[split] = {u.speaker for u in utterances}
            for path in (u.audio for u in utterances if u.environment == "tone"):
                assert folder in path.parents
                samples, _ = soundfile.read(path)
                clips.add(round(int(np.abs(np.fft.rfft(samples)).argmax()) * rate / len(samples) / 500))
        assert len(set().union(*speakers.values())) == sum(map(len, speakers.values())) == 6
        tested += sorted(speakers["test"])
    assert sorted(tested) == list("abcdef")
    assert sum(map(len, heard.values())) == len(set().union(*heard.values())) == 6
    (tmp_path / "noise.tsv").write_text("\n".join(lines[:-1]))
    assert CorpusOptions.of(recipe(noise=noise), fold=None).files.contents() != files_before
