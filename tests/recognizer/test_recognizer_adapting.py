"""Adaptation to many speakers at a time, and what is told of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.errors import AudioError, CorpusError, LhucError, SpeakerError
from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer import adapting
from lhuc_asr.recognizer.adapting import Adaptation
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker_corpus import corpus_of


@pytest.fixture(scope="module")
def spoken(finished: Path) -> list[Utterance]:
    """The utterances of all test speakers."""
    return [u for split in ("test", "control") for u in read_manifest(finished / "corpus" / f"{split}.jsonl")]


@pytest.fixture(scope="module")
def people(spoken: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their recordings, a folder for each speaker."""
    folder = tmp_path_factory.mktemp("people")
    for utterance in spoken:
        (folder / utterance.speaker).mkdir(exist_ok=True)
        shutil.copy(utterance.audio, folder / utterance.speaker)
    return folder


@pytest.fixture(scope="module")
def together(recognizer: Recognizer, people: Path) -> dict[str, Adaptation]:
    return {each.speaker.name: each for each in recognizer.adapt_corpus(people)}


def state(adaptation: Adaptation, folder: Path) -> SpeakerState:
    adaptation.speaker.save(folder / "x.safetensors")
    return SpeakerState.load(folder / "x.safetensors")


@pytest.mark.parametrize("seconds", [0.0, adapting.SECONDS_TOGETHER])
def test_the_speakers_of_a_corpus_are_those_of_the_experiment(
    seconds: float,
    finished: Path,
    recognizer: Recognizer,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One after the other and all at once."""
    monkeypatch.setattr(adapting, "SECONDS_TOGETHER", seconds)
    adapted = {each.speaker.name: each for each in recognizer.adapt_corpus(people)}
    folders = [finished / "speakers" / "lhuc" / split for split in ("test", "control")]
    files = {path.stem: path for folder in folders for path in folder.glob("[0-9]*.safetensors")}
    assert adapted.keys() == files.keys()
    for name, adaptation in adapted.items():
        expected = SpeakerState.load(files[name])
        for site, r in state(adaptation, tmp_path).r.items():
            torch.testing.assert_close(r, expected.r[site], rtol=0, atol=1e-6)
            assert r.abs().max() > 0.01


def test_processes_that_search_change_nothing(
    recognizer: Recognizer, people: Path, together: dict[str, Adaptation], tmp_path: Path
) -> None:
    for adaptation in recognizer.adapt_corpus(people, processes=2):
        other = together[adaptation.speaker.name]
        assert (adaptation.words, adaptation.seconds, adaptation.moved) == (other.words, other.seconds, other.moved)


def test_a_summary_counts_what_was_adapted_to(
    finished: Path, spoken: list[Utterance], together: dict[str, Adaptation], tmp_path: Path
) -> None:
    for name, summary in together.items():
        said = [u for u in spoken if u.speaker == name]
        assert summary.recordings == len(said)
        assert summary.seconds == pytest.approx(sum(u.seconds for u in said))
        saved = state(summary, tmp_path)
        xi = amplitude(saved.amplitude)
        # Row 0 of a network that was not trained adaptively is neutral: its amplitudes are 1.
        changes = torch.cat([xi(saved.r[site.name]) - 1.0 for site in saved.sites]).double()
        assert summary.moved == pytest.approx(float(changes.square().mean().sqrt()), rel=1e-5)
        assert summary.moved > 0.001


def test_the_words_of_a_summary_are_those_of_the_first_pass(
    finished: Path, spoken: list[Utterance], together: dict[str, Adaptation]
) -> None:
    from lhuc_asr.base.atomic import read_json_lines

    words: dict[str, int] = {}
    speaker_of = {u.id: u.speaker for u in spoken}
    for split in ("test", "control"):
        for row in read_json_lines(finished / "decode" / split / "si" / "hypotheses.jsonl"):
            name = speaker_of[row["utterance"]]
            words[name] = words.get(name, 0) + len(row["words"].split())
    assert {name: (each.words, each.believed) for name, each in together.items()} == {
        name: (count, count) for name, count in words.items()
    }


def test_turns_of_one_recording_adapt_as_recordings_of_their_own(
    recognizer: Recognizer, spoken: list[Utterance], together: dict[str, Adaptation], tmp_path: Path
) -> None:
    """The test recordings joined to one, with the turns that they have there."""
    samples, moved, start = [], [], 0.0
    for utterance in spoken:
        sound, rate = soundfile.read(utterance.audio, dtype="int16")
        samples.append(sound)
        moved.append(Utterance(utterance.id, utterance.speaker, "", tmp_path / "all.wav", start, len(sound) / rate, ""))
        start += len(sound) / rate
    soundfile.write(tmp_path / "all.wav", np.concatenate(samples), rate)
    for adaptation in recognizer.adapt_corpus(corpus_of(moved)):
        other = together[adaptation.speaker.name]
        assert (adaptation.recordings, adaptation.words) == (other.recordings, other.words)
        assert adaptation.seconds == pytest.approx(other.seconds)
        assert adaptation.moved == pytest.approx(other.moved, rel=1e-4)


def test_a_speaker_of_whom_nothing_can_be_used_is_left_out(
    recognizer: Recognizer, people: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(people, tmp_path / "people"))
    for name, content in (("mute", np.zeros(16000)), ("broken", None)):
        (folder / name).mkdir()
        if content is None:
            (folder / name / "no.wav").write_bytes(b"RIFF")
        else:
            soundfile.write(folder / name / "still.wav", content, 16000)
    bad: list[LhucError] = []
    lost: list[LhucError] = []
    adapted = recognizer.adapt_corpus(folder, on_bad=bad.append, on_bad_speaker=lost.append)
    assert "mute" not in {each.speaker.name for each in adapted}
    assert "no.wav" in str(bad[0])
    assert [str(problem) for problem in lost] == [
        "speaker 'mute': no speech found in the recordings; there is nothing to adapt to"
    ]
    with pytest.raises(AudioError, match=r"no\.wav"):
        list(recognizer.adapt_corpus(folder))


def test_a_speaker_without_words_is_left_out(recognizer: Recognizer, people: Path, tmp_path: Path) -> None:
    """Too little was said for a word, or the transcript does not fit: a file would hold next to nothing."""
    folder = Path(shutil.copytree(people, tmp_path / "people"))
    samples, rate = soundfile.read(min((folder / "2001").iterdir()))
    (folder / "short").mkdir()
    soundfile.write(folder / "short" / "moment.wav", samples[len(samples) // 2 :][: rate // 20], rate)
    lost: list[LhucError] = []
    adapted = {each.speaker.name for each in recognizer.adapt_corpus(folder, on_bad_speaker=lost.append)}
    assert adapted == {path.name for path in people.iterdir()}
    problem = "speaker 'short': no word found in the recordings; there is nothing to adapt to"
    assert list(map(str, lost)) == [problem]
    with pytest.raises(AudioError, match=problem):
        recognizer.adapt(folder / "short", "short")
    texts = {"moment": 30 * ("THE",), **{path.stem: ("THE",) for path in (folder / "2001").iterdir()}}
    for path in people.iterdir():
        if path.name != "2001":
            shutil.rmtree(folder / path.name)
    lost.clear()
    adapted = {
        each.speaker.name
        for each in recognizer.adapt_corpus(folder, texts, on_bad=[].append, on_bad_speaker=lost.append)
    }
    assert adapted == {"2001"}
    assert [str(each).partition(";")[0] for each in lost] == ["speaker 'short': no recording fits its transcript"]


def test_who_speaks_must_be_known(recognizer: Recognizer, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is in no speaker's folder; make a folder for each speaker"):
        list(recognizer.adapt_corpus(audio))
    shutil.copytree(audio, tmp_path / "people" / "a:b")
    with pytest.raises(SpeakerError, match="speaker name"):
        list(recognizer.adapt_corpus(tmp_path / "people"))


def test_known_words_of_all_speakers_are_given_at_once(
    finished: Path, recognizer: Recognizer, people: Path, spoken: list[Utterance]
) -> None:
    vocabulary = recognizer.vocabulary
    words = {u.audio.stem: tuple(word for word in u.words if word in vocabulary) for u in spoken}
    words = {name: each for name, each in words.items() if each}
    bad: list[LhucError] = []
    adapted = list(recognizer.adapt_corpus(people, words, on_bad=bad.append, on_bad_speaker=bad.append))
    assert sum(each.words for each in adapted) == sum(map(len, words.values()))
    assert len(adapted) > 1
