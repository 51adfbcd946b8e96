"""Vocal tract length normalisation as an adaptation method: the network chooses each speaker's warp from a list.

On normalised filterbanks a warp of the frequencies is nearly an affine map, the same one for all speakers. The maps are
learned once, from recordings of training speakers (``warp_maps.py``). A speaker gets the map through which the targets
have the smallest cross-entropy, as fDLR minimises it over all maps. Posteriors need no determinant, as the likelihoods
of Gaussians would. One number a speaker cannot learn wrong words by heart, and seconds of speech are enough for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lhuc_asr.adapt.batches import weighted_blocks
from lhuc_asr.adapt.method import ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.prepared import PreparedConfig, prepared_file
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.adapt.warp_maps import UNWARPED, warp_maps
from lhuc_asr.base.errors import CheckpointError, FeatureError
from lhuc_asr.base.numerics import NORM_FLOOR
from lhuc_asr.base.tensors import check_tensors, load_format, save_tensors
from lhuc_asr.features.filterbank import FeatureConfig, SampleRate, compute_features
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.objective import FrameCrossEntropy
from lhuc_asr.nnet.acoustic_model import AcousticModel

WARPS_FILE = "warps.safetensors"
FORMAT = "lhuc_asr warps 1"
REMEDY = "delete it and prepare the method again"
# A speaker's normalised filterbanks differ from those that are computed here by a scale and an offset in each bin, so
# their correlation is 1. Lossy audio decodes a little differently on another machine.
LEAST_CORRELATION = 0.98


class VtlnConfig(PreparedConfig):
    """Options of the search for warps.

    Attributes:
        kind: Name of the method.
        lowest: Lowest warp; a warp below 1 suits a vocal tract that is shorter than the average one.
        highest: Highest warp. The defaults are Kaldi's.
        step: Distance between neighbouring warps.
        min_count: Frames, weighted, that a speaker must have; those who have fewer keep a warp of 1.
        sample_rate: Sample rate of the network's features, hertz; None for the first training recording's.
        training_seconds: Speech of each training speaker that the maps are learned from.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = TransformedSpeakers
    transforms_features: ClassVar[bool] = True
    needs_filterbanks: ClassVar[bool] = True
    not_prepared: ClassVar[frozenset[str]] = frozenset({"min_count"})

    kind: Literal["vtln"] = "vtln"
    lowest: float = Field(0.85, ge=0.5, le=1.0)
    highest: float = Field(1.25, ge=1.0, le=2.0)
    step: float = Field(0.02, ge=0.001, le=0.5)
    min_count: float = Field(100.0, gt=0.0, le=1e9)
    sample_rate: SampleRate | None = None
    training_seconds: float = Field(30.0, gt=0.0, le=1e9)

    @property
    def warps(self) -> tuple[float, ...]:
        """The warps, ascending; 1 is one of them."""
        below, above = (round(span / self.step, 6) for span in (1.0 - self.lowest, self.highest - 1.0))
        return tuple(round(UNWARPED + self.step * number, 6) for number in range(-int(below), int(above) + 1))

    def make(self, folder: Path | None) -> Vtln:
        """The method with these options."""
        return Vtln(self, folder)


