"""Sentences of a small grammar, which the synthetic voices speak."""

from __future__ import annotations

import re

import numpy as np

# The text has its own random generator; 1 to 3 are those of the voices.
_TEXT = 4

# A slot has words that sound alike, so that only their sound distinguishes them.
SLOTS = {
    slot: tuple(words.split())
    for slot, words in {
        "person": (
            "ALICE ELLIS ALLEN ELLEN BEN KEN DAN DON JANE JUNE JOHN JOAN BILL WILL "
            "PHIL HARRY LARRY BARRY MARY KATE NATE PETER RITA ANNA HANNAH MARTIN "
            "MARVIN TINA DINA NORA LAURA OSCAR"
        ),
        "verb": "TAKE BRING SEND LEND FIND MOVE LEAVE PUT PUSH PULL SHOW HOLD SELL LIFT GIVE CARRY DROP",
        "colour": "RED GREEN GREY BLUE BROWN BLACK WHITE PINK PURPLE YELLOW ORANGE SILVER GOLDEN OLD COLD",
        "thing": (
            "BOX BOOK BALL BOWL BELL BOAT COAT GOAT CAT CAP CUP MAP MAT HAT BAG "
            "BACKPACK PEN PIN PAN LAMP LAMB RING KEY LETTER LADDER BASKET BLANKET "
            "TABLE CABLE BOTTLE CANDLE SADDLE TICKET JACKET ROPE SOAP SPOON PLATE"
        ),
        "place": (
            "KITCHEN GARDEN STATION OFFICE BEDROOM BATHROOM MARKET HARBOR HOTEL "
            "HOSPITAL SCHOOL CHURCH MUSEUM PARK BARN BANK BEACH BRIDGE RIVER "
            "VILLAGE LIBRARY TOWER CASTLE CELLAR CORNER DOOR FLOOR STORE"
        ),
        "relation": "NEAR BEHIND BESIDE INSIDE OUTSIDE UNDER OVER",
        "digit": "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE",
        "teen": "TEN ELEVEN TWELVE THIRTEEN FOURTEEN FIFTEEN SIXTEEN SEVENTEEN EIGHTEEN NINETEEN",
        "tens": "TWENTY THIRTY FORTY FIFTY SIXTY SEVENTY EIGHTY NINETY",
        "day": "MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY TODAY TOMORROW",
        "moment": "MORNING EVENING AFTERNOON NOON MIDNIGHT LUNCH DINNER",
        "edge": "BEFORE AFTER UNTIL",
        "wish": "PLEASE QUICKLY NEVER ALWAYS NOW THEN",
        "state": "OPEN BROKEN CLOSED LOST CLEAN GREASY READY EMPTY HEAVY READING SLEEPING",
    }.items()
}
TEMPLATES = (
    "{verb} THE {colour} {thing} TO THE {place}",
    "{wish} {verb} THE {thing} {relation} THE {place}",
    "{person} AND {person} MEET AT THE {place} ON {day}",
    "{person} HAS {tens} {digit} {colour} {thing} PICTURES",
    "THE {colour} {thing} IS {relation} THE {colour} {thing}",
    "CALL {person} AT {digit} {digit} {digit} {digit} {digit}",
    "IS THE {place} {state} {edge} {moment}",
    "{wish} WAKE {person} AT {teen} {tens} {digit} {edge} {moment}",
    "{person} WANTS TO {verb} {teen} {thing} PICTURES {edge} {day}",
    "ROOM {tens} {digit} {relation} THE {place} IS {state}",
    "TELL {person} THAT THE {thing} IS {state} AND {state}",
)
_SLOT = re.compile(r"\{(\w+)\}")


def vocabulary() -> tuple[str, ...]:
    """Every word of the grammar, sorted."""
    fixed = _SLOT.sub("", " ".join(TEMPLATES)).split()
    return tuple(sorted({*fixed, *(word for words in SLOTS.values() for word in words)}))


def grammar_sentences(generator: np.random.Generator, count: int) -> list[str]:
    """``count`` random sentences in capitals; every template, and every word of a slot, is equally likely."""

    def word(slot: re.Match[str]) -> str:
        words = SLOTS[slot[1]]
        return words[generator.integers(len(words))]

    return [_SLOT.sub(word, TEMPLATES[generator.integers(len(TEMPLATES))]) for _ in range(count)]


def grammar_text(seed: int, sentences: int) -> list[str]:
    """Sentences to train a language model on, drawn independently of those that the speakers say."""
    return grammar_sentences(np.random.default_rng((seed, _TEXT)), sentences)
