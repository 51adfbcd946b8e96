"""Tags in transcripts and text: noises, speech that cannot be understood, pauses; written ``[LAUGHTER]``, ``<NOISE>``.

Corpora mark what is not a word in dozens of ways. Known tags become one of two words with a phone of their own, as in
Kaldi's recipes: ``<NOISE>`` (phone ``NSN``) for what is not speech, ``<unk>`` (``SPN``) for speech without known words.
Tags of pauses are taken out, because pauses between words are modelled anyway. A tag that the user's lexicon lists
stays as it is, with the lexicon's phones. Any other tag is refused by name: spelling it out would teach wrong phones.

A tag is not a word, and does not count in word error rates (``without_tags``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, groupby

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.lines import quoted
from lhuc_asr.lang.text import UNKNOWN, is_reserved, normalise

# Any sound that is not speech.
NOISE = "<NOISE>"
# The words that known tags become.
SOUNDS = frozenset({NOISE, UNKNOWN})

# Names as they stand between the brackets, in capitals.
_NOISES = """
    APPLAUSE BACKGROUND BACKGROUND-NOISE BEEP BG-NOISE BREATH BREATHE BREATHING BREATH-NOISE BR BRH CGH CHANNEL-NOISE
    CLAP CLAPPING CLEARS-THROAT CLICK CLICKS COUGH COUGHING COUGHS CRY CRYING DOOR-SLAM DTMF EXHALE GASP INHALE INT LAU
    LAUGH LAUGHING LAUGHS LAUGHTER LIP-SMACK LIPSMACK LS MICROPHONE-NOISE MOUTH-CLICK MUSIC NOISE NOISES NON-SPEECH
    NON-SPEECH-NOISE NONSPEECH NSN PHONE-RINGING RING RINGING SIGH SIGHS SMACK SMK SNEEZE SNEEZES SNIFF SNIFFS STA
    STATIC THROAT THROAT-CLEARING TONGUE-CLICK YAWN
"""
_SPEECH = """
    AH CROSS-TALK CROSSTALK EH ER ERM FIL FILLER FOREIGN FOREIGN-LANGUAGE GARBAGE HES HESITATION HM HMM INAUDIBLE
    INDISCERNIBLE MHM MM MUMBLE MUMBLES OOV OVERLAP SIDE-SPEECH SPEAKER-NOISE SPK SPN SPOKEN-NOISE UH UHM UM UNCLEAR
    UNINTELLIGIBLE UNK UNKNOWN VOCAL-NOISE VOCALISED-NOISE VOCALIZED-NOISE XXX
