"""What a new person reads: the user's sentences, ours as far as the model knows their words, or words drawn from it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from lhuc_asr.base.errors import CorpusError
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words, without_tags
from lhuc_asr.lang.text import normalise

# So many are shown, one after the other; half a minute of speech is some ten of them.
SENTENCES = 40
# Fewer sentences that a model knows are too few to be read; then words are drawn.
LEAST = 10
# Words that are drawn for one line: about three seconds.
WORDS_A_LINE = 6
# Order of the drawn words; the same for everybody.
SEED = 1

# Written for this page: everyday words, and all phones of English.
OURS = """
    the children ran down to the river before the sun came up
    she put the old clock back on the shelf above the fire
    we waited an hour for the train and then walked home in the rain
    he asked whether anybody had seen a small brown dog
    nothing in the garden grows as well as the apple trees
    please give me a cup of hot water and a little sugar
    they sold the house by the sea in the month of june
    my father used to sing while he worked in the kitchen
    a strong wind blew from the north for three whole days
    the doctor said that there was no reason to worry
    i would rather read a good book than go to the party
    both of the boys jumped over the fence and ran away
    the teacher wrote a long word on the board and smiled
    you can see the church from the top of that hill
    her sister has lived in a large city for many years
    the king gave each soldier a horse and a piece of land
    it is much too early to judge the work of the new man
    we found a path through the forest just after noon
    the ship left the harbour without a sound that night
    he paid for the bread and put the change in his pocket
    somebody had forgotten to close the window upstairs
    the judge listened to every voice in the room with care
    birds fly south in autumn and return when spring begins
    she thought about the question before she gave an answer
    the road was so narrow that two carts could not pass
    those young people have a great deal of courage
    under the bridge the water was quiet and very deep
    he enjoyed the pleasure of an evening with his friends
    the boy with the yellow coat threw the ball to george
    in the end we all agreed that the journey had been worth it
    the moon rose slowly and the whole valley became bright
    it was usual for them to have fish for supper on friday
    which of these two pictures do you like better
    the old woman shook her head and said nothing at all
    an oil lamp hung from the ceiling of the narrow hall
    they measured the length of the field with a rope
    the church bells could be heard from far away
    go straight on and turn left at the second corner
    a thousand stars were shining above the dark mountains
    thank you for the beautiful letter that came this morning
"""


def sentences(vocabulary: Collection[str], own: Path | None = None) -> list[tuple[str, ...]]:
    """The sentences that are read, each as the words of the model.

    Args:
        vocabulary: The words that the model knows.
        own: File with the user's sentences, one a line; None for ours, or for words that are drawn from the model if it
            knows too few of ours.

    Raises:
        CorpusError: The user's file has no sentence, or a word that the model does not know; or it knows none.
    """
    if own is not None:
        return _of_file(own, vocabulary)
    ours = [tuple(normalise(line).split()) for line in OURS.strip().split("\n")]
    fitting = [words for words in ours if set(vocabulary).issuperset(words)]
    return fitting if len(fitting) >= LEAST else _drawn(without_tags(sorted(vocabulary)))


def _of_file(path: Path, vocabulary: Collection[str]) -> list[tuple[str, ...]]:
    of_lines = {number: spoken_words(line, f"{path}:{number}") for number, line in read_lines(path)}
    read = {number: words for number, words in of_lines.items() if words}
    for number, words in read.items():
        if unknown := [word for word in words if word not in vocabulary]:
            raise CorpusError(f"{path}:{number}: the model does not know {', '.join(unknown)}; write another sentence")
    if not read:
        raise CorpusError(f"{path}: no sentence; write one a line")
    return list(read.values())


def _drawn(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Lines of words, each word as often as any other, but for the last round."""
    if not words:
        raise CorpusError("the model knows no word that can be read")
    drawn = _endless(words)
    return [tuple(islice(drawn, WORDS_A_LINE)) for _ in range(SENTENCES)]


def _endless(words: Sequence[str]) -> Iterator[str]:
    chance = random.Random(SEED)
    while True:
        yield from chance.sample(words, len(words))
