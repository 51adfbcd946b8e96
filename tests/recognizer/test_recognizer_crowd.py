"""Recordings of many persons at once: each as if it were transcribed alone, and one that fails costs no other."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.base.errors import AudioError, CheckpointError, LhucError, ModelMismatchError, SpeakerError
from lhuc_asr.lhuc.archive import SpeakerArchive, write_archive
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.nnet.scoring import score_mixed, score_scaled
from lhuc_asr.recognizer.crowd import Request
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker_files import pack
from lhuc_asr.recognizer.transcript import Transcript


@pytest.fixture(scope="module")
def requests(heard: dict[str, list[Path]]) -> list[Request]:
    """All recordings, the speakers in turn."""
    turns = zip(*(paths[:2] for paths in heard.values()), strict=True)
    named = [(name, path) for turn in turns for name, path in zip(heard, turn, strict=True)]
    return [Request(path.stem, name, path.read_bytes()) for name, path in named]


def alone(recognizer: Recognizer, people: Path, request: Request, tmp_path: Path) -> Transcript:
    path = tmp_path / f"{request.name}.wav"
    path.write_bytes(request.audio)
    person = None if request.speaker is None else people / f"{request.speaker}.safetensors"
    (transcript,) = recognizer.transcribe(path, person)
    return transcript


def told(answer: Transcript | LhucError) -> tuple[object, ...]:
    assert isinstance(answer, Transcript)
    return answer.recording, answer.speaker, list(answer.words)


@pytest.mark.parametrize("held", [0, 2, 256])
def test_each_is_transcribed_as_if_alone(
    held: int, recognizer: Recognizer, people: Path, archive: Path, requests: list[Request], tmp_path: Path
) -> None:
    crowd = recognizer.crowd(archive, held)
    stranger = Request("stranger", None, requests[0].audio)
    mixed = [*requests[:3], stranger, *requests[3:]]
    for _ in range(2):  # some from memory
        answers = crowd.transcripts(mixed)
        for request, answer in zip(mixed, answers, strict=True):
            expected = alone(recognizer, people, request, tmp_path)
            assert (told(answer)[0], told(answer)[2]) == (told(expected)[0], told(expected)[2])
    assert [answer.speaker for answer in answers] == [request.speaker or "unknown" for request in mixed]
    assert crowd.transcripts([]) == []


def test_what_cannot_be_used_costs_no_other(recognizer: Recognizer, archive: Path, requests: list[Request]) -> None:
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(16_000), 16_000, format="WAV")
    bad = [
        Request("text", requests[0].speaker, b"no audio"),
        Request("nobody", "nobody", requests[0].audio),
        Request("silent", requests[1].speaker, silence.getvalue()),
        Request("empty", None, b""),
    ]
    crowd = recognizer.crowd(archive)
    plain = crowd.transcripts(requests[:2])
    answers = crowd.transcripts([bad[0], requests[0], *bad[1:3], requests[1], bad[3]])
    assert [told(answers[n]) for n in (1, 4)] == [told(each) for each in plain]
    text, nobody, silent, empty = (answers[n] for n in (0, 2, 3, 5))
    assert isinstance(text, AudioError)
    assert isinstance(empty, AudioError)
    assert isinstance(nobody, SpeakerError)
    assert "speaker 'nobody' is not among the 4 of the archive" in str(nobody)
    assert told(silent)[2] == []


def test_long_recordings_are_refused(recognizer: Recognizer, archive: Path, requests: list[Request]) -> None:
    (answer,) = recognizer.crowd(archive).transcripts(requests[:1], longest_seconds=0.1)
    assert isinstance(answer, AudioError)
    assert "more than 0.1 s are refused, cut it" in str(answer)


def test_without_an_archive_there_are_strangers_alone(recognizer: Recognizer, requests: list[Request]) -> None:
    crowd = recognizer.crowd()
    stranger = Request("stranger", None, requests[0].audio)
    answers = crowd.transcripts([stranger, requests[0]])
    assert isinstance(answers[0], Transcript)
    assert "no archive of speakers was given" in str(answers[1])


def test_archives_that_do_not_fit_are_refused(
    recognizer: Recognizer, people: Path, archive: Path, requests: list[Request], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="no such archive"):
        recognizer.crowd(tmp_path / "missing")
    states = list(SpeakerArchive(archive).states())
    write_archive(tmp_path / "other", [SpeakerState(s.speaker, s.amplitude, "other", s.sites, s.r) for s in states])
    with pytest.raises(ModelMismatchError):
        recognizer.crowd(tmp_path / "other")
    write_archive(tmp_path / "plain", [SpeakerState(s.speaker, s.amplitude, s.model, s.sites, s.r) for s in states])
    (answer,) = recognizer.crowd(tmp_path / "plain").transcripts(requests[:1])
    assert isinstance(answer, SpeakerError)
    assert "has no statistics of the features" in str(answer)


def test_archives_are_packed_of_files_folders_and_archives(people: Path, archive: Path, tmp_path: Path) -> None:
    files = sorted(people.iterdir())
    assert pack(tmp_path / "some", files[:2]) == 2
    assert pack(tmp_path / "all", [tmp_path / "some", *files[2:]]) == 4
    for name in SpeakerArchive(archive):
        ours, theirs = (SpeakerArchive(path).state(name) for path in (tmp_path / "all", archive))
        assert all(torch.equal(ours.extras[key], value) for key, value in theirs.extras.items())
        assert len(ours.extras) == 2
    with pytest.raises(SpeakerError, match="occurs twice"):
        pack(tmp_path / "twice", [people, files[0]])
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        pack(tmp_path / "bad", [tmp_path / "no.safetensors"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "no.safetensors", "some"]


def test_mixed_frames_have_the_scores_of_each(recognizer: Recognizer, archive: Path) -> None:
    model, sites = recognizer._model.network, SpeakerArchive(archive).sites
    network = model.scaled([site.name for site in sites])
    generator = torch.Generator().manual_seed(1)
    features = [
        np.random.default_rng(n).normal(size=(frames, 40)).astype(np.float32) for n, frames in enumerate((30, 1, 7))
    ]
    scales = [[torch.rand(1, site.width, generator=generator) + 0.5 for site in sites] for _ in features]
    mixed = score_mixed(model, network, scales, features)
    for ours, theirs, each in zip(mixed, scales, features, strict=True):
        np.testing.assert_allclose(ours, score_scaled(model, network, theirs, each), rtol=1e-5, atol=1e-5)
    assert score_mixed(model, network, [], []) == []
