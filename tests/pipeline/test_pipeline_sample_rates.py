"""Recordings of other sample rates are named, and what features cannot have is refused before they are made."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import dump_config, load_config, parse_config
from lhuc_asr.base.errors import ConfigError, CorpusError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import at_corpus_rate
from lhuc_asr.pipeline.sample_rates import SampleRates


def rates(**counts: int) -> SampleRates:
    """``rates(k8=1, k16=9)``: recordings at 8 and at 16 kHz."""
    by_rate = {int(float(name[1:].replace("_", ".")) * 1000): count for name, count in counts.items()}
    names = {rate: tuple(f"{rate}-{n}.wav" for n in range(count)) for rate, count in by_rate.items()}
    return SampleRates(by_rate, names)


def recipe(folder: Path, **options: object) -> ExperimentConfig:
    tree = {"name": "x", "exp": str(folder), "corpus": {"kind": "kaldi", "train": "a", "test": "b"}, **options}
    return parse_config(ExperimentConfig, tree, "test")


def resolved(folder: Path, recorded: SampleRates | int, **options: object) -> tuple[int, int]:
    """The rates of the features and of the alignment features."""
    place = ExperimentFolder(folder).sample_rate
    if isinstance(recorded, int):
        write_json(place, recorded)
    else:
        recorded.write(place)
        assert SampleRates.read(place) == recorded
    config = at_corpus_rate(recipe(folder, **options))
    features = (config.features.resolved, config.alignment_features.resolved)
    assert all(isinstance(each, FeatureConfig) for each in features)
    return features[0].sample_rate, features[1].sample_rate


EIGHT, SIXTEEN = {"features": {"sample_rate": 8000}}, {"features": {"sample_rate": 16000}}


@pytest.mark.parametrize(
    ("recorded", "options", "expected"),
    [
        (rates(k16=9), {}, (16000, 16000)),
        (rates(k44_1=9), {}, (16000, 16000)),
        (rates(k8=9), {}, (8000, 8000)),
        (rates(k8=1, k16=9), {}, (8000, 8000)),
        (rates(k12=1, k16=9), {}, (12000, 12000)),
        (rates(k8=1, k16=9), SIXTEEN, (16000, 16000)),
        (rates(k4=1, k16=9), SIXTEEN, (16000, 16000)),
        (rates(k4=1, k16=9), EIGHT, (8000, 8000)),
        (rates(k16=9), EIGHT, (8000, 16000)),
        (rates(k44_1=9), {"features": {"sample_rate": 44100}}, (44100, 16000)),
        (rates(k16=9), {"alignment_features": {"sample_rate": 8000}}, (16000, 8000)),
        # Written by earlier versions, with the defaults of that time in ``config.yaml``.
        (8000, {}, (8000, 8000)),
        (8000, SIXTEEN | {"alignment_features": {"sample_rate": 16000}}, (8000, 8000)),
        (16000, EIGHT, (8000, 16000)),
        (44100, SIXTEEN, (16000, 16000)),
    ],
)
def test_a_named_rate_is_kept_and_else_the_lowest_is_taken(
    recorded: SampleRates | int, options: dict[str, object], expected: tuple[int, int], tmp_path: Path
) -> None:
    assert resolved(tmp_path, recorded, **options) == expected


def test_what_the_recipe_named_is_still_known_from_the_written_recipe(tmp_path: Path) -> None:
    rates(k8=1, k16=9).write(ExperimentFolder(tmp_path).sample_rate)
    for options, rate in (({}, 8000), (SIXTEEN, 16000)):
        (tmp_path / "config.yaml").write_text(dump_config(recipe(tmp_path, **options)), encoding="utf-8")
        config = at_corpus_rate(load_config(ExperimentConfig, tmp_path / "config.yaml"))
        assert config.features.sample_rate == rate


def test_a_rate_that_features_cannot_have_is_refused_with_the_recordings(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        resolved(tmp_path, rates(k4=1, k6=7, k16=9))
    assert str(caught.value) == (
        "8 of 17 recordings have less than 8000 Hz: 4000-0.wav (4000 Hz), 6000-0.wav (6000 Hz), 6000-1.wav (6000 Hz), "
        "6000-2.wav (6000 Hz), 6000-3.wav (6000 Hz) and 3 more; features have 8000 Hz or more: take these recordings "
        "out, or name a rate, features.sample_rate=16000, to use them with an empty upper band"
    )


def test_bins_that_are_too_many_for_the_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="features: 100 mel bins at 8000 Hz"):
        resolved(tmp_path, rates(k8=1, k16=9), features={"bins": 100})


@pytest.mark.parametrize(
    ("recorded", "rate", "level", "message"),
    [
        (
            rates(k8=1, k16=9),
            8000,
            "WARNING",
            "1 of 10 recordings have less than 16000 Hz: 8000-0.wav (8000 Hz); the features of all are at 8000 Hz: "
            "take these recordings out, or name another rate, features.sample_rate=16000",
        ),
        (
            rates(k4=2, k16=9),
            16000,
            "WARNING",
            "2 of 11 recordings have less than 16000 Hz: 4000-0.wav (4000 Hz), 4000-1.wav (4000 Hz); the features are "
            "at 16000 Hz: their upper band is empty",
        ),
        (rates(k8=9), 8000, "INFO", "recordings at 8000 Hz: features at that rate"),
        (rates(k16=8, k44_1=1), 16000, None, ""),
        (rates(k16=9), 8000, None, ""),
        (SampleRates({8000: 0}, {8000: ()}), 8000, "INFO", "recordings at 8000 Hz: features at that rate"),
    ],
)
def test_recordings_that_differ_are_named_in_a_warning(
    recorded: SampleRates, rate: int, level: str | None, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lhuc_asr"):
        recorded.log_for(rate)
    logged = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert logged == ([(level, message)] if level else [])


def test_recordings_are_counted_once_each_by_rate(tmp_path: Path) -> None:
    utterances = []
    for name, rate in (("a", 8000), ("b", 16000), ("b", 16000), ("c", 16000)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.zeros(rate), rate)
        utterances.append(Utterance(f"u{len(utterances)}", "s", "", path, 0.0, 1.0, ""))
    counted = SampleRates.of(utterances)
    assert counted.counts == {8000: 1, 16000: 2}
    assert counted.names[8000] == (str(tmp_path / "a.wav"),)
    with pytest.raises(CorpusError, match="no utterances, so the sample rate is unknown"):
        SampleRates.of([])


@pytest.mark.parametrize(
    "content", ["{}", "[8000]", '{"x": {}}', '{"8000": 1}', '{"8000": {"recordings": 0}}', "{", '"a"', "true", "-1"]
)
def test_a_damaged_file_of_rates_is_a_mistake_of_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "rates.json").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"rates\.json: not sample rates of recordings .*delete it and run again"):
        SampleRates.read(tmp_path / "rates.json")
