"""What recordings are decoded with: a pass of the model, and a person's parameters.

Without a person, statistics and transforms of features, and the vector beside them, are those of all recordings
together. All else that adapts needs a person to be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.two_pass import Scores
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.recognizer.learning import Learning
from lhuc_asr.recognizer.loaded_model import LoadedModel
from lhuc_asr.recognizer.pass_description import PassDescription
from lhuc_asr.recognizer.passes import Passes
from lhuc_asr.recognizer.recordings import OnBad
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.speech import CutRecording, Speech, read_speech, speech_statistics

# Name of a person of whom nothing is known, in messages.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Decoding:
    """What recordings are decoded with.

    Attributes:
        plan: The pass.
        cmvn: Mean and deviation of the features.
        speaker: Name of the person in ``adapted``.
        adapted: The person's parameters; None for an unadapted model.
    """

    plan: PassDescription
    cmvn: Cmvn
    speaker: str = UNKNOWN
    adapted: AdaptedSpeakers | None = None

    def read(self, recording: CutRecording) -> Speech:
        """The pieces of a recording, which has one at least.

        Raises:
            AudioError: The recording is damaged.
        """
        return read_speech([recording], self.speaker, {self.plan.features: self.cmvn})

    def scores(self, model: LoadedModel, speech: Speech) -> Iterator[Scores]:
        """The scores of all pieces."""
        loop = model.loop(self.plan, speech)
        if self.adapted is None:
            return loop.first_pass()
        return loop.second_pass(self.adapted, model.sets(loop.features))


def decoding_by(model: LoadedModel, person: Speaker | None) -> Decoding | None:
    """What a person's recordings are decoded with; None if that depends on all recordings together."""
    if person is None or person.cmvn is None:
        return None
    return Decoding(model.description.with_speaker, person.cmvn, person.name, person.adapted)


def live_decoding(
    model: LoadedModel, person: Speaker | None, learning: Learning | None = None
) -> tuple[Decoding, bool]:
    """What speech is decoded with as it comes, and whether the statistics of its features are known.

    An unknown person's speech is decoded without any adaptation that would need all of it.

    Args:
        model: The model.
        person: The person; None for an unknown one.
        learning: The person's parameters, if they go on with each piece.
    """
    if learning is not None:
        cmvn = None if person is None else person.cmvn
        person = Speaker(learning.name, model.description.network, learning.adapted, cmvn)
    description = model.description
    if (decoding := decoding_by(model, person)) is not None:
        return decoding, True
    unknown = Cmvn(np.zeros(description.features.dimension), np.ones(description.features.dimension))
    if person is not None:
        return Decoding(description.with_speaker, unknown, person.name, person.adapted), False
    first = description.chain(description.named(description.without_speaker))[0]
    return Decoding(first, unknown), False


def decoding_of(
    model: LoadedModel,
    person: Speaker | None,
    recordings: Sequence[CutRecording],
    transcripts: Mapping[str, Sequence[str]] | None = None,
    on_bad: OnBad = None,
) -> tuple[Decoding | None, list[CutRecording]]:
    """What recordings are decoded with that are all of one person, whose features' statistics are not known.

    Args:
        model: The model.
        person: The person; None for an unknown one.
        recordings: All recordings.
        transcripts: Words of each recording as the lexicon spells them; None for those of searches.
        on_bad: What happens to recordings that are damaged.

    Returns:
        None if no recording contains speech; and the recordings that are not damaged.

    Raises:
        AudioError: A recording is damaged, and ``on_bad`` is None.
    """
    description = model.description
    plan = description.named(description.without_speaker) if person is None else description.with_speaker
    chain = description.chain(plan) if person is None else [plan]
    cmvn, kept = speech_statistics(recordings, {each.features for each in chain}, on_bad=on_bad)
    if cmvn is None:
        return None, kept
    if person is not None:
        return Decoding(plan, cmvn[plan.features], person.name, person.adapted), kept
    if plan.method is None:
        return Decoding(plan, cmvn[plan.features]), kept
    speech = read_speech(kept, UNKNOWN, cmvn)
    passes = Passes(model, speech, model.pool, transcripts, lambda _: None)  # told when they are decoded
    return Decoding(plan, cmvn[plan.features], UNKNOWN, passes[plan.name].adapted), kept
