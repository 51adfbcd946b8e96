"""Affine feature transforms of speakers, y = A x + b = W [x; 1]: applied, composed, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError, TransformError
from lhuc_asr.base.tensors import check_tensors, load_format, save_tensors

# What a file says of itself.
FORMAT = "lhuc_asr speaker transform 1"
# Bound of what fMLLR does to a voice: of the singular values, their inverses and the offsets. The singular values of
# 133 speakers of AN4 and LibriSpeech are between 0.39 and 2.06, their offsets at most 1.6.
FARTHEST_OF_A_VOICE = 20.0
# Bound of what any transform does to features: of the largest singular value, its inverse and the offsets. The smallest
# has no bound: a warp that leaves the band's end empty makes a map that is all but singular.
FARTHEST = 1e3


def compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """The transform that applies ``inner`` first, then ``outer``; both of shape (..., D, D + 1)."""
    composed = outer[..., :-1] @ inner
    composed[..., -1] += outer[..., -1]
    return composed


def far_from_voices(transforms: torch.Tensor) -> torch.Tensor:
    """Whether transforms do more to some direction of the features than fMLLR does for any voice, shape (S,), bool.

    Args:
        transforms: W of S speakers, shape (S, D, D + 1), finite.
    """
    scales = torch.linalg.svdvals(transforms[..., :-1])
    return ~_near(torch.cat([scales, scales.reciprocal(), transforms[..., -1].abs()], dim=1), FARTHEST_OF_A_VOICE)


def damaged(transforms: torch.Tensor) -> torch.Tensor:
    """Whether transforms are singular, or scale or move all features beyond sense; arguments as above, shape (S,)."""
    largest = torch.linalg.svdvals(transforms[..., :-1])[:, :1]
    near = _near(torch.cat([largest, largest.reciprocal(), transforms[..., -1].abs()], dim=1), FARTHEST)
    singular: torch.Tensor = torch.linalg.slogdet(transforms[..., :-1]).sign == 0
    return singular | ~near


def _near(sizes: torch.Tensor, bound: float) -> torch.Tensor:
    return (sizes <= bound).all(1)


@dataclass(frozen=True)
class SpeakerTransforms:
    """Transforms of S speakers.

    Attributes:
        names: Name of each speaker.
        matrices: W of each speaker, shape (S, D, D + 1), float64.
    """

    names: tuple[str, ...]
    matrices: torch.Tensor

    @classmethod
    def identity(cls, names: Sequence[str], dimension: int) -> SpeakerTransforms:
        """The transforms that change nothing."""
        unit = torch.eye(dimension, dimension + 1, dtype=torch.float64)
        return cls(tuple(names), unit.repeat(len(names), 1, 1))

    def __add__(self, other: SpeakerTransforms) -> SpeakerTransforms:
        """The transforms of both, whose speakers are others."""
        return SpeakerTransforms(self.names + other.names, torch.cat([self.matrices, other.matrices]))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def of(self, name: str) -> torch.Tensor:
        """W of a speaker, shape (D, D + 1).

        Raises:
            SpeakerError: The speaker has none.
        """
        if name not in self._places:
            raise SpeakerError(
                f"speaker {name!r} has no transform of the features (speakers that have one: {len(self.names)}); "
                "estimate it first"
            )
        return self.matrices[self._places[name]]

    def after(self, earlier: SpeakerTransforms) -> SpeakerTransforms:
        """The transforms that apply these on top of those that were estimated earlier.

        Raises:
            SpeakerError: A speaker has no earlier transform.
        """
        inner = torch.stack([earlier.of(name) for name in self.names])
        return SpeakerTransforms(self.names, compose(self.matrices, inner))

    def apply(self, features: torch.Tensor, lengths: Sequence[int], speakers: Sequence[str]) -> torch.Tensor:
        """Transform a block of utterances.

        Args:
            features: Utterances one after the other, shape (T, D), float32.
            lengths: Number of frames of each utterance.
            speakers: Speaker of each utterance.

        Returns:
            Shape (T, D), float32.

        Raises:
            SpeakerError: A speaker has no transform.
            TransformError: The features are of another dimension.
        """
        if features.shape[1] != self.matrices.shape[1]:
            raise TransformError(
                f"transforms of {self.matrices.shape[1]} features cannot be applied to {features.shape[1]}; "
                "estimate them in this feature space"
            )
        transformed = torch.empty_like(features)
        for rows, result, speaker in zip(
            features.split(list(lengths)), transformed.split(list(lengths)), speakers, strict=True
        ):
            transform = self.of(speaker).float()
            torch.addmm(transform[:, -1], rows, transform[:, :-1].T, out=result)
        return transformed

    def save(self, path: Path, name: str, model: str, extras: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a speaker's transform as safetensors.

        Args:
            path: The file.
            name: The speaker.
            model: What identifies the model that it was estimated with.
            extras: Extra tensors, by name; None for none.

        Raises:
            SpeakerError: The speaker has none.
        """
        description = {"format": FORMAT, "speaker": name, "model": model, "extras": sorted(extras or {})}
        save_tensors(path, {"transform": self.of(name), **(extras or {})}, description)

    @classmethod
    def load(cls, path: Path, dimension: int, is_model: Callable[[str], bool]) -> SpeakerTransforms:
        """Read a speaker's transform.

        Args:
            path: A file that ``save`` wrote.
            dimension: Number of features that it must have, D.
            is_model: Whether what the file names as its model is the one that it must have been estimated with.

        Raises:
            CheckpointError: The file is missing, damaged, or does not fit the features.
            ModelMismatchError: It was estimated with another model.
        """
        tensors, description = load_format(path, "a file of a speaker's transform", FORMAT)
        name, written_for = (description.get(key) for key in ("speaker", "model"))
        if not isinstance(name, str) or not isinstance(written_for, str):
            raise CheckpointError(f"{path}: its description lacks the speaker or the model; estimate it again")
        if not is_model(written_for):
            raise ModelMismatchError(
                f"{path}: the transform of {name!r} was estimated with another model, {written_for[:12]}; estimate it "
                "again"
            )
        extras = description.get("extras", [])
        tensors = {key: value for key, value in tensors.items() if not isinstance(extras, list) or key not in extras}
        return cls((name,), checked_transform(path, tensors, "transform", dimension).unsqueeze(0))


def checked_transform(path: Path, tensors: Mapping[str, torch.Tensor], name: str, dimension: int) -> torch.Tensor:
    """The transform in a file, shape (D, D + 1), float64.

    Args:
        path: The file, for messages.
        tensors: Its tensors: the transform alone.
        name: Name of the transform's tensor.
        dimension: Number of features that it must have, D.

    Raises:
        CheckpointError: The transform is missing, singular, beyond sense, or does not fit the features.
    """
    check_tensors(path, tensors, {name: (dimension, dimension + 1)}, "estimate it again")
    transform = tensors[name].double()
    if bool(damaged(transform.unsqueeze(0))):
        raise CheckpointError(f"{path}: its transform is singular or damaged; copy it again, or estimate it again")
    return transform
