"""Lexica made from a vocabulary: from a file, from espeak-ng, trimmed, in word positions."""

import pytest

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lexicon_source import LexiconConfig, make_lexicon
from lhuc_asr.lang.pronounce import pronounce, pronounce_native


@pytest.fixture
def dictionary(tmp_path):
    path = tmp_path / "words.dict"
    path.write_text("CAT K AE1 T\nSAT S AE1 T\nSAT(2) S AH T\nZOO Z UW\nHAT HH AE T\n")
    return path


def test_without_a_file_espeak_pronounces_every_word():
    lexicon = make_lexicon(["CAT", "SAT"], ["CAT"], LexiconConfig(silence_probability=0.25))
    assert lexicon.pronunciations == {word: (phones,) for word, phones in pronounce(["CAT", "SAT"]).items()}
    assert lexicon.phones.silence == ("SIL",)
    assert lexicon.silence_probability == 0.25


def test_another_language_has_phones_of_its_own():
    lexicon = make_lexicon(["ZWEI"], ["ZWEI"], LexiconConfig(language="de"))
    assert lexicon.pronunciations == {"ZWEI": (pronounce_native(["ZWEI"], "de")["ZWEI"],)}


def test_words_without_a_pronunciation_are_left_out_unless_they_are_required(dictionary):
    lexicon = make_lexicon(["CAT", "SAT", "CATS", "HATS"], ["CAT", "HATS"], LexiconConfig(path=dictionary))
    assert lexicon.pronunciations == {
        "CAT": (("K", "AE", "T"),),
        "SAT": (("S", "AE", "T"), ("S", "AH", "T")),
        "HATS": (("HH", "AE", "T", "S"),),
    }
    # The phones of ZOO are in the file, but not in the vocabulary.
    assert lexicon.phones.speech == ("AE", "AH", "HH", "K", "S", "T")


def test_required_words_become_unknown_words(dictionary):
    lexicon = make_lexicon(["CAT", "DOG"], ["CAT", "DOG"], LexiconConfig(path=dictionary, unknown_words="unk"))
    assert lexicon.words == ("<unk>", "CAT")
    assert lexicon.phones.silence == ("SIL", "SPN")


def test_required_words_are_refused(dictionary):
    with pytest.raises(LexiconError, match="1 word not in the lexicon: DOG; add them"):
        make_lexicon(["CAT", "DOG"], ["DOG"], LexiconConfig(path=dictionary, unknown_words="error"))


def test_the_file_of_the_options_takes_the_place_of_the_corpus_own(dictionary, tmp_path):
    other = tmp_path / "other.dict"
    other.write_text("CAT K AA T\n")
    assert make_lexicon(["CAT"], [], LexiconConfig(), other).pronunciations == {"CAT": (("K", "AA", "T"),)}
    config = LexiconConfig(path=dictionary)
    assert make_lexicon(["CAT"], [], config, other).pronunciations == {"CAT": (("K", "AE", "T"),)}


def test_word_positions(dictionary):
    lexicon = make_lexicon(["ZOO"], [], LexiconConfig(path=dictionary, word_positions=True))
    assert lexicon.pronunciations == {"ZOO": (("Z_B", "UW_E"),)}
