"""A batch of recordings: what the model takes, whose each recording is, and what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.objective import Targets
from lhuc_asr.lhuc.perturbation import Perturbation
from lhuc_asr.lhuc.probe import Example, mapped, values


@dataclass(frozen=True)
class Batch:
    """Some recordings, which go through the model together.

    Attributes:
        inputs: What the model takes: a tensor, a tuple of arguments, or a mapping of arguments by name. The first
            floating tensor is the recordings, shape (B, T, ...).
        speakers: The speaker of each recording, B names.
        lengths: Number of valid frames of each output, shape (B,), int64; None without padding.
        input_lengths: Number of valid positions of each recording along the second axis of the input, shape (B,); None
            without padding, which perturbations never see.
        targets: What the objective takes; None for objectives that make it themselves.

    Raises:
        ConfigError: Lengths or targets are not as many as speakers, input lengths are beyond the input, or the inputs
            hold no floating tensor (B, ...).
    """

    inputs: Example
    speakers: Sequence[str]
    lengths: Tensor | None = None
    input_lengths: Tensor | None = None
    targets: Targets | None = None

    def __post_init__(self) -> None:
        count = len(self.speakers)
        if isinstance(self.speakers, str) or not count:
            raise ConfigError(f"batch: expected a speaker for each recording, found {self.speakers!r}; pass a list")
        if not isinstance(self.targets, Targets | None):
            raise ConfigError(
                f"batch: targets= is a {type(self.targets).__name__}; pass Labels.padded(transcripts, lengths)"
            )
        for name in ("lengths", "input_lengths", "targets"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise ConfigError(f"batch: {len(value)} {name} for {count} speakers; pass one for each recording")
        lead = self.recordings
        if self.input_lengths is not None and lead.dim() > 1 and int(self.input_lengths.max()) > lead.shape[1]:
            raise ConfigError(
                f"batch: input_lengths= says {int(self.input_lengths.max())}, but the recordings have {lead.shape[1]} "
                "positions; input_lengths= counts positions of the input, lengths= frames of the output"
            )
        if lead.dim() < 2 or len(lead) != count:
            raise ConfigError(
                f"batch: the recordings have shape {tuple(lead.shape)}, expected ({count}, T, ...) for {count} "
                "speakers; put the batch first"
            )

    def __len__(self) -> int:
        """Number of recordings, B."""
        return len(self.speakers)

    @property
    def recordings(self) -> Tensor:
        """The first floating tensor of the inputs, shape (B, T, ...)."""
        for value in values(self.inputs):
            if isinstance(value, Tensor) and value.is_floating_point():
                return value
        raise ConfigError("batch: no argument of the model is a tensor of floating-point numbers; pass the recordings")

    def perturbed(self, perturb: Perturbation, seeds: Sequence[int]) -> Batch:
        """The batch with each recording perturbed.

        Args:
            perturb: The perturbation.
            seeds: A seed for each recording.

        Raises:
            ConfigError: The perturbation changes a recording's shape.
        """
        lead = self.recordings
        changed = lead.clone()
        ends = [lead.shape[1]] * len(self) if self.input_lengths is None else self.input_lengths.tolist()
        for element, (end, seed) in enumerate(zip(ends, seeds, strict=True)):
            recording = lead[element, :end]
            other = perturb(recording, torch.Generator().manual_seed(seed))
            if other.shape != recording.shape:
                raise ConfigError(
                    f"perturb: expected a recording of shape {tuple(recording.shape)}, found {tuple(other.shape)}; it "
                    "must keep the shape"
                )
            changed[element, :end] = other
        return replace(self, inputs=mapped(self.inputs, lambda value: changed if value is lead else value))


def recording_seed(seed: int, speaker: str, number: int, draw: str) -> int:
    """The seed of what is drawn for one recording: it does not depend on who else is in the batch.

    Args:
        seed: The seed of all.
        speaker: The speaker.
        number: The recording's number among the speaker's.
        draw: What is drawn.
    """
    digest = hashlib.sha256(f"{seed} {number} {draw} {speaker}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
