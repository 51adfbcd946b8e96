"""The verdict on an adaptation: what is counted, and who is kept unadapted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.unadapted import UnadaptedConfig
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.decode.hypothesis import Hypothesis
from lhuc_asr.decode.lattice import FramePosteriors
from lhuc_asr.decode.lattice_search import LatticeSummary
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.pipeline.export import export
from lhuc_asr.recognizer import adapting, verdict
from lhuc_asr.recognizer.adapting import Adaptation
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.recordings import recordings
from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus
from lhuc_asr.recognizer.verdict import Verdict

HURTS, HELPS, SAME = (Verdict("unlike", 3, 2.0, after) for after in (2.5, 1.5, 2.0 + 1e-9))


def adaptation(recognizer: Recognizer, audio: Path, **options: object) -> Adaptation:
    with recordings([audio]) as named:
        corpus = SpeakerCorpus({"2001": named}, {})
        (made,) = recognizer.adapt_corpus(corpus, **options)  # type: ignore[arg-type]
    return made


def summary(words: str, agreement: float = 1.0) -> LatticeSummary:
    frames = FramePosteriors(np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32))
    return LatticeSummary(Hypothesis("u", tuple(words.split()), (), 0.0, True), frames, 0, False, agreement)


def test_words_in_doubt() -> None:
    """A word in place of another counts 1, one that is missing or too many a half; of four, a quarter may change."""
    learned = {"u": ("GO", "TO", "NINE")}
    counts = {"go to nine": 0.0, "go to five": 1.0, "go nine": 0.5, "go to to nine": 0.5, "": 1.5}
    for words, count in counts.items():
        assert verdict.unlike(summary(words.upper()), learned) == pytest.approx(count)
    assert verdict.unlike(summary(""), {"u": ()}) == 0.0
    assert verdict.unstable(summary("A B C D", 0.75)) == pytest.approx(1.0)
    assert verdict.unstable(summary("")) == 0.0


def test_as_many_words_in_doubt_neither_help_nor_hurt() -> None:
    assert (HURTS.hurts, HURTS.helps) == (True, False)
    assert (HELPS.hurts, HELPS.helps) == (False, True)
    assert (SAME.hurts, SAME.helps) == (False, False)


def test_each_half_is_decoded_with_what_the_other_has_taught(
    recognizer: Recognizer, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sets that are decoded have none of the pieces that they were estimated on, and all pieces together."""
    seen = []
    original = type(recognizer._model).halves

    def noted(model, features):
        sets = original(model, features)
        seen.append((features, sets))
        return sets

    monkeypatch.setattr(type(recognizer._model), "halves", noted)
    made = adaptation(recognizer, audio, judged=True)
    features, sets = seen[0]
    decoded = [piece.id for each in sets for piece in each.used_for]
    assert sorted(decoded) == sorted(piece.id for piece in features.utterances)
    assert made.verdict is not None
    assert made.verdict.pieces == len(decoded)
    for each in sets:
        learned = {piece.id for piece, _ in each.estimated_on}
        assert learned
        assert not learned & {piece.id for piece in each.used_for}


def test_own_words_are_judged_by_how_stable_they_are_and_known_ones_by_how_like_they_are(
    recognizer: Recognizer, audio: Path, known: dict[str, tuple[str, ...]]
) -> None:
    own, told = (
        adaptation(recognizer, audio, judged=True),
        adaptation(recognizer, audio, transcripts=known, judged=True),
    )
    assert own.verdict is not None
    assert told.verdict is not None
    assert (own.verdict.measure, told.verdict.measure) == ("unstable", "unlike")
    unadapted = {each.recording: each for each in recognizer.transcribe(audio)}
    unlike = sum(verdict.unlike(summary(unadapted[name].text), {"u": words}) for name, words in known.items())
    assert told.verdict.before == pytest.approx(unlike)


