"""One normalisation for transcripts, lexica and text, whoever wrote them, and the symbols that are not words.

Normalisation changes as little as possible, because a changed word may no longer match an entry of the user's lexicon:
Unicode NFC without invisible characters, ``'`` for every sign that stands for an apostrophe, ``-`` for hyphens, upper
case, single spaces. It does not remove punctuation, spell out numbers or split hyphens. A token that the lexicon lacks
is reported by name later, which is better than a guess here. Tags are not words either; see ``tags``.
"""

from __future__ import annotations

import re
import unicodedata

# Symbols of graphs and language models, which a transcript may not use as words.
EPSILON = "<eps>"
SENTENCE_BEGIN = "<s>"
SENTENCE_END = "</s>"
# Label of the language model's back-off arcs. The lexicon's disambiguation symbols are #1, #2 and so on.
BACKOFF = "#0"
# Any word outside the vocabulary, and speech that cannot be understood. A lexicon may have a pronunciation for it, so
# it is not reserved.
UNKNOWN = "<unk>"

# Unicode's Default_Ignorable_Code_Point: zero-width spaces and joiners, soft hyphens, byte-order marks, variation
# selectors, marks of direction. They come with text that was copied, and cannot be seen.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SAME = str.maketrans(
    {
        # Apostrophes of keyboards, word processors and phonetics, and quotation marks and accents in their place.
        **dict.fromkeys("`\u00b4\u02b9\u02bb\u02bc\u02bd\u02ca\u02cb\u2018\u2019\u201b\u2032\u2035\ua78c\uff07", "'"),
        # Hyphens that cannot be told from the keyboard's.
        **dict.fromkeys("\u2010\u2011\ufe63\uff0d", "-"),
        # Signs of tags as Chinese and Japanese keyboards write them.
        **dict(
            zip(
                "\uff1c\uff1e\uff3b\uff3d\uff5b\uff5d\uff08\uff09\uff0b\uff05\uff0a\uff01\uff03\u3010\u3011\u3014\u3015",
                "<>[]{}()+%*!#[][]",
                strict=True,
            )
        ),
        # Capitals that upper() does not make of their own small letters.
        "\N{LATIN CAPITAL LETTER SHARP S}": "SS",
        "\N{GREEK CAPITAL THETA SYMBOL}": "\N{GREEK CAPITAL LETTER THETA}",
    }
)
_DISAMBIGUATION = re.compile(r"#\d+")


def normalise(text: str) -> str:
    """The words of a text as all rooms spell them, separated by single spaces.

    A second application changes nothing.

    Example:
        >>> normalise("  Don\N{RIGHT SINGLE QUOTATION MARK}t  look\\tback ")
        "DON'T LOOK BACK"
    """
    if text.isascii():
        return " ".join(text.upper().replace("`", "'").split())
    # Compose first, so that each letter has a single upper-case form, and again afterwards, because upper() may
    # decompose. Invisible characters go before, because they keep a letter and its accent apart.
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    # Apostrophes are replaced only after upper(), because it turns U+0149 into a modifier apostrophe and N.
    upper = unicodedata.normalize("NFC", composed.upper()).translate(_SAME)
    return " ".join(upper.split())


def normalise_name(name: str) -> str:
    """An id or a name as tables are joined by: Unicode NFC without invisible characters, in its own case.

    File names of macOS are NFD, what is typed is NFC, and both look the same.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", _INVISIBLE.sub("", name))


def is_reserved(word: str) -> bool:
    """Whether ``word`` is a symbol of graphs: ``<eps>``, ``<s>``, ``</s>``, ``#0``, ``#1`` and so on."""
    return word in (EPSILON, SENTENCE_BEGIN, SENTENCE_END) or _DISAMBIGUATION.fullmatch(word) is not None
