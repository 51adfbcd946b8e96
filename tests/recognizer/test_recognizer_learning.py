"""A recognizer that learns while it listens: piece after piece, each from where the one before left the person."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.targets import targets_from_alignment
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import ConfigError, SpeakerError
from lhuc_asr.recognizer.learning import Learning
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker, load_speaker

RATE = 16_000
QUIET = np.random.default_rng(0).normal(0, 1e-4, round(1.5 * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def sentences(said: list[Utterance]) -> list[np.ndarray]:
    """Sentences with a pause after each."""
    return [np.concatenate([soundfile.read(u.audio, dtype="float32")[0], QUIET]) for u in said[:2]]


def tables(speaker: Speaker) -> list[torch.Tensor]:
    assert isinstance(speaker.adapted, Amplitudes)
    bank = speaker.adapted.bank
    return [bank.r(site.name, bank.rows_of([speaker.name])).detach()[0].clone() for site in bank.sites]


def test_each_piece_is_learned_from_once_and_the_next_is_decoded_with_that(
    recognizer: Recognizer, alice: Speaker, sentences: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ``Learning`` is given is decoded with the parameters before it; its result is that of the increments."""
    learned: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
    original = Learning.learn
    by_hand = Lhuc(LhucConfig(**recognizer.description.with_speaker.method.model_dump()))
    increments = by_hand.begin(recognizer._model.network, [alice.name], alice.adapted)

    def spied(self: Learning, speech, summary) -> None:
        before = tables(Speaker(self.name, "", self.adapted, None))
        scores = self.adapted.log_likelihoods(self.name, [next(iter(speech.features.values())).array])
        again = recognizer._model.pool.lattices_all(
            [("live", scores)], recognizer.description.with_speaker.search, recognizer.description.lattice
        )
        assert [each.hypothesis.words for each in again] == [summary.hypothesis.words]
        original(self, speech, summary)
        learned.append((before, tables(Speaker(self.name, "", self.adapted, None))))
        silence, weight = recognizer._model.topology.silence_pdfs, 0.01
        targets = {"live": targets_from_alignment(summary.hypothesis.pdfs, silence, weight)}
        loop = recognizer._model.loop(recognizer.description.with_speaker, speech)
        data = loop.speaker_data(targets, [(each, each.frames) for each in loop.features.utterances])
        increments.go_on({self.name: data}, {self.name: self.name}, recognizer.description.seed)
        expected = tables(Speaker(self.name, "", increments.speakers, None))
        assert all(map(torch.equal, learned[-1][1], expected))

    monkeypatch.setattr(Learning, "learn", spied)
    live = recognizer.listen(alice, learn=True)
    for sentence in sentences:
        live.hear(sentence)
    live.end()
    assert len(learned) == len(sentences)
    assert all(map(torch.equal, learned[0][0], tables(alice)))
    for (_, after), (before, _) in pairwise(learned):
        assert all(map(torch.equal, after, before))
    assert not any(map(torch.equal, learned[0][1], learned[1][1]))
    assert all(map(torch.equal, tables(live.speaker), learned[-1][1]))
    assert 0 < live.learned_seconds <= sum(map(len, sentences)) / RATE


def test_an_unknown_person_becomes_a_file(recognizer: Recognizer, sentences: list[np.ndarray], tmp_path: Path) -> None:
    live = recognizer.listen(learn=True, name="bob")
    for sentence in sentences:
        live.hear(sentence)
    live.end()
    bob = live.speaker
    assert bob.name == "bob"
    assert all(bool(r.any()) for r in tables(bob))
    bob.save(tmp_path / "bob.safetensors")
    again = load_speaker(tmp_path / "bob.safetensors", recognizer._model.network, recognizer.description)
    assert all(map(torch.equal, tables(again), tables(bob)))
    (one,) = recognizer.transcribe([(sentences[0], RATE)], again)
    (other,) = recognizer.transcribe([(sentences[0], RATE)], bob)
    assert one.words == other.words


def test_without_learn_a_person_stays_as_they_are(
    recognizer: Recognizer, alice: Speaker, sentences: list[np.ndarray]
) -> None:
    before = tables(alice)
    live = recognizer.listen(alice)
    live.hear(sentences[0])
    with pytest.raises(SpeakerError, match="listen with learn=True"):
        _ = live.speaker
    learning = recognizer.listen(alice, learn=True)
    learning.hear(sentences[0])
    assert learning.learned_seconds > 0
    assert live.learned_seconds == 0
    assert all(map(torch.equal, tables(alice), before))


def test_a_model_whose_parameters_do_not_go_on_says_so(recognizer: Recognizer) -> None:
    model = recognizer._model
    first, *_, last = model.description.passes
    for method, message in (
        (FdlrConfig(), "adapts by fdlr, whose parameters do not go on from piece to piece"),
        (LhucConfig(on="moved"), "adapts by lhuc on moved, whose vectors or transforms need all that is said; export"),
    ):
        other = model.description.model_copy(update={"passes": (first, last.model_copy(update={"method": method}))})
        with pytest.raises(ConfigError, match=message):
            Learning(replace_description(model, other), "me")


def replace_description(model, description):
    """The model with another description, as it would be loaded, without the checks of files that it lacks."""
    other = object.__new__(type(model))
    for name in type(model).__dataclass_fields__:
        object.__setattr__(other, name, description if name == "description" else getattr(model, name))
    return other


def test_names_are_checked(recognizer: Recognizer) -> None:
    with pytest.raises(SpeakerError):
        recognizer.listen(learn=True, name="a/b")
