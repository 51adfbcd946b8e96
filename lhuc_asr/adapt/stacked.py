"""A method on top of one that changes features: it adapts to the changed features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.ivector import VectorSpeakers
from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, speaker_of_each
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import ChangedFeatures, TransformedSpeakers
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel

# Name, in a speaker's file of the method above, of what is below: a transform, a vector.
BELOW = {f"below.{kind.below}": kind for kind in (TransformedSpeakers, VectorSpeakers)}


@dataclass(frozen=True)
class Stacked:
    """The parameters of two methods, the one that changes features below; an ``AdaptedSpeakers``.

    Its files are those of the method above, with the transform or the vector below as an extra tensor.

    Attributes:
        below: The speakers whose features change.
        above: The same speakers' parameters of the other method.
        pools_below: Whether ``pooled`` takes the mean of the transforms, or vectors, too.
    """

    below: ChangedFeatures
    above: AdaptedSpeakers
    pools_below: bool = False

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return self.above.speakers

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances, the features of each changed for its speaker, as the method above scores them.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        names = speaker_of_each(speakers, utterances)
        moved = [self.below.transformed(name, each) for name, each in zip(names, utterances, strict=True)]
        return self.above.log_likelihoods(names, moved)

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Stacked:
        """The control of the method above, on the speakers' own transforms or vectors, unless ``pools_below``.

        Only a gain over it is the upper method's own.

        Raises:
            SpeakerError: A speaker is unknown, or ``over`` is empty.
        """
        below = self.below.pooled(speakers, over) if self.pools_below else self.below
        return replace(self, below=below, above=self.above.pooled(speakers, over))

    def unadapted(self) -> Stacked:
        """The speakers with unadapted features, or the vector of nobody, below unadapted parameters."""
        return replace(self, below=self.below.unadapted(), above=self.above.unadapted())

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker."""
        self.above.save(folder)
        for name in self.speakers:
            self.save_speaker(name, folder / f"{name}.safetensors", {})

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""
        self.above.save_speaker(speaker, path, {**extras, f"below.{self.below.below}": self.below.of(speaker)})


@dataclass(frozen=True)
class StackedMethod:
    """A method that adapts to features that an earlier pass has changed: by transforms, or by vectors beside them.

    Attributes:
        below: The speakers whose features change.
        method: The method above.
    """

    below: ChangedFeatures
    method: AdaptationMethod

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Stacked:
        """Estimate the parameters of the method above from changed features; arguments as ``AdaptationMethod``.

        Raises:
            SpeakerError: A speaker has no transform, or no vector.
        """
        moved = {
            name: replace(data, features=self.below.transformed(name, data.features)) for name, data in speakers.items()
        }
        return Stacked(self.below, self.method.estimate(model, moved, seed))


def below_in(tensors: Collection[str]) -> str | None:
    """What a speaker's file has below its method, given the names of its tensors: "transform", "vector", or None."""
    return next((kind.below for name, kind in BELOW.items() if name in tensors), None)


def on_changed_features(above: AdaptedSpeakers, model: AcousticModel, paths: Sequence[Path]) -> AdaptedSpeakers:
    """Speakers whose files were read, with the transforms or vectors below them in these files, if they have any.

    Args:
        above: The speakers as their own method reads them.
        model: The network that they belong to.
        paths: The files; that of a speaker-independent row has nothing below.

    Raises:
        CheckpointError: A transform or a vector is damaged, or some speakers have one and others do not.
    """
    own: dict[str, dict[str, torch.Tensor]] = {}
    without: list[Path] = []
    for path in paths:
        tensors, description = load_tensors(path, "adapt the speaker again")
        name = next((each for each in BELOW if each in tensors), None)
        if name is None:
            without += [path] if description["speaker"] else []
            continue
        checked = BELOW[name].checked(path, model, name, tensors[name])
        own.setdefault(name, {})[description["speaker"]] = checked
    if not own:
        return above
    name, theirs = next(iter(own.items()))
    if without:
        raise CheckpointError(
            f"{without[0]}: has no {BELOW[name].below} below its method (speakers that have one: {len(theirs)}); adapt "
            "all of these speakers by the same method"
        )
    if len(own) > 1:
        raise CheckpointError(
            f"{paths[0].parent}: some speakers have a transform below their method, others a vector; adapt all of "
            "these speakers by the same method"
        )
    return Stacked(BELOW[name].having(model, {speaker: theirs[speaker] for speaker in above.speakers}), above)
