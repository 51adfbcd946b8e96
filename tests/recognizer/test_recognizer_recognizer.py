"""A new speaker on an exported model: the experiment's words and amplitudes, from nothing but the recordings."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from saved_speakers import state

import lhuc_asr
from lhuc_asr.adapt.adaptation_sets import DataConfig, adaptation_sets
from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.audio.resampling import resample
from lhuc_asr.audio.utterance import Utterance, read_manifest, write_manifest
from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.errors import (
    AudioError,
    CheckpointError,
    LhucError,
    ModelMismatchError,
    SpeakerError,
)
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.pipeline.earlier_pass import EarlierPass
from lhuc_asr.pipeline.experiment import read_experiment
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.resolved_pass import Adaptation
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.speaker import CMVN_DEVIATION, CMVN_MEAN, Speaker
from lhuc_asr.recognizer.transcript import Span

Words = dict[str, str]


def words_of(recognizer: Recognizer, *arguments: object) -> Words:
    return {transcript.recording: transcript.text for transcript in recognizer.transcribe(*arguments)}  # type: ignore[arg-type]


def decoded(folder: Path, name: str, said: list[Utterance]) -> Words:
    rows = read_json_lines(folder / "decode" / "test" / name / "hypotheses.jsonl")
    return {row["utterance"]: row["words"] for row in rows if row["utterance"] in {u.id for u in said}}


# As the experiment.


def test_the_words_are_those_of_the_experiments_passes(
    finished: Path, recognizer: Recognizer, alice: Speaker, audio: Path, said: list[Utterance]
) -> None:
    assert words_of(recognizer, audio) == decoded(finished, "si", said)
    assert words_of(recognizer, audio, alice) == decoded(finished, "lhuc", said)


def test_the_amplitudes_are_those_of_the_experiment(finished: Path, alice: Speaker, tmp_path: Path) -> None:
    """There they adapted together with another speaker."""
    expected = SpeakerState.load(finished / "speakers" / "lhuc" / "test" / "2001.safetensors")
    adapted = state(alice, tmp_path)
    assert (adapted.speaker, adapted.model, adapted.sites, adapted.amplitude) == (
        expected.speaker,
        expected.model,
        expected.sites,
        expected.amplitude,
    )
    for site, r in expected.r.items():
        assert r.abs().max() > 0.01
        torch.testing.assert_close(adapted.r[site], r, rtol=0, atol=1e-6)


def test_an_experiments_own_folder_does_as_well(
    finished: Path, alice: Speaker, audio: Path, said: list[Utterance]
) -> None:
    recognizer = lhuc_asr.load(finished)
    assert words_of(recognizer, audio, alice) == decoded(finished, "lhuc", said)
    # Its speakers' files have no statistics: all of a speaker's recordings are normalised together, as they were.
    file = finished / "speakers" / "lhuc" / "test" / "2001.safetensors"
    assert words_of(recognizer, audio, file) == decoded(finished, "lhuc", said)


def test_known_words_are_adapted_to_as_the_oracle_does(
    copied: Path, recognizer: Recognizer, audio: Path, known: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    config, experiment = read_experiment(copied)
    manifest = experiment.folder.manifest("test")
    write_manifest(manifest, [replace(u, text=" ".join(known.get(u.id, u.words))) for u in read_manifest(manifest)])
    plan, targets = passes_of(config)["lhuc"], TargetsConfig(kind="reference", silence_weight=0.01)
    assert isinstance(plan.adaptation, Adaptation)
    model, features = experiment.network("si"), experiment.features("test")
    adaptation = replace(plan.adaptation, targets=targets)
    oracle = EarlierPass(experiment, "test", adaptation.source, plan, adaptation, model)
    every = adaptation_sets(features, {u.id: "" for u in features.utterances}, DataConfig(), config.seed)
    (own,) = (each for each in every if each.name == "2001")
    two_pass = TwoPass(model, features, experiment.topology.silence_pdfs)
    expected = two_pass.adapt(config.lhuc.make(None), oracle, targets, [own], config.seed)
    assert isinstance(expected, Amplitudes)
    adapted = state(recognizer.adapt(audio, "2001", known), tmp_path)
    for site, table in zip(expected.bank.sites, expected.bank.tables, strict=True):
        assert table.detach()[1].abs().max() > 0.01
        torch.testing.assert_close(adapted.r[site.name], table.detach()[1], rtol=0, atol=1e-6)


# What a speaker's file is for.


def test_a_recording_does_not_depend_on_the_others(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path
) -> None:
    alice.save(tmp_path / "alice.safetensors")
    together = {each.recording: each for each in recognizer.transcribe(audio, alice)}
    for path in audio.iterdir():
        (alone,) = recognizer.transcribe(path, tmp_path / "alice.safetensors")
        assert alone == replace(together[path.stem], path=path)


def test_the_file_keeps_the_statistics_of_the_features(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path
) -> None:
    path = tmp_path / "alice.safetensors"
    alice.save(path)
    file, read = SpeakerState.load(path), recognizer.load_speaker(path)
    assert alice.cmvn is not None
    assert read.cmvn is not None
    assert (read.name, read.network) == (alice.name, alice.network) == ("2001", file.model)
    for name, kept, own in (
        (CMVN_MEAN, read.cmvn.mean, alice.cmvn.mean),
        (CMVN_DEVIATION, read.cmvn.deviation, alice.cmvn.deviation),
    ):
        assert file.extras[name].dtype == torch.float64
        np.testing.assert_array_equal(file.extras[name].numpy(), own)
        np.testing.assert_array_equal(kept, own)
    # A speaker that was read is written again as they were.
    read.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert recognizer.transcribe(audio, read) == recognizer.transcribe(audio, alice)


def test_words_have_times_and_confidences(recognizer: Recognizer, alice: Speaker, audio: Path) -> None:
    for transcript in recognizer.transcribe(audio, alice):
        assert transcript.words
        last = 0.0
        for word in transcript.words:
            assert last - 1e-9 <= word.start < word.end <= transcript.seconds
            assert 0.0 <= word.confidence <= 1.0
            last = word.end


def test_a_long_recording_is_cut_and_times_are_its_own(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path
) -> None:
    """Recordings one after the other, a second of silence between: the words of each, at its time."""
    silence, parts, starts, at = np.zeros(16000, np.float32), [], {}, 0.0
    for path in sorted(audio.iterdir()):
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 16000
        starts[path.stem] = at
        parts += [samples, silence]
        at += len(samples) / 16000 + 1.0
    soundfile.write(tmp_path / "long.flac", np.concatenate(parts), 16000)
    (transcript,) = recognizer.transcribe(tmp_path / "long.flac", alice)
    assert transcript.seconds > recognizer.description.whole_seconds
    for each in recognizer.transcribe(audio, alice):
        begin, end = starts[each.recording], starts[each.recording] + each.seconds
        # Silence around the pieces may change a word of a weak model, and where it is placed; most stay.
        inside = [word.word for word in transcript.words if begin - 0.5 <= word.start < end + 0.5]
        assert len(set(inside) & {word.word for word in each.words}) >= len({word.word for word in each.words}) / 2


# Many recordings.


def test_a_bad_recording_is_left_out(recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path) -> None:
    """One that cannot be opened, and one whose samples are not finite, which is found while they are read."""
    first, second, *_ = sorted(audio.iterdir())
    soundfile.write(tmp_path / "nan.wav", np.full(32000, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "cut.wav").write_bytes(b"RIFF")
    sources = [first, tmp_path / "nan.wav", tmp_path / "cut.wav", second]
    for person in (None, alice):
        bad: list[LhucError] = []
        kept = list(recognizer.transcripts(sources, person, on_bad=bad.append))
        assert kept == recognizer.transcribe([first, second], person)
        assert sorted(str(problem).split(":")[0] for problem in bad) == [
            str(tmp_path / n) for n in ("cut.wav", "nan.wav")
        ]
    bad = []
    adapted, expected = recognizer.adapt(sources, "x", on_bad=bad.append), recognizer.adapt([first, second], "x")
    assert len(bad) == 2
    assert adapted.cmvn is not None
    assert expected.cmvn is not None
    np.testing.assert_array_equal(adapted.cmvn.mean, expected.cmvn.mean)
    with pytest.raises(AudioError, match=r"cut\.wav: "):
        recognizer.transcribe(sources)


def test_transcripts_are_given_one_by_one(recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path) -> None:
    """With statistics of the features, the second recording is not looked into before the first is finished."""
    first, second, *_ = sorted(audio.iterdir())
    copies = [tmp_path / "1.flac", tmp_path / "2.flac"]
    for source, copy in zip((first, second), copies, strict=True):
        copy.write_bytes(source.read_bytes())
    bad: list[LhucError] = []
    given = recognizer.transcripts(copies, alice, on_bad=bad.append)
    assert next(given).recording == "1"
    copies[1].unlink()
    assert list(given) == []
    assert "2.flac" in str(bad)


def test_what_is_done_is_not_searched_and_changes_nothing(recognizer: Recognizer, alice: Speaker, audio: Path) -> None:
    """Without a speaker the features of all are normalised together, so those that are done still count."""
    for person in (None, alice):
        whole = recognizer.transcribe(audio, person)
        assert list(recognizer.transcripts(audio, person, done={whole[0].recording})) == whole[1:]
        assert list(recognizer.transcripts(audio, person, done={each.recording for each in whole})) == []


def test_a_channel_can_be_taken(recognizer: Recognizer, audio: Path, tmp_path: Path) -> None:
    """Two in opposite phase cancel; taken one by one each is the recording."""
    path, other, *_ = sorted(audio.iterdir())
    samples, noise = soundfile.read(path)[0], soundfile.read(other)[0]
    soundfile.write(tmp_path / "anti.wav", np.stack([samples, -samples], axis=1), 16000)
    soundfile.write(tmp_path / "two.wav", np.stack([np.resize(noise, len(samples)), samples], axis=1), 16000)
    (alone,) = recognizer.transcribe(path)
    for name, channel in (("anti", None), ("anti", 1), ("anti", 2), ("two", 2)):
        (transcript,) = recognizer.transcribe(tmp_path / f"{name}.wav", channel=channel)
        assert transcript.words == alone.words
        assert transcript.channel == (channel or 1)
    with pytest.raises(AudioError, match=r"two\.wav: channel 3 was asked for, expected 1 to 2"):
        recognizer.transcribe(tmp_path / "two.wav", channel=3)
    by_channel = recognizer.adapt(tmp_path / "two.wav", "x", channel=2).cmvn
    by_itself = recognizer.adapt(path, "x").cmvn
    assert by_channel is not None
    assert by_itself is not None
    np.testing.assert_array_equal(by_channel.mean, by_itself.mean)


def test_seconds_that_are_left_out_are_told(
    recognizer: Recognizer, audio: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples, _ = soundfile.read(min(audio.iterdir()), dtype="float32")
    soundfile.write(tmp_path / "long.wav", np.concatenate([samples, np.zeros(20 * 16000, np.float32), samples]), 16000)
    (transcript,) = recognizer.transcribe(tmp_path / "long.wav")
    (silence,) = transcript.left_out
    assert silence.start == pytest.approx(len(samples) / 16000, abs=4.0)
    assert 10.0 < silence.end - silence.start <= 20.5
    assert "long.wav: left out as silence or steady noise: " in caplog.text
    soundfile.write(tmp_path / "long.wav", np.zeros(16000), 16000)
    (transcript,) = recognizer.transcribe(tmp_path / "long.wav")
    assert transcript.left_out == (Span(0.0, 1.0),)


# Nothing but the folder and the recordings.


def test_no_network_and_no_file_outside_the_output(
    exported: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "__init__", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for place in (exported, audio) for path in place.rglob("*")}
    recognizer = load(exported)
    recognizer.adapt(audio).save("out.safetensors")
    assert recognizer.transcribe(audio, "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert {path: path.stat().st_mtime_ns for place in (exported, audio) for path in place.rglob("*")} == before


# What is wrong with what is given.


def test_silence_has_no_words_and_nobody_to_adapt_to(
    recognizer: Recognizer, alice: Speaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros((16000 * 30, 2)), 16000)
    for speaker in (None, alice):
        (transcript,) = recognizer.transcribe(tmp_path / "silence.wav", speaker)
        assert (transcript.text, transcript.seconds) == ("", 30.0)
    assert "silence.wav: no speech found, only silence or steady noise; --channel takes one of its 2" in caplog.text
    with pytest.raises(AudioError, match="speaker 'bob': no speech found in the recordings"):
        recognizer.adapt(tmp_path, "bob")


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (48000, 2)])
def test_other_rates_and_channels_are_brought_to_the_models(
    recognizer: Recognizer, audio: Path, tmp_path: Path, rate: int, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    samples, _ = soundfile.read(next(iter(sorted(audio.iterdir()))), dtype="float32")
    other = resample(samples, 16000, rate)
    soundfile.write(tmp_path / "other.wav", np.stack([other] * channels, axis=1), rate)
    (transcript,) = recognizer.transcribe(tmp_path / "other.wav")
    assert transcript.words
    assert ("other.wav: 8000 Hz, but the model was trained at 16000 Hz" in caplog.text) == (rate == 8000)


def test_a_speaker_of_another_model_is_refused(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path
) -> None:
    """From the file, and as adapted to with another recognizer."""
    replace(state(alice, tmp_path), model="0" * 64).save(tmp_path / "alice.safetensors")
    with pytest.raises(ModelMismatchError, match="speaker '2001' was adapted on the model 000000000000"):
        recognizer.transcribe(audio, tmp_path / "alice.safetensors")
    with pytest.raises(ModelMismatchError, match="speaker '2001' was adapted on the model 000000000000"):
        recognizer.transcribe(audio, replace(alice, network="0" * 64))


def test_a_speaker_of_the_same_model_loaded_again_is_taken(exported: Path, alice: Speaker, audio: Path) -> None:
    again = load(exported)
    assert again.transcribe(audio, alice) == again.transcribe(audio, again.adapt(audio, "2001"))


def test_the_speaker_independent_row_is_a_speaker_without_a_name(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path
) -> None:
    """As an experiment with adaptive training leaves it, beside the speakers'."""
    replace(state(alice, tmp_path), speaker="").save(tmp_path / "speaker-independent.safetensors")
    row0 = recognizer.load_speaker(tmp_path / "speaker-independent.safetensors")
    assert row0.name == ""
    nobodys = [replace(transcript, speaker="") for transcript in recognizer.transcribe(audio, alice)]
    assert recognizer.transcribe(audio, row0) == nobodys


