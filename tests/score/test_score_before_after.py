"""WER and CER before and after, against edit distances by brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.score.before_after import before_and_after, character_errors

REFERENCES = st.text("ab ", min_size=1, max_size=5).map(str.split).map(" ".join).filter(bool)


def distance(first: str, second: str) -> int:
    """Levenshtein's, by its definition."""
    if not first or not second:
        return len(first) + len(second)
    if first[0] == second[0]:
        return distance(first[1:], second[1:])
    return 1 + min(distance(first[1:], second), distance(first, second[1:]), distance(first[1:], second[1:]))


@given(st.lists(st.tuples(REFERENCES, st.text("ab", max_size=5)), min_size=1, max_size=3))
def test_characters_are_counted_over_all_utterances(pairs: list[tuple[str, str]]) -> None:
    references = {str(n): reference for n, (reference, _) in enumerate(pairs)}
    hypotheses = {str(n): hypothesis for n, (_, hypothesis) in enumerate(pairs)}
    counted = character_errors(references, hypotheses)
    assert counted.errors == sum(distance(*pair) for pair in pairs)
    assert counted.characters == sum(len(reference) for reference, _ in pairs)


def test_what_changed_is_told_with_its_chance() -> None:
    """Eight speakers with a word each, all wrong before and right after: p is 2 / 2^8."""
    names = [f"u{n}" for n in range(8)]
    right, wrong = (dict.fromkeys(names, text) for text in ("go on", "go off"))
    speakers = {name: f"speaker {name}" for name in names}
    first, second, change = before_and_after(right, wrong, right, speakers)
    assert first == "unadapted  WER 50.00 % (8 errors in 16 words), CER 40.00 %"
    assert second == "adapted    WER 0.00 % (0 errors in 16 words), CER 0.00 %"
    assert change.startswith("change     WER -100.0 [")
    assert change.endswith(f"] %, p {2 / 2**8:.4f} over 8 speakers: significant")
    assert before_and_after(right, wrong, wrong, speakers)[2].endswith("p 1.0000 over 8 speakers: not significant")


def test_one_speaker_is_judged_over_recordings() -> None:
    right, wrong = {"a": "go", "b": "on"}, {"a": "go", "b": "off"}
    *_, change = before_and_after(right, wrong, right, dict.fromkeys("ab", "alice"))
    assert change.endswith("over the recordings of one speaker: not significant")
