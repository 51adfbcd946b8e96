import gzip
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhuc_asr.base.errors import LexiconError
from lhuc_asr.lang.lexicon import Lexicon, WordTable, disambiguate, read_lexicon, write_lexicon
from lhuc_asr.lang.phones import PhoneSet

PHONES = PhoneSet(("SIL",), ("A", "B", "C"))


def lexicon_of(**words):
    pronunciations = {
        word: tuple(tuple(variant.split()) for variant in variants.split(",")) for word, variants in words.items()
    }
    return Lexicon(pronunciations, PHONES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lexicon.txt"


def test_read_cmudict(path):
    path.write_text(
        ";;; a comment\n"
        "'bout B AW1 T\n"
        "aalborg AO1 L B AO0 R G # place, danish\n"
        "tomato T AH0 M EY1 T OW2\n"
        "tomato(2) T AH0 M AA1 T OW2\n"
        "\n"
        "# another\n"
        "tomato(3) T AH1 M EY1 T OW0\n"
    )
    lexicon = read_lexicon(path)
    assert lexicon.words == ("'BOUT", "AALBORG", "TOMATO")
    # The third variant differs in stress only.
    assert lexicon.pronunciations["TOMATO"] == (
        tuple(["T", "AH", "M", "EY", "T", "OW"]),
        tuple(["T", "AH", "M", "AA", "T", "OW"]),
    )
    assert lexicon.phones.silence == ("SIL",)
    assert lexicon.phones.speech == tuple(sorted(["B", "AW", "T", "AO", "L", "R", "G", "AH", "M", "EY", "OW", "AA"]))
    stressed = read_lexicon(path, strip_stress=False)
    assert len(stressed.pronunciations["TOMATO"]) == 3
    assert "AO0" in stressed.phones.names


def test_stress_is_taken_off_vowels_only(path):
    path.write_text("ma m a1\nand AE0 N2\n")
    assert read_lexicon(path).pronunciations == {"MA": (("m", "a1"),), "AND": (("AE", "N2"),)}


def test_read_sphinx_and_compressed(tmp_path):
    path = tmp_path / "an4.dic.gz"
    path.write_bytes(gzip.compress(b"A                    AH\nA(2)                 EY\n"))
    assert read_lexicon(path).pronunciations == {"A": (("AH",), ("EY",))}


def test_read_kaldi_with_silence_words(path):
    path.write_text("!SIL SIL\n<unk> SPN\nab A B\n")
    lexicon = read_lexicon(path)
    assert lexicon.words == ("!SIL", "<unk>", "AB")
    assert lexicon.phones == PhoneSet(("SIL", "SPN"), ("A", "B"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok A\nword\n", r"lexicon\.txt:2: a word without phones; expected a word and its phones"),
        ("word # A B\n", r"lexicon\.txt:1: a word without phones"),
        ("wo\x07rd A\n", r"lexicon\.txt:1: control character"),
        ("<s> SIL\n", r"lexicon\.txt:1: '<s>' is reserved"),
        ("#0 A\n", r"lexicon\.txt:1: '#0' is reserved"),
        ("word A SIL B\n", r"lexicon\.txt:1: silence phone inside a word: A SIL B"),
        (
            "word 0.5 A B\nother A\n",
            r"lexicon\.txt:1: expected a phone, found the number 0\.5; .* every line or on none",
        ),
        ("word 1.5 A B\n", r"lexicon\.txt:1: expected a phone, found the number 1\.5; probabilities are above 0"),
        ("word 0.0 A B\n", r"lexicon\.txt:1: expected a phone, found the number 0\.0; probabilities are above 0"),
        (";;; only comments\n", r"lexicon\.txt: no words"),
        ("", r"lexicon\.txt: no words"),
    ],
)
def test_malformed_lexicon(path, text, message):
    path.write_text(text)
    with pytest.raises(LexiconError, match=message):
        read_lexicon(path)


def test_missing_lexicon(path):
    with pytest.raises(LexiconError, match=r"lexicon\.txt: no such file"):
        read_lexicon(path)


def test_write_and_read_again(path):
    lexicon = lexicon_of(BAC="B A C,B C", A="A")
    write_lexicon(path, lexicon)
    assert path.read_text() == "A A\nBAC B A C\nBAC B C\n"
    assert read_lexicon(path) == lexicon


def test_read_kaldi_with_probabilities(path):
    path.write_text("<unk> 1.0 SPN\nthe 1.0 DH AH0\nthe 0.25 DH IY0\nthe 0.125 DH IY1\na 5e-1 AH0\na 1 EY1\n")
    lexicon = read_lexicon(path)
    assert lexicon.pronunciations["THE"] == (("DH", "AH"), ("DH", "IY"))
    assert lexicon.phones == PhoneSet(("SIL", "SPN"), ("AH", "DH", "EY", "IY"))
    assert lexicon.probabilities == {("THE", ("DH", "IY")): 0.25, ("A", ("AH",)): 0.5}
    assert lexicon.probability("THE", ("DH", "AH")) == 1.0
    write_lexicon(path, lexicon)
    assert path.read_text().splitlines()[-1] == "THE 0.25 DH IY"
    assert read_lexicon(path) == lexicon


def test_probabilities_go_with_their_words():
    spelt = (("A", "B"), ("C",))
    lexicon = Lexicon({"X": spelt, "Y": spelt}, PHONES, probabilities={("X", ("C",)): 0.5, ("Y", ("A", "B")): 0.25})
    assert lexicon.restricted_to(["Y"]).probabilities == {("Y", ("A", "B")): 0.25}
    assert lexicon.with_word_positions().probabilities == {("X", ("C_S",)): 0.5, ("Y", ("A_B", "B_E")): 0.25}
    assert lexicon.with_pronunciations({"X": (("B",),)}).probability("X", ("B",)) == 1.0
    for wrong in ({("X", ("A",)): 0.5}, {("Z", ("A",)): 0.5}, {("X", ("C",)): 1.5}):
        with pytest.raises(LexiconError, match=r"expected one in \(0, 1\), of a pronunciation"):
            Lexicon({"X": spelt}, PHONES, probabilities=wrong)


def test_a_lexicon_is_checked_when_it_is_made():
    with pytest.raises(LexiconError, match=r"'X': .* phones outside the phone set: Z; known.*SIL A B C"):
        lexicon_of(X="A Z")
    with pytest.raises(LexiconError, match="0 < p < 1, found 1"):
        Lexicon({}, PHONES, silence_probability=1.0)
    with pytest.raises(LexiconError, match="'X': no pronunciation"):
        Lexicon({"X": ()}, PHONES)
    with pytest.raises(LexiconError, match="white space"):
        Lexicon({"X Y": (("A",),)}, PHONES)


def test_restricted_and_extended():
    lexicon = lexicon_of(X="A", Y="B", Z="C")
    assert lexicon.restricted_to(["Z", "X", "Z"]).words == ("X", "Z")
    assert lexicon.restricted_to(["X"]).phones == PHONES
    assert lexicon.missing(["W", "X", "V", "V"]) == ["V", "W"]
    with pytest.raises(LexiconError, match="2 words not in the lexicon: V W"):
        lexicon.restricted_to(["W", "X", "V"])
    more = lexicon.with_pronunciations({"X": (("A",), ("B", "A")), "W": (("C",),)})
    assert more.pronunciations == {"X": (("A",), ("B", "A")), "Y": (("B",),), "Z": (("C",),), "W": (("C",),)}
    assert lexicon.words == ("X", "Y", "Z")


def test_word_positions():
    lexicon = Lexicon(
        {"ONE": (("A",),), "TWO": (("A", "B"),), "FOUR": (("A", "B", "C", "A"),), "<unk>": (("SPN",),)},
        PhoneSet(("SIL", "SPN"), ("A", "B", "C")),
    ).with_word_positions()
    assert lexicon.pronunciations == {
        "ONE": (("A_S",),),
        "TWO": (("A_B", "B_E"),),
        "FOUR": (("A_B", "B_I", "C_I", "A_E"),),
        "<unk>": (("SPN",),),
    }
    assert lexicon.phones.silence == ("SIL", "SPN")
    assert lexicon.phones.speech == tuple(f"{p}_{position}" for p in "ABC" for position in "BIES")


def test_disambiguate_by_hand():
    lexicon = lexicon_of(RED="A B", READ="A B,A C", READER="A B C", OTHER="C", O="A")
    pronunciations, largest = disambiguate(lexicon)
    numbered = {(p.word, " ".join(p.phones)): p.disambiguation for p in pronunciations}
    assert numbered == {
        ("RED", "A B"): 2,  # shared with READ, which comes first, and begins READER
        ("READ", "A B"): 1,
        ("READ", "A C"): 0,
        ("READER", "A B C"): 0,
        ("OTHER", "C"): 0,
        ("O", "A"): 1,  # begins others, though nobody shares it
    }
    assert largest == 2


spellings = st.lists(st.sampled_from("ABC"), min_size=1, max_size=4).map(tuple)


@given(
    st.dictionaries(
        st.text("xyz", min_size=1, max_size=3),
        st.lists(spellings, min_size=1, max_size=3, unique=True).map(tuple),
        max_size=8,
    )
)
def test_disambiguated_pronunciations_are_prefix_free(words):
    pronunciations, largest = disambiguate(Lexicon(words, PHONES))
    spelt = [p.phones + ((f"#{p.disambiguation}",) if p.disambiguation else ()) for p in pronunciations]
    for one, other in itertools.permutations(spelt, 2):
        assert one != other[: len(one)]
    assert largest == max((p.disambiguation for p in pronunciations), default=0)
    assert sorted((p.word, p.phones) for p in pronunciations) == sorted(
        (word, phones) for word, variants in words.items() for phones in variants
    )


def test_word_table(tmp_path):
    path = tmp_path / "words.txt"
    table = WordTable(("<unk>", "A", "B"))
    table.save(path)
    assert path.read_text() == "<eps> 0\n<unk> 1\nA 2\nB 3\n#0 4\n<s> 5\n</s> 6\n"
    assert WordTable.load(path) == table
    assert [table.ids[symbol] for symbol in table.symbols] == list(range(7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<eps> 0\nA 2\n", r"words\.txt:2: expected a word and its number 1, found 'A 2'"),
        ("<eps> 0\nA\n", r"words\.txt:2: expected a word and its number 1, found 'A'"),
        ("<eps> 0\nA 1\nB 2\n", r"words\.txt: expected <eps>, the words, #0, <s>, </s>"),
        ("<eps> 0\nB 1\nA 2\n#0 3\n<s> 4\n</s> 5\n", r"words\.txt: .*sorted.* found 'B' before 'A'"),
        ("<eps> 0\n#1 1\n#0 2\n<s> 3\n</s> 4\n", r"words\.txt: '#1' is reserved"),
        ("", r"words\.txt: expected <eps>"),
    ],
)
def test_malformed_word_table(tmp_path, text, message):
    path = tmp_path / "words.txt"
    path.write_text(text)
    with pytest.raises(LexiconError, match=message):
        WordTable.load(path)


def test_words_are_spelt_as_transcripts_are(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_bytes(
        b"\xef\xbb\xbfdon\xe2\x80\x99t D OW N T\r\n"
        + "cafe\u0301 K AE\nal\u200bpha\u00a0AE L\n[noise] NSN\n<UNK> SPN\n".encode()
    )
    lexicon = read_lexicon(path)
    assert set(lexicon.words) == {"DON'T", "CAF\u00c9", "ALPHA", "[NOISE]", "<unk>"}
    assert lexicon.phones.silence == ("SIL", "SPN", "NSN")


def test_old_line_ends_of_a_mac(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_bytes(b"a AH\rb B IY\r")
    assert read_lexicon(path).words == ("A", "B")


def test_a_column_of_ones_is_not_a_phone(path):
    path.write_text("a 1 AH\nb 1\tB IY\n")
    assert read_lexicon(path).pronunciations == {"A": (("AH",),), "B": (("B", "IY"),)}
    path.write_text("a 1 AH\nb B IY\n")  # X-SAMPA has a vowel 1
    assert read_lexicon(path).pronunciations["A"] == (("1", "AH"),)


def test_phones_that_look_the_same_are_the_same(path):
    path.write_text("ich ɪ ç\nmich m ɪ c\N{COMBINING CEDILLA}\nsich z ɪ ç\N{ZERO WIDTH SPACE}\n", encoding="utf-8")
    assert read_lexicon(path).phones.speech == ("m", "z", "ç", "ɪ")
