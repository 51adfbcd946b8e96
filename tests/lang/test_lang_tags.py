"""Tags in transcripts: known ones become two words, those of the user's lexicon stay, others are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.tags import is_tag, spoken_words, tags_of, without_tags


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so [laughter] it is", "SO <NOISE> IT IS"),
        ("<NOISE> [Noise] {breath} ++COUGH++ *laughs* (coughs) #NOISE %noise%", "<NOISE> " * 8),
        ("<UNK> <unk> [vocalized-noise] <SPOKEN_NOISE> (++ah++) %hes% %HESITATION [inaudible] (())", "<unk> " * 9),
        ("<s> one </s> <sil> two !SIL three [pause] (pause) [BLANK_AUDIO]", "ONE TWO THREE"),
        ("[ laughter ] [[noise]] <lip_smack/> [background noise] < noise >", "<NOISE> " * 5),
        ("<laugh> that is it </laugh>", "<NOISE> THAT IS IT"),
        ("hello[laughter]world", "HELLO <NOISE> WORLD"),
        ("don\u2019t \u200b<no\u00adise>", "DON'T <NOISE>"),
        # what is said, not tagged
        ("C++ 5% (maybe) car(s) A+ %percent", "C++ 5% (MAYBE) CAR(S) A+ %PERCENT"),
    ],
)
def test_known_tags_become_a_sound_or_nothing(text: str, expected: str) -> None:
    assert spoken_words(text, "text:1") == tuple(expected.split())


@pytest.mark.parametrize(
    "tag", ["<FOO>", "[DOG BARKS]", "{X}", "++BANG++", "%FOO%", "*BOO*", "[E]", "<>", "[LAUGHTER", ">>"]
)
def test_an_unknown_tag_is_refused_by_name_with_its_place(tag: str) -> None:
    with pytest.raises(CorpusError) as caught:
        spoken_words(f"so {tag.lower()} then", "text:7")
    assert str(caught.value).startswith(f"text:7: unknown tag {tag!r}, expected words, <NOISE> or <unk>; ")


@pytest.mark.parametrize("word", ["#0", "#1"])
def test_a_symbol_of_graphs_is_refused(word: str) -> None:
    with pytest.raises(CorpusError, match=rf"text:3: '{word}' is reserved"):
        spoken_words(f"the {word} song", "text:3")


def test_a_tag_of_the_users_lexicon_stays_as_it_is() -> None:
    own = tags_of(["[LAUGHTER]", "<DOOR>", "TH[E]-", "{LEFT-BRACE", "WORD", "<unk>"])
    assert own == {"[LAUGHTER]", "<DOOR>", "TH[E]-", "{LEFT-BRACE"}
    said = spoken_words("[laughter] th[e]- <door> {left-brace [noise] <unk>", "text:1", own)
    assert said == ("[LAUGHTER]", "TH[E]-", "<DOOR>", "{LEFT-BRACE", "<NOISE>", "<unk>")


def test_tags_do_not_count_as_words() -> None:
    words = ("<unk>", "A", "<NOISE>", "[LAUGHTER]", "(MAYBE)", "%PERCENT", "%HESITATION", "++X++", "!SIL")
    assert without_tags(words) == ("A", "(MAYBE)", "%PERCENT")
    assert is_tag("[WHATEVER]")


PARTS = ["a", "<", ">", "[", "]", "(", ")", "{", "}", "+", "%", "#", "unk", "noise", "s", "/", " "]


def read(text: str) -> tuple[str, ...] | CorpusError:
    """The words, or the refusal."""
    try:
        return spoken_words(text, "text:1")
    except CorpusError as error:
        return error


@given(st.lists(st.sampled_from(PARTS)))
def test_the_words_are_refused_or_stay_the_same_when_read_again(parts: list[str]) -> None:
    words = read("".join(parts))
    if isinstance(words, CorpusError):
        assert "\n" not in str(words)
    else:
        assert read(" ".join(words)) == words


@pytest.mark.parametrize("piece", ["[", "<", "[<({", "( ", "+a", "%"])
def test_a_line_of_brackets_takes_no_quadratic_time(piece: str) -> None:
    words = read(piece * 200_000)
    assert isinstance(words, tuple) or len(str(words)) < 300


@pytest.mark.parametrize(
    "tag", ["［noise］", "【Noise】", "〔noise〕", "＜NOISE＞", "｛noise｝", "（laughter）", "＊cough＊"]
)
def test_tags_of_chinese_and_japanese_keyboards_are_known(tag: str) -> None:
    assert read(f"one {tag} two") == ("ONE", "<NOISE>", "TWO")
    assert isinstance(read("［笑い］"), CorpusError)
