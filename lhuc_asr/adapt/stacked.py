"""A method on top of a transform of the features: it adapts to what each speaker's transform has moved already."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.method import AdaptationMethod, AdaptedSpeakers, speaker_of_each
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms, checked_transform
from lhuc_asr.nnet.acoustic_model import AcousticModel

# In a speaker's file of the method above: the transform below.
TRANSFORM = "below.transform"


@dataclass(frozen=True)
class Stacked:
    """The parameters of two methods, transforms below; an ``AdaptedSpeakers``.

    Its files are those of the method above, with the transform as an extra tensor.

    Attributes:
        below: The speakers' transforms.
        above: The same speakers' parameters of the other method.
        pools_below: Whether ``pooled`` takes the mean of the transforms too.
    """

    below: TransformedSpeakers
    above: AdaptedSpeakers
    pools_below: bool = False

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return self.above.speakers

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances, each transformed for its speaker and scored as above.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        names = speaker_of_each(speakers, utterances)
        moved = [self.below.transformed(name, each) for name, each in zip(names, utterances, strict=True)]
        return self.above.log_likelihoods(names, moved)

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Stacked:
        """The control of the method above, on the speakers' own transforms, unless ``pools_below``.

        Only a gain over it is the upper method's own.

        Raises:
            SpeakerError: A speaker is unknown, or ``over`` is empty.
        """
        below = self.below.pooled(speakers, over) if self.pools_below else self.below
        return replace(self, below=below, above=self.above.pooled(speakers, over))

    def unadapted(self) -> Stacked:
        """The speakers without transforms and without parameters of the method above; see ``AdaptedSpeakers``."""
        return replace(self, below=self.below.unadapted(), above=self.above.unadapted())

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker."""
        self.above.save(folder)
        for name in self.speakers:
            self.save_speaker(name, folder / f"{name}.safetensors", {})

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""
        transform = self.below.transforms.of(speaker)
        self.above.save_speaker(speaker, path, {**extras, TRANSFORM: transform})


@dataclass(frozen=True)
class StackedMethod:
    """A method on top of transforms that an earlier pass estimated.

    Attributes:
        below: The speakers' transforms.
        method: The method above.
    """

    below: TransformedSpeakers
    method: AdaptationMethod

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Stacked:
        """Estimate the parameters of the method above from transformed features; arguments as ``AdaptationMethod``.

        Raises:
            SpeakerError: A speaker has no transform.
        """
        moved = {
            name: replace(data, features=self.below.transformed(name, data.features)) for name, data in speakers.items()
        }
        return Stacked(self.below, self.method.estimate(model, moved, seed))


def with_transforms(above: AdaptedSpeakers, model: AcousticModel, paths: Sequence[Path]) -> AdaptedSpeakers:
    """Speakers whose files were read, with the transforms in these files, if they have any.

    Args:
        above: The speakers as their own method reads them.
        model: The network that they belong to.
        paths: The files; that of a speaker-independent row has no transform.

    Raises:
        CheckpointError: A transform is damaged, or some speakers have one and others do not.
    """
    transforms: dict[str, torch.Tensor] = {}
    without: list[Path] = []
    for path in paths:
        tensors, description = load_tensors(path, "adapt the speaker again")
        if TRANSFORM not in tensors:
            without += [path] if description["speaker"] else []
            continue
        transform = checked_transform(path, {TRANSFORM: tensors[TRANSFORM]}, TRANSFORM, model.feature_dimension)
        transforms[description["speaker"]] = transform
    if not transforms:
        return above
    if without:
        raise CheckpointError(
            f"{without[0]}: has no transform of the features, and {len(transforms)} other speakers have; adapt all of "
            "these speakers by the same method"
        )
    below = SpeakerTransforms(above.speakers, torch.stack([transforms[name] for name in above.speakers]))
    return Stacked(TransformedSpeakers(model, below), above)
