"""Utterances and their manifests."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.audio.utterance import Utterance, read_manifest, write_manifest
from lhuc_asr.base.errors import CorpusError

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


@pytest.mark.parametrize("line", ['{"id": "u"}', '{"id": "u", "audio": "a", "colour": 1}', '{"audio": 3}'])
def test_a_line_that_is_not_an_utterance_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"train\.jsonl:1: not an utterance"):
        read_manifest(path)


def test_words_are_those_of_the_transcript() -> None:
    assert Utterance("u", "s", "", Path("a"), 0.0, 1.0, "YES NO").words == ("YES", "NO")
    assert Utterance("u", "s", "", Path("a"), 0.0, 1.0, "").words == ()
