"""A lexicon in a folder: everything comes back, damage is refused."""

import json
from dataclasses import replace

import pytest

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE, read_lexicon_folder, write_lexicon_folder
from lhuc_asr.lang.phones import PhoneSet

LEXICON = Lexicon({"ONE": (("A_B", "B_E"), ("AH0_S",))}, PhoneSet(("SIL", "SPN"), ("A_B", "AH0_S", "B_E", "C_S")), 0.25)


def test_a_lexicon_comes_back_with_unused_phones_and_its_silence_probability(tmp_path):
    write_lexicon_folder(tmp_path, LEXICON)
    assert (tmp_path / LEXICON_FILE).read_text() == "ONE A_B B_E\nONE AH0_S\n"
    assert json.loads((tmp_path / PHONES_FILE).read_text()) == {
        "silence": ["SIL", "SPN"],
        "speech": ["A_B", "AH0_S", "B_E", "C_S"],
        "silence_probability": 0.25,
    }
    assert read_lexicon_folder(tmp_path) == LEXICON


def test_probabilities_come_back(tmp_path):
    lexicon = replace(LEXICON, probabilities={("ONE", ("AH0_S",)): 0.1 + 0.2})
    write_lexicon_folder(tmp_path, lexicon)
    assert read_lexicon_folder(tmp_path) == lexicon


@pytest.mark.parametrize(
    "phones",
    [
        {"silence": ["SIL"], "speech": ["A_B"], "silence_probability": 0.25},
        {"silence": ["SIL"], "silence_probability": 0.25},
        {"silence": ["SIL"], "speech": 3, "silence_probability": 0.25},
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, phones):
    write_lexicon_folder(tmp_path, LEXICON)
    (tmp_path / PHONES_FILE).write_text(json.dumps(phones))
    with pytest.raises(LexiconError, match=r"damaged or from different runs \(.*\); delete both and run again"):
        read_lexicon_folder(tmp_path)
