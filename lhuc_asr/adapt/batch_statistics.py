"""Statistics of the hidden units matched to those of the training speakers, in closed form; targets only give weights.

    z'_j = sigma_j (z_j - m_j^s) / sigma_j^s + m_j

z_j is a unit's output before its non-linearity, with mean m_j and standard deviation sigma_j over the frames of the
training speakers, and m_j^s, sigma_j^s over the speaker's, each frame by its target's weight. In a network with batch
normalisation this is to replace its statistics by the speaker's (Li et al. 2018, "Adaptive batch normalization for
practical domain adaptation"); here it serves networks without, too, and after layer normalisation. The maps are
computed layer by layer from the bottom, on what the layers below have become. Pseudo-frames with the training speakers'
statistics hold them back where there is little speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lhuc_asr.adapt.batches import weighted_blocks
from lhuc_asr.adapt.method import warn_unadapted
from lhuc_asr.adapt.moved import Move, MovedSpeakers, Numbers
from lhuc_asr.adapt.prepared import PreparedConfig, check_frames, load_prepared, prepared_file, write_activations
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.numerics import UNIT_VARIANCE_FLOOR
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.feed_forward import FeedForward

STATISTICS_FILE = "statistics.safetensors"


class Standardised(Move):
    """A scale and an offset of each hidden unit before its non-linearity."""

    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """Scales of 1 and no offsets; see ``Move``."""
        scales = {f"scale.{layer}": torch.ones(width) for layer, width in enumerate(network.widths)}
        return scales | {f"offset.{layer}": torch.zeros(width) for layer, width in enumerate(network.widths)}

    def activated(self, own: Numbers, layer: int, network: FeedForward, outputs: Tensor) -> Tensor:
        """The activations of scaled and shifted outputs; layer normalisation comes before; see ``Move``."""
        scale, offset = (own[f"{part}.{layer}"].unsqueeze(1) for part in ("scale", "offset"))
        return network.activation(torch.addcmul(offset, network.normalised(layer, outputs), scale))


class StandardisedSpeakers(MovedSpeakers):
    """Speakers with a scale and an offset of each hidden unit."""

    format: ClassVar[str] = "lhuc_asr batch statistics speaker 1"
    moves: ClassVar[type[Move]] = Standardised


class BatchStatisticsConfig(PreparedConfig):
    """Options of the matching.

    Attributes:
        kind: Name of the method.
        prior_frames: Number of pseudo-frames with the training speakers' statistics.
    """

    speakers: ClassVar[type[MovedSpeakers]] = StandardisedSpeakers
    not_prepared: ClassVar[frozenset[str]] = frozenset({"prior_frames"})

    kind: Literal["batch_statistics"] = "batch_statistics"
    prior_frames: float = Field(1000.0, gt=0.0, le=1e12)

    def make(self, folder: Path | None) -> BatchStatistics:
        """The method with these options."""
        return BatchStatistics(self, folder)


class BatchStatistics:
    """Matched statistics as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the training speakers' statistics.

    Raises:
        ConfigError: The method was made without a folder.
    """

    def __init__(self, config: BatchStatisticsConfig, folder: Path | None) -> None:
        self.config = config
        self._path = prepared_file(folder, STATISTICS_FILE)

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write mean and variance of every hidden unit over the training speakers' frames, weighted as these are.

        Args:
            model: The network; it comes back unchanged.
            training: The training speakers.
            seed: Without effect.

        Raises:
            SiteError: It is not a feed-forward network.
            AlignmentError: Targets or features do not fit the network, all frames have weight 0, or activations are
                not finite.
        """
        network = model.feed_forward()
        sums = [_Sums(network, layer) for layer in range(len(network.widths))]
        for name, data in training.items():
            weights = torch.from_numpy(data.targets.weight).to(network.device)
            for rows, hidden in weighted_blocks(name, data, model):
                for layer, total in enumerate(sums):
                    outputs = _outputs(network, layer, hidden)
                    total.add(outputs, weights[rows])
                    hidden = network.activation(outputs)
        check_frames(sums[0].count, len(training))
        tensors: dict[str, Tensor] = {}
        for layer, total in enumerate(sums):
            mean, variance = total.moments()
            tensors |= {f"mean.{layer}": mean.float(), f"variance.{layer}": variance.float()}
        write_activations(self._path, model, tensors)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> StandardisedSpeakers:
        """Match the statistics of each speaker; nothing is random.

        A speaker whose frames all have weight 0 stays unadapted. So does a speaker whose activations are not finite; a
        warning names them.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Without effect.

        Raises:
            SiteError: It is not a feed-forward network.
            AlignmentError: Targets or features do not fit the network.
            CheckpointError: ``prepare`` has not been run, or the file that it wrote is damaged.
            ModelMismatchError: ``prepare`` was run with another network.
        """
        network, move = model.feed_forward(), Standardised()
        start = {part: values.to(network.device) for part, values in move.start(network, seed).items()}
        kinds = ("mean", "variance")
        shapes = {f"{kind}.{layer}": (width,) for layer, width in enumerate(network.widths) for kind in kinds}
        learned = load_prepared(self._path, model, {}, shapes)
        learned = {name: values.to(network.device) for name, values in learned.items()}
        numbers: dict[str, Numbers] = {}
        failed = []
        for name, data in speakers.items():
            own = self._matched(model, network, name, data, learned)
            if not all(bool(values.isfinite().all()) for values in own.values()):
                failed.append(name)
            numbers[name] = start if name in failed or not own else own
        warn_unadapted("their activations are not finite (check their features)", failed, len(speakers))
        return StandardisedSpeakers(model, move, numbers)

    def _matched(
        self, model: AcousticModel, network: FeedForward, name: str, data: SpeakerData, learned: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Scales and offsets of a speaker; none without a frame that counts."""
        weights = torch.from_numpy(data.targets.weight).to(network.device)
        blocks = [(weights[rows], spliced) for rows, spliced in weighted_blocks(name, data, model)]
        own: dict[str, Tensor] = {}
        for layer in range(len(network.widths) if blocks else 0):
            mean, variance = (learned[f"{kind}.{layer}"].double() for kind in ("mean", "variance"))
            total = _Sums(network, layer)
            total.add_pseudo(self.config.prior_frames, mean, variance)
            outputs = [(each, _outputs(network, layer, hidden)) for each, hidden in blocks]
            for each, block in outputs:
                total.add(block, each)
            own_mean, own_variance = total.moments()
            scale = (variance.clamp(min=UNIT_VARIANCE_FLOOR) / own_variance).sqrt()
            offset = mean - scale * own_mean
            own |= {f"scale.{layer}": scale.float(), f"offset.{layer}": offset.float()}
            moved = ((each, torch.addcmul(offset.float(), block, scale.float())) for each, block in outputs)
            blocks = [(each, network.activation(block)) for each, block in moved]
        return own


def _outputs(network: FeedForward, layer: int, below: Tensor) -> Tensor:
    """Inputs (B P, H) of a hidden layer's non-linearity."""
    return network.normalised(layer, functional.linear(network.arranged(layer, below), *network.affine[layer]))


class _Sums:
    """Weighted sums over frames of a layer's outputs, in float64."""

    def __init__(self, network: FeedForward, layer: int) -> None:
        self.count = 0.0
        width, self._positions = network.widths[layer], network.positions[layer]
        self._first, self._second = (torch.zeros(width, dtype=torch.float64, device=network.device) for _ in range(2))

    def add(self, outputs: Tensor, weights: Tensor) -> None:
        """Add outputs (B P, H) of frames with weights (B,); the positions of a frame share its weight."""
        self.count += float(weights.sum(dtype=torch.float64))
        each, values = weights.double(), outputs.double().unflatten(0, (len(weights), self._positions))  # (B, P, H)
        self._first += each @ values.mean(1)
        self._second += each @ values.square().mean(1)

    def add_pseudo(self, count: float, mean: Tensor, variance: Tensor) -> None:
        """Add pseudo-frames with a mean and a variance (H,)."""
        self.count += count
        self._first += count * mean
        self._second += count * (variance + mean.square())

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each unit, shapes (H,); a variance is at least its floor."""
        mean = self._first / self.count
        variance = (self._second / self.count - mean.square()).clamp(min=UNIT_VARIANCE_FLOOR)
        return mean, variance
