"""An enrolment: what it hears is what a listener and ``adapt`` would get, and it keeps no more than it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, OutputError, SpeakerError
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.recordings import recordings
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus
from lhuc_asr.web import enrolment as module
from lhuc_asr.web.enrolment import Enrolment, Progress, learn, result
from lhuc_asr.web.kept import keep

RATE, BLOCK = 16_000, 1600


def integers(samples: np.ndarray) -> np.ndarray:
    return (samples * 32767).astype(np.int16)


def spoken(enrolment: Enrolment, samples: np.ndarray) -> list[Progress]:
    whole = integers(samples)
    return [enrolment.hear(whole[first : first + BLOCK]) for first in range(0, len(whole), BLOCK)]


def lines(parts: list[Progress], side: str) -> list[list[str]]:
    heard = [getattr(part, side) for part in parts]
    return [[word.word for word in line] for each in heard if each is not None for line in each.lines]


def test_without_parameters_the_words_are_a_listeners(recognizer: Recognizer, voices: list[np.ndarray]) -> None:
    samples = np.concatenate(voices)
    live = recognizer.listen(None)
    listened = [live.hear(integers(samples)), live.end()]
    enrolment = Enrolment(recognizer, "alice", RATE, reads=False)
    parts = [*spoken(enrolment, samples), enrolment.end_take()]
    expected = [[word.word for word in line] for heard in listened for line in heard.lines]
    assert expected
    assert lines(parts, "without") == expected
    assert all(part.adapted is None for part in parts)
    times = [line for heard in listened for line in heard.lines]
    assert parts[-1].seconds == pytest.approx(sum(line[-1].end - line[0].start for line in times))


def test_a_microphone_at_another_rate_is_heard_alike(recognizer: Recognizer, voices: list[np.ndarray]) -> None:
    from scipy.signal import resample_poly

    samples = np.concatenate(voices)
    enrolments = Enrolment(recognizer, "a", RATE, reads=False), Enrolment(recognizer, "a", 48_000, reads=False)
    for enrolment, sound in zip(enrolments, (samples, resample_poly(samples, 3, 1)), strict=True):
        spoken(enrolment, sound)
        enrolment.end_take()
    takes = [enrolment.takes()[0].samples.astype(float) for enrolment in enrolments]
    length = min(map(len, takes))
    assert abs(len(takes[0]) - len(takes[1])) <= RATE // 50
    offsets = [
        np.corrcoef(takes[0][200 + shift : length - 200 + shift], takes[1][200 : length - 200])[0, 1]
        for shift in range(-20, 21)
    ]
    assert max(offsets) > 0.99


def test_parameters_are_those_that_adapt_estimates_on_the_same_recordings(
    recognizer: Recognizer, voices: list[np.ndarray], tmp_path: Path
) -> None:
    enrolment = Enrolment(recognizer, "alice", RATE, reads=False)
    for samples in voices:
        spoken(enrolment, samples)
        enrolment.end_take()
    takes = enrolment.takes()
    assert [take.name for take in takes] == ["alice-01", "alice-02", "alice-03"]
    for take in takes:
        soundfile.write(tmp_path / f"{take.name}.wav", take.samples, RATE, "PCM_16")
    ended = result(recognizer, "alice", takes, RATE)
    with recordings([tmp_path]) as named:
        (expected,) = recognizer.adapt_corpus(SpeakerCorpus({"alice": named}, {}), judged=True)
        texts = [[word.word for word in each.words] for each in recognizer.transcripts(named, expected.speaker)]
    assert ended.adaptation.verdict == expected.verdict
    assert ended.adaptation.verdict is not None
    for site, value in expected.speaker.adapted.bank.state("alice").r.items():
        assert torch.equal(ended.adaptation.speaker.adapted.bank.state("alice").r[site], value)
    assert [list(row.adapted) for row in ended.rows] == texts
    only = learn(recognizer, "alice", takes, RATE)
    assert only.name == "alice"


def test_a_sentence_that_is_read_is_learned_with_its_words_and_without_the_waiting(
    recognizer: Recognizer, voices: list[np.ndarray], said: list[Utterance]
) -> None:
    enrolment = Enrolment(recognizer, "alice", RATE, reads=True)
    waiting = np.random.default_rng(1).normal(0.0, 5e-3, 3 * RATE).astype(np.float32)
    known = [word for word in said[0].words if word in recognizer.vocabulary]
    spoken(enrolment, np.concatenate([waiting, voices[0], waiting]))
    assert enrolment.takes() == []
    enrolment.end_take(known)
    spoken(enrolment, voices[1])  # is not ended
    (take,) = enrolment.takes()
    assert list(take.words or ()) == known
    assert said[0].seconds - 0.3 < len(take.samples) / RATE < said[0].seconds + 0.6
    ended = result(recognizer, "alice", [take], RATE)
    assert ended.adaptation.words == len(known)
    assert ended.rows[0].read == tuple(known)


def test_silence_is_no_recording_and_gives_its_room_back(recognizer: Recognizer, voices: list[np.ndarray]) -> None:
    enrolment = Enrolment(recognizer, "alice", RATE, reads=True)
    room = enrolment.left_seconds
    spoken(enrolment, np.zeros(4 * RATE, dtype=np.float32))
    with pytest.raises(AudioError, match="nothing was heard; say it again"):
        enrolment.end_take(["GO"])
    assert enrolment.left_seconds == room
    assert enrolment.takes() == []
    spoken(enrolment, voices[0])
    enrolment.end_take(["GO"])
    assert len(enrolment.takes()) == 1


def test_with_parameters_both_sides_go_on_and_nothing_that_was_said_is_lost(
    recognizer: Recognizer, voices: list[np.ndarray]
) -> None:
    enrolment = Enrolment(recognizer, "alice", RATE, reads=False)
    whole = np.concatenate(voices)
    before = spoken(enrolment, whole)
    person = learn(recognizer, "alice", enrolment.takes(), RATE)
    half = np.concatenate([voices[0], voices[1][: len(voices[1]) // 2]])
    middle = spoken(enrolment, half)
    enrolment.become(person)
    rest = [*spoken(enrolment, voices[1][len(voices[1]) // 2 :]), enrolment.end_take()]
    assert lines(before + middle, "adapted") == []
    live = recognizer.listen(person)
    expected = [[word.word for word in line] for line in (*live.hear(voices[1]).lines, *live.end().lines)]
    assert expected
    # The second sentence had begun when the parameters came, and is heard with them from its beginning.
    assert lines(rest, "adapted")[-len(expected) :] == expected
    last = rest[-1].adapted or rest[-2].adapted
    assert last is not None
    ends = [line[-1].end for part in rest if part.adapted is not None for line in part.adapted.lines]
    assert len(whole) / RATE < ends[-1] <= (len(whole) + len(half) + len(voices[1])) / RATE


def test_it_is_due_to_learn_after_eight_seconds_and_then_after_twice_as_much(
    recognizer: Recognizer, voices: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_SECONDS", 2.0)
    enrolment, due = Enrolment(recognizer, "alice", RATE, reads=False), []
    for samples in voices * 4:
        seconds = spoken(enrolment, samples)[-1].seconds
        if enrolment.is_due():
            due.append(seconds)
            assert not enrolment.is_due()
    assert len(due) >= 3
    assert all(later >= 2 * 2.0 * 2**number for number, later in enumerate(due[1:]))


def test_no_more_sound_is_kept_than_is_said(
    recognizer: Recognizer, voices: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 5.0)
    enrolment = Enrolment(recognizer, "alice", RATE, reads=False)
    parts = spoken(enrolment, np.concatenate(voices))
    assert parts[-1].full
    assert not parts[0].full
    assert enrolment.left_seconds == 0
    assert len(enrolment._recorded) == 2 * 5 * RATE
    assert len(lines(parts, "without")) >= 2, "what is said after that is written down"
    assert len(enrolment.takes()[0].samples) <= 5 * RATE
    assert len(enrolment._tail) <= module.TAIL_SECONDS * RATE


def test_a_sentence_that_is_cut_by_the_limit_is_not_learned(
    recognizer: Recognizer, voices: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 6.0)
    enrolment = Enrolment(recognizer, "alice", RATE, reads=True)
    spoken(enrolment, voices[0])
    seconds = enrolment.end_take(["GO"]).seconds
    for samples in voices[1:]:
        spoken(enrolment, samples)
        with pytest.raises(AudioError, match="of sound are kept, and no more"):
            enrolment.end_take(["GO"])
        spoken(enrolment, np.concatenate(voices))
    assert len(enrolment.takes()) == 1
    with pytest.raises(AudioError, match="and no more"):
        enrolment.end_take(["GO"])
    assert enrolment._seconds == seconds


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a\nb"])
def test_a_name_that_cannot_be_a_files_is_refused(recognizer: Recognizer, name: str) -> None:
    with pytest.raises(SpeakerError):
        Enrolment(recognizer, name, RATE, reads=False)


def test_what_is_kept_is_read_by_adapt_and_is_deleted_with_nothing_else(
    recognizer: Recognizer, voices: list[np.ndarray], tmp_path: Path
) -> None:
    enrolment = Enrolment(recognizer, "alice", RATE, reads=True)
    spoken(enrolment, voices[0])
    enrolment.end_take(["GO", "ON"])
    takes = enrolment.takes()
    person = learn(recognizer, "alice", [module.Take("x", takes[0].samples, None)], RATE)
    folder = tmp_path / "speakers"
    kept = keep(recognizer, person, takes, RATE, folder, replace=False)
    assert recognizer.load_speaker(kept.file.path).name == "alice"
    assert (folder / "alice" / "alice-01.txt").read_text() == "GO ON\n"
    samples, rate = soundfile.read(folder / "alice" / "alice-01.wav", dtype="int16")
    assert rate == RATE
    assert np.array_equal(samples, takes[0].samples)
    first = kept.file.path.read_bytes()
    for too in ([], takes):
        with pytest.raises(OutputError, match="is there already; replace it"):
            keep(recognizer, person, too, RATE, folder, replace=False)
    with pytest.raises(OutputError, match="recordings are not mixed"):
        keep(recognizer, person, takes, RATE, folder, replace=True)
    assert keep(recognizer, person, takes, RATE, folder, replace=False, before=kept) == kept
    assert kept.file.path.read_bytes() == first
    other = folder / "bob.safetensors"
    other.write_bytes(first)
    kept.delete()
    kept.delete()
    assert list(folder.iterdir()) == [other]


def test_what_another_enrolment_has_put_in_its_place_stays(
    recognizer: Recognizer, voices: list[np.ndarray], tmp_path: Path
) -> None:
    enrolment = Enrolment(recognizer, "alice", RATE, reads=False)
    spoken(enrolment, voices[0])
    enrolment.end_take()
    takes = enrolment.takes()
    person = learn(recognizer, "alice", takes, RATE)
    first = keep(recognizer, person, [], RATE, tmp_path, replace=False)
    second = keep(recognizer, person, takes, RATE, tmp_path, replace=True)
    first.delete()
    assert recognizer.load_speaker(second.file.path).name == "alice"
    assert second.recordings is not None
    second.delete()
    assert list(tmp_path.iterdir()) == []
