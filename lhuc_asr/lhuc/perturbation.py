"""Perturbations: a recording made a little worse, whose words should stay the same.

A perturbation is a function from one recording without padding, (T, D) or (T,), and a generator to a tensor of the same
shape. What is drawn for a recording depends on the seed, its speaker and its number among the speaker's recordings
alone, not on the batch that it is in.

Source of the masks: D. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition",
Interspeech 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lhuc_asr.base.errors import ConfigError

# A recording, shape (T, D) or (T,), and a generator on the CPU -> a recording of the same shape.
Perturbation = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class SpecAugment:
    """Masks over stretches of time and over bands of features, filled with the recording's mean (no time warping).

    Attributes:
        time_masks: Number of stretches of time.
        longest: Longest stretch, as a share of the recording.
        band_masks: Number of bands.
        widest: Widest band, as a share of the features.
        time_axis: The axis of a recording that counts time: 0 for (T, D), 1 for (D, T).

    Raises:
        ConfigError: An option is outside its range.
    """

    time_masks: int = 2
    longest: float = 0.1
    band_masks: int = 1
    widest: float = 0.25
    time_axis: int = 0

    def __post_init__(self) -> None:
        shares = 0.0 <= self.longest <= 1.0 and 0.0 <= self.widest <= 1.0
        if not shares or min(self.time_masks, self.band_masks) < 0 or self.time_axis not in (0, 1):
            raise ConfigError(
                f"{self}: expected numbers of masks of 0 or more, shares between 0 and 1, time_axis 0 or 1"
            )

    def __call__(self, recording: Tensor, generator: torch.Generator) -> Tensor:
        """A masked copy.

        Args:
            recording: Features, shape (T, D), or (D, T) with ``time_axis`` 1.
            generator: Generator of the places and widths, on the CPU.

        Raises:
            ConfigError: The recording has not two axes, as a waveform has not.
        """
        if recording.dim() != 2:
            raise ConfigError(
                f"SpecAugment masks features of shape (T, D), found a recording of shape {tuple(recording.shape)}; "
                "pass perturb=: Noise() for waveforms, or a function of a recording and a generator"
            )
        mean = recording.mean(self.time_axis, keepdim=True)
        masked = torch.zeros(recording.shape, dtype=torch.bool)
        for axis, count, share in (
            (self.time_axis, self.time_masks, self.longest),
            (1 - self.time_axis, self.band_masks, self.widest),
        ):
            for _ in range(count):
                start, width = _stretch(recording.shape[axis], share, generator)
                masked.narrow(axis, start, width).fill_(True)
        return torch.where(masked.to(recording.device), mean, recording)


@dataclass(frozen=True)
class Noise:
    """White noise, for waveforms or features.

    Attributes:
        decibels: Signal-to-noise ratio: the recording's variance, of each feature over time, over the noise's.
    """

    decibels: float = 20.0

    def __call__(self, recording: Tensor, generator: torch.Generator) -> Tensor:
        """A noisy copy.

        Args:
            recording: Shape (T,) or (T, D).
            generator: Generator of the noise, on the CPU.
        """
        noise = torch.randn(recording.shape, generator=generator).to(recording)
        deviation = recording.std(0, correction=0, keepdim=True)
        noisy: Tensor = recording + noise * deviation * 10.0 ** (-self.decibels / 20.0)
        return noisy


def _stretch(length: int, share: float, generator: torch.Generator) -> tuple[int, int]:
    """A start and a width, drawn evenly from 0 to ``share`` of a length, at least one element in a mask that may be."""
    widest = min(length, max(1, round(share * length))) if share else 0
    width = int(torch.randint(widest + 1, (1,), generator=generator))
    return int(torch.randint(length - width + 1, (1,), generator=generator)), width