def test_a_folder_is_not_a_speaker(recognizer: Recognizer, finished: Path) -> None:
    with pytest.raises(CheckpointError, match=r"speakers/lhuc/test: a folder; name the file of one speaker"):
        recognizer.load_speaker(finished / "speakers" / "lhuc" / "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amplitude": "tanh"}, "not a speaker of this network .*no amplitude is called 'tanh'"),
        ({"extras": {CMVN_MEAN: torch.zeros(40)}}, "mean and deviation of the features are damaged"),
        ({"extras": {CMVN_MEAN: torch.zeros(40), CMVN_DEVIATION: torch.zeros(40)}}, "deviation of the features are"),
        ({"extras": {CMVN_MEAN: torch.zeros(3), CMVN_DEVIATION: torch.ones(3)}}, "deviation of the features are"),
        ({"extras": {CMVN_MEAN: torch.full((40,), torch.nan), CMVN_DEVIATION: torch.ones(40)}}, "are damaged"),
    ],
)
def test_a_speaker_that_does_not_fit_is_refused(
    recognizer: Recognizer, alice: Speaker, audio: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    replace(state(alice, tmp_path), **change).save(tmp_path / "alice.safetensors")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=message):
        recognizer.transcribe(audio, tmp_path / "alice.safetensors")


def test_a_name_that_leads_elsewhere_is_refused(recognizer: Recognizer, audio: Path) -> None:
    with pytest.raises(SpeakerError, match=r"speaker name '\.\./\.\./x'"):
        recognizer.adapt(audio, "../../x")
