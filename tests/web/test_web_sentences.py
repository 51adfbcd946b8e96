"""What a new person reads is in the model's words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.text import normalise
from lhuc_asr.web.sentences import LEAST, OURS, SENTENCES, WORDS_A_LINE, sentences

ALL = frozenset(normalise(OURS).split())


def test_a_model_that_knows_our_words_gets_our_sentences_and_only_those_that_it_knows() -> None:
    ours = sentences(ALL)
    assert len(ours) == SENTENCES
    assert " ".join(ours[0]) == "THE CHILDREN RAN DOWN TO THE RIVER BEFORE THE SUN CAME UP"
    fewer = sentences(ALL - {"RIVER"})
    assert set(fewer) == {words for words in ours if "RIVER" not in words}
    assert len(fewer) >= LEAST


def test_words_are_drawn_from_a_model_that_knows_few_of_ours_each_as_often_and_no_tags() -> None:
    own = {f"WORD{number}" for number in range(50)} | {"<unk>", "<NOISE>", "[COUGH]"}
    drawn = sentences(own)
    assert drawn == sentences(own)
    assert {len(line) for line in drawn} == {WORDS_A_LINE}
    counts = Counter(word for line in drawn for word in line)
    assert set(counts) == {word for word in own if word.startswith("WORD")}
    assert max(counts.values()) - min(counts.values()) <= 1
    for nothing in ((), ("<unk>", "[COUGH]")):
        with pytest.raises(CorpusError, match="knows no word that can be read"):
            sentences(nothing)


def test_own_sentences_are_normalised_and_have_to_be_known(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("go  on\n\nDon’t stop\n", encoding="utf-8")
    assert sentences({"GO", "ON", "DON'T", "STOP"}, path) == [("GO", "ON"), ("DON'T", "STOP")]
    with pytest.raises(CorpusError, match=r"own\.txt:3: the model does not know DON'T; write another sentence"):
        sentences({"GO", "ON", "STOP"}, path)
    path.write_text("\n")
    with pytest.raises(CorpusError, match=r"own\.txt: no sentence; write one a line"):
        sentences(ALL, path)