@pytest.mark.parametrize("told", [HURTS, HELPS, SAME])
def test_a_person_whom_adaptation_hurts_is_kept_unadapted(
    told: Verdict, recognizer: Recognizer, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapting, "verdicts", lambda passes, last: {"2001": told})
    plain, made = adaptation(recognizer, audio), adaptation(recognizer, audio, judged=True)
    assert made.kept_unadapted is told.hurts
    assert (made.moved == 0.0) is told.hurts
    for each, path in ((plain, tmp_path / "plain.safetensors"), (made, tmp_path / "made.safetensors")):
        each.speaker.save(path)
    states = [SpeakerState.load(tmp_path / f"{name}.safetensors") for name in ("plain", "made")]
    same = [torch.equal(states[0].r[site], states[1].r[site]) for site in states[0].r]
    assert any(same) is not told.hurts
    assert all(same) is not told.hurts
    if told.hurts:  # the file decodes like the network alone: the statistics are those of the same recordings
        words = [each.text for each in recognizer.transcribe(audio, tmp_path / "made.safetensors")]
        assert words == [each.text for each in recognizer.transcribe(audio)]


def test_kept_unadapted_on_transforms_that_the_network_needs(
    ladder: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The amplitudes go, and the transform, without which the network knows nothing, stays."""
    export(ladder, tmp_path / "model", "fmllr_lhuc")
    stacked = load(tmp_path / "model")
    adaptation(stacked, audio).speaker.save(tmp_path / "adapted.safetensors")
    monkeypatch.setattr(adapting, "verdicts", lambda passes, last: {"2001": HURTS})
    adaptation(stacked, audio, judged=True).speaker.save(tmp_path / "kept.safetensors")
    adapted, kept = (load_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("adapted", "kept"))
    assert torch.equal(adapted["below.transform"], kept["below.transform"])
    assert not any(values.any() for name, values in kept.items() if not name.startswith(("below", "cmvn")))
    assert any(values.any() for name, values in adapted.items() if not name.startswith(("below", "cmvn")))


def test_no_verdict_where_it_cannot_be_told(
    recognizer: Recognizer, ladder: Path, audio: Path, said: list[Utterance], tmp_path: Path
) -> None:
    """There is one recording only, or the network always needs the transform that the pass estimates."""
    one = audio / said[0].audio.name
    assert adaptation(recognizer, one, judged=True).verdict is None
    export(ladder, tmp_path / "model", "fmllr")
    made = adaptation(load(tmp_path / "model"), audio, judged=True)
    assert made.verdict is None
    assert not made.kept_unadapted


def test_nothing_on_top_of_a_transform_hurts_nobody(ladder: Path, audio: Path, tmp_path: Path) -> None:
    """Both sides have the transform of the other half; a whole one against a half would count against the method."""
    export(ladder, tmp_path / "model", "fmllr_lhuc")
    model = load(tmp_path / "model")._model
    *earlier, last = model.description.passes
    nothing = last.model_copy(update={"method": UnadaptedConfig(on="fmllr")})
    changed = replace(model, description=model.description.model_copy(update={"passes": (*earlier, nothing)}))
    with recordings([audio]) as named:
        (made,) = adapting.adaptations(changed, {"2001": named}, None, None, None, None, None, model.pool, judged=True)
    assert made.verdict is not None
    assert made.verdict.before == made.verdict.after


def test_a_half_that_had_nothing_to_learn_from_is_not_judged(
    recognizer: Recognizer, audio: Path, known: dict[str, tuple[str, ...]]
) -> None:
    """The transcripts of all recordings but one are too long for them."""
    fits, *others = sorted(known)
    wrong = {name: known[fits] * 200 for name in others}
    told: list[object] = []
    made = adaptation(recognizer, audio, transcripts={fits: known[fits], **wrong}, judged=True, on_bad=told.append)
    assert len(told) == len(others)
    assert made.recordings == 1
    assert made.verdict is None


def test_a_network_that_falls_silent_is_not_stable() -> None:
    assert verdict.lost(summary("A B C D"), summary("A")) == 1.5
    assert verdict.lost(summary("A"), summary("A B")) == 0.0
