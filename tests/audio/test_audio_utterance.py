"""Utterances and their manifests."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.audio.utterance import Utterance, read_manifest, write_manifest
from lhuc_asr.base.errors import CorpusError

WHOLE = '{"id": "u", "speaker": "s", "environment": "", "audio": "a.wav", "start": 0.5, "seconds": 1.5, "text": "YES"}'
NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1)
UTTERANCES = st.builds(
    Utterance, NAMES, NAMES, NAMES, st.just(Path("/a/b.wav")), st.floats(0, 1e6), st.floats(1e-3, 1e6), NAMES
)


@given(utterances=st.lists(UTTERANCES, max_size=5))
def test_a_manifest_is_read_as_it_was_written(
    utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "train.jsonl"
    write_manifest(path, utterances)
    assert read_manifest(path) == utterances


def test_the_line_that_others_are_made_of_is_an_utterance(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(f"{WHOLE}\n")
    assert read_manifest(tmp_path / "train.jsonl") == [Utterance("u", "s", "", Path("a.wav"), 0.5, 1.5, "YES")]


@pytest.mark.parametrize(
    "line",
    [
        '{"id": "u"}',
        '{"id": "u", "audio": "a", "colour": 1}',
        '{"audio": 3}',
        "3",
        WHOLE.replace('"seconds": 1.5', '"seconds": "1.5"'),
        WHOLE.replace('"seconds": 1.5', '"seconds": NaN'),
        WHOLE.replace('"start": 0.5', '"start": -0.5'),
        WHOLE.replace('"start": 0.5', '"start": 1e999'),
        WHOLE.replace('"a.wav"', r'"a\u0000.wav"'),
        WHOLE.replace('"a.wav"', r'"\ud800.wav"'),
        WHOLE.replace('"id": "u"', '"id": ["u"]'),
        WHOLE.replace('"id": "u"', '"id": "u", "id": "v"'),
    ],
)
def test_a_line_that_is_not_an_utterance_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"train\.jsonl:1: not an utterance"):
        read_manifest(path)


def test_words_are_those_of_the_transcript() -> None:
    assert Utterance("u", "s", "", Path("a"), 0.0, 1.0, "YES NO").words == ("YES", "NO")
    assert Utterance("u", "s", "", Path("a"), 0.0, 1.0, "").words == ()