class Vtln:
    """VTLN as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the maps.

    Raises:
        ConfigError: The method was made without a folder.
    """

    def __init__(self, config: VtlnConfig, folder: Path | None) -> None:
        self.config = config
        self._path = prepared_file(folder, WARPS_FILE)

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write the map of each warp, learned from the training speakers' recordings.

        Args:
            model: The network; its features must be log mel filterbanks without differences.
            training: The training speakers, with their recordings.
            seed: Without effect.

        Raises:
            CorpusError: The recordings are unknown.
            AudioError: A recording cannot be read.
            FeatureError: The network's features are not filterbanks of these recordings, or a warp leaves a mel bin
                empty.
        """
        heard = {name: data for name, data in training.items() if data.lengths}
        if not heard:
            raise FeatureError(
                f"none of {len(training)} training speakers has a recording; warps are learned from some"
            )
        rate = self.config.sample_rate or next(iter(heard.values())).sample_rate()
        features = FeatureConfig(kind="fbank", bins=model.feature_dimension, sample_rate=rate)
        spoken = (self._spoken(name, data, features) for name, data in heard.items())
        warps = self.config.warps
        save_warps(self._path, warps, warp_maps(spoken, warps, features))

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> TransformedSpeakers:
        """Search the warp of each speaker; nothing is random.

        Speakers who have fewer frames than ``min_count`` stay unadapted, as do those whose cross-entropy is not finite;
        warnings name them.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Without effect.

        Raises:
            AlignmentError: Targets or features do not fit the network.
            CheckpointError: ``prepare`` has not been run, or the file that it wrote is damaged or of other warps.
        """
        transforms = SpeakerTransforms.identity(tuple(speakers), model.feature_dimension)
        maps, short, failed = self._maps(model), [], []
        for matrix, (name, data) in zip(transforms.matrices, speakers.items(), strict=True):
            data.check_fits(name, model)
            if float(data.targets.weight.sum(dtype=float)) < self.config.min_count:
                short.append(name)
                continue
            with frozen(model):
                losses = [cross_entropy(model, name, data, each) for each in maps]
            if np.isfinite(losses).all():
                matrix.copy_(maps[int(np.argmin(losses))])
            else:
                failed.append(name)
        warn_unadapted("their cross-entropy is not finite (check their features)", failed, len(speakers))
        warn_unadapted(f"they have fewer than {self.config.min_count:g} frames", short, len(speakers))
        return TransformedSpeakers(model, transforms)

    def _spoken(self, name: str, data: SpeakerData, features: FeatureConfig) -> list[np.ndarray]:
        """The samples of a training speaker's first recordings, ``training_seconds`` of them or little more."""
        seconds, samples = 0.0, []
        for waveform in data.waveforms(features.sample_rate):
            samples.append(waveform)
            seconds += len(waveform) / features.sample_rate
            if seconds >= self.config.training_seconds:
                break
        _check_filterbanks(name, data, samples, features)
        return samples

    def _maps(self, model: AcousticModel) -> Tensor:
        tensors, _ = load_format(self._path, "the maps of warps", FORMAT)
        dimension, warps = model.feature_dimension, self.config.warps
        check_tensors(
            self._path, tensors, {"maps": (len(warps), dimension, dimension + 1), "warps": (len(warps),)}, REMEDY
        )
        if tensors["warps"].tolist() != list(warps):
            raise CheckpointError(f"{self._path}: it has other warps than {warps[0]} to {warps[-1]}; {REMEDY}")
        return tensors["maps"]


def save_warps(path: Path, warps: Sequence[float], maps: Tensor) -> None:
    """Write V warps and their maps (V, D, D + 1), whole or not at all."""
    save_tensors(path, {"maps": maps, "warps": torch.tensor(warps, dtype=torch.float64)}, {"format": FORMAT})


def cross_entropy(model: AcousticModel, name: str, data: SpeakerData, transform: Tensor) -> float:
    """Sum over a speaker's frames, weighted, of their cross-entropy after a transform of the features, in nats.

    Args:
        model: The network, in evaluation mode.
        name: The speaker's name, for messages.
        data: The speaker's data.
        transform: W, shape (D, D + 1), float64.

    Raises:
        AlignmentError: Targets or features do not fit the network.
    """
    speaker = SpeakerTransforms((name,), transform.unsqueeze(0))
    moved = speaker.apply(torch.from_numpy(np.array(data.features)), [len(data.features)], [name])
    targets, objective, total = data.targets.tensors(), FrameCrossEntropy(), 0.0
    with torch.inference_mode():
        for rows, spliced in weighted_blocks(name, replace(data, features=moved.numpy()), model):
            total += float(objective(model(spliced), targets.select(rows).to(spliced.device)))
    return total


def _check_filterbanks(name: str, data: SpeakerData, samples: list[np.ndarray], features: FeatureConfig) -> None:
    """Refuse features that are not filterbanks of these recordings, normalised by a scale and an offset a bin."""
    computed = np.concatenate([compute_features(each, features) for each in samples])
    given = data.features[: len(computed)]
    least = -1.0
    if len(given) == len(computed):
        centred = [values - values.mean(0) for values in (computed.astype(float), given.astype(float))]
        lengths = [np.sqrt((values**2).sum(0)).clip(NORM_FLOOR) for values in centred]
        least = float(((centred[0] * centred[1]).sum(0) / (lengths[0] * lengths[1])).min())
    if least < LEAST_CORRELATION:
        raise FeatureError(
            f"speaker {name!r}: the network's {features.dimension} features are not the log mel filterbanks of the "
            f"recordings at {features.sample_rate} Hz, which vtln warps (correlation {least:.3f}); use a network on "
            "filterbanks without differences, or give sample_rate"
        )