"""
_PAUSES = "BLANK-AUDIO EPS LONG-PAUSE NO-SPEECH NOSPEECH PAUSE SHORT-PAUSE SIL SILENCE SP"
# What a tag of each name becomes; "" is nothing.
_SOUND_OF = {
    name: sound for sound, names in ((NOISE, _NOISES), (UNKNOWN, _SPEECH), ("", _PAUSES)) for name in names.split()
}

# A character of every tag, and of nothing that is usually said: most texts need no further look.
_MARK = re.compile(r"[<>\[\]{}()+%*!#]")
_BRACKETED = re.compile(
    r"<<[^<>]*+>>|<[^<>]*+>|\[\[[^\[\]]*+\]\]|\[[^\[\]]*+\]|\{\{[^{}]*+\}\}|\{[^{}]*+\}|\(\([^()]*+\)\)|\([^()]*+\)"
)
_BRACKET = re.compile(r"[<>\[\]{}]")
# ++AH++, %HES%, *LAUGHS*, #NOISE#
_ENCLOSING = "+%*#"
# %HESITATION, !SIL, #NOISE; no tag unless the name is known, because dictionaries have %PERCENT.
_PREFIXED = re.compile(r"[%!#]\S+")
_AROUND_NAME = "<>[]{}()+%*#!/ "
_SEPARATORS = re.compile(r"[\s_:./-]+")


def spoken_words(text: str, place: str, own_tags: Collection[str] = ()) -> tuple[str, ...]:
    """The normalised words of a transcript or a sentence, with known tags as ``<NOISE>``, ``<unk>`` or nothing.

    A second application changes nothing.

    Args:
        text: As its writer wrote it.
        place: File and line, for the message.
        own_tags: Tags that the user's lexicon lists (``tags_of``); they stay as they are.

    Raises:
        CorpusError: The text has a tag that is not known, or a symbol that is reserved for graphs.

    Example:
        >>> spoken_words("okay [laughter] {breath} so <unk>", "text:1", own_tags={"[LAUGHTER]"})
        ('OKAY', '[LAUGHTER]', '<NOISE>', 'SO', '<unk>')
    """
    normalised = normalise(text)
    if not _MARK.search(normalised):
        return tuple(normalised.split())
    runs = groupby(normalised.split(), own_tags.__contains__)
    said = (run if own else _mapped(" ".join(run), place) for own, run in runs)
    return tuple(chain.from_iterable(said))


def tags_of(words: Collection[str]) -> frozenset[str]:
    """Those words of a lexicon that ``spoken_words`` might take for an unknown tag, or for one glued to a word."""
    return frozenset(word for word in words if _MARK.search(word)) - SOUNDS


def is_tag(word: str) -> bool:
    """Whether a normalised word is a tag, known or not."""
    if word in SOUNDS or _is_enclosed(word):
        return True
    if _BRACKETED.fullmatch(word):
        return word[0] != "(" or _sound(word) is not None
    return _PREFIXED.fullmatch(word) is not None and _sound(word) is not None


def without_tags(words: Sequence[str]) -> tuple[str, ...]:
    """The words that count in word error rates."""
    return tuple(word for word in words if not is_tag(word))


def _mapped(text: str, place: str) -> Iterator[str]:
    """The words of a normalised text without own tags."""

    def known(match: re.Match[str]) -> str:
        tag = match[0]
        sound = _sound(tag)
        if sound is None and tag[0] != "(":
            raise _unknown(tag, place)
        # Words in parentheses are words, and punctuation is left alone.
        return tag if sound is None else f" {sound} "

    # The brackets of <NOISE> and <unk> are in place again afterwards, and are not a trace of a tag cut in two.
    for word in _BRACKETED.sub(known, text).split():
        if word in SOUNDS:
            yield word
            continue
        sound = _sound(word) if _is_enclosed(word) or _PREFIXED.fullmatch(word) else None
        if sound is not None:
            yield from filter(None, [sound])
        elif is_reserved(word) or _is_enclosed(word) or _BRACKET.search(word):
            raise _unknown(word, place)
        else:
            yield word


def _is_enclosed(word: str) -> bool:
    return len(word) > 2 and word[0] == word[-1] and word[0] in _ENCLOSING and bool(word.strip(_ENCLOSING))


def _sound(tag: str) -> str | None:
    """What a tag stands for: ``<NOISE>``, ``<unk>``, or "" for nothing; None where it is not known."""
    name = _SEPARATORS.sub("-", tag.strip(_AROUND_NAME))
    if not name:
        return UNKNOWN if tag.startswith("((") else None
    if name == "S":  # <s> and </s>; (S) is a plural
        return "" if tag[0] == "<" else None
    sound = _SOUND_OF.get(name)
    # </LAUGH> ends a stretch whose beginning has said what it is.
    return "" if sound is not None and "/" in tag[:2] else sound


def _unknown(tag: str, place: str) -> CorpusError:
    if is_reserved(tag):
        return CorpusError(
            f"{place}: {quoted(tag)} is reserved for graphs and language models and cannot be a word; spell it"
        )
    return CorpusError(
        f"{place}: unknown tag {quoted(tag)}, expected words, {NOISE} or {UNKNOWN}; write one of them, or list it "
        "in lexicon.path with its phones"
    )
