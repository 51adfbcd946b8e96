"""Amplitudes by matching moments: a closed form, without a step size and without backpropagation.

A unit that is more active than expected from the speaker's words is turned down, and a less active one is turned up.
``prepare`` computes over the training speakers, aligned to their references, the mean activation of each unit j given
each pdf k, E[h_j | k], and the mean over all frames, m_j. For a speaker with targets q_tk and weights w_t, the
amplitudes are

    xi_j = (sum_t w_t sum_k q_tk E[h_j | k] + tau m_j) / (sum_t w_t h_j(t) + tau m_j)

They are computed layer by layer from the bottom, with h_j(t) already scaled by the amplitudes below: a layer corrects
only what the layers below it have left. tau (``prior_frames``) is a number of pseudo-frames with mean activation; it
keeps xi near 1 if there is little data. The targets enter only as counts of pdfs. A wrong target does harm only as far
as it changes these counts.

Activations must be 0 or more, as those of sigmoid and ReLU are. Otherwise a ratio of means is not a scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from lhuc_asr.adapt.amplitudes import Amplitudes, Layers, new_bank
from lhuc_asr.adapt.batches import weighted_blocks
from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import InnerLhucConfig
from lhuc_asr.adapt.method import ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.prepared import PreparedConfig, check_frames, load_prepared, prepared_file, write_activations
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.tensors import Shape
from lhuc_asr.lhuc.amplitude import AmplitudeName
from lhuc_asr.lhuc.attach import find_sites
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.nnet.acoustic_model import AcousticModel

MOMENTS_FILE = "moments.safetensors"
# Number of pseudo-frames with the overall mean that are added to each pdf's frames. Neighbouring frames are correlated,
# so a pdf that occurs in only one or two words has little evidence of its own.
PDF_PRIOR_FRAMES = 10.0
# Amplitudes stay within [1/4, 4] ([1/4, 7/4] for 2sigmoid): the ratio of a unit that hardly ever fires is mostly noise.
LARGEST_AMPLITUDE = 4.0


class MomentsConfig(PreparedConfig):
    """Options of moment matching.

    Attributes:
        kind: Name of the method.
        amplitude: Name of the amplitude function xi.
        layers: Hidden layers that get amplitudes, from 0 at the bottom; None for all.
        prior_frames: tau, the number of pseudo-frames with mean activation. With the default, half a minute of speech
            (3,000 frames) moves xi a quarter of the way. It is the middle of what is as good within chance on the
            recordings of held-out readers that were not adapted on (docs/settings.md).
        descent: Options of a gradient descent that starts from the matched amplitudes; None for no descent.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"amplitude", "layers", "prior_frames", "descent"})

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["moments"] = "moments"
    amplitude: AmplitudeName = "exp"
    layers: Layers | None = None
    prior_frames: float = Field(8000.0, gt=0.0, le=1e12)
    descent: InnerLhucConfig | None = None

    def make(self, folder: Path | None) -> Moments:
        """The method with these options."""
        return Moments(self, folder)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.layers

    @model_validator(mode="after")
    def _one_bank(self) -> MomentsConfig:
        if self.descent is not None and (self.descent.amplitude, self.descent.layers) != (self.amplitude, self.layers):
            raise ValueError("descent must have the amplitude and the layers that are matched")
        return self


class Moments:
    """Moment matching as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the file with the mean activations.

    Raises:
        ConfigError: There is no folder.
    """

    def __init__(self, config: MomentsConfig, folder: Path | None = None) -> None:
        self.config = config
        self._path = prepared_file(folder, MOMENTS_FILE)

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write the mean activation of every hidden unit, for each pdf and over all frames.

        The result does not depend on the options, so one file serves all. Memory is K x H float64 numbers per layer,
        however many frames there are.

        Args:
            model: The network; it comes back unchanged.
            training: The training speakers, with their reference alignment as targets.
            seed: Not used: nothing is random.

        Raises:
            AlignmentError: Targets or features do not fit the network, or all frames have weight 0.
        """
        pdfs, device = model.pdf_count, model.log_prior.device
        widths = [site.width for site in find_sites(model, model.sites())]
        sums = [torch.zeros(pdfs, width, dtype=torch.float64, device=device) for width in widths]
        counts = torch.zeros(pdfs, dtype=torch.float64, device=device)
        with frozen(model), torch.no_grad():
            for name, frames in training.items():
                for spliced, occupancy in _blocks(model, name, frames):
                    counts += occupancy.sum(0, dtype=torch.float64)
                    hidden = spliced
                    for layer, total in zip(model.hidden_layers().values(), sums, strict=True):
                        hidden = layer(hidden)
                        total += occupancy.T @ hidden
        check_frames(float(counts.sum()), len(training))
        tensors: dict[str, torch.Tensor] = {}
        for number, total in enumerate(sums):
            mean = total.sum(0) / counts.sum()  # (H,)
            expected = (total + PDF_PRIOR_FRAMES * mean) / (counts[:, None] + PDF_PRIOR_FRAMES)  # (K, H)
            tensors |= {f"mean.{number}": mean.float(), f"expected.{number}": expected.float()}
        write_activations(self._path, model, tensors)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Match the amplitudes of each speaker, then descend from there if the options say so.

        A speaker whose frames all have weight 0 stays unadapted. So does a speaker whose activations are not finite; a
        warning names them. Memory is one layer's activations of one speaker: 49 MB per minute at 2,048 units.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seed of the descent.

        Raises:
            SiteError: The network does not have one of the layers.
            AlignmentError: Targets or features do not fit the network.
            CheckpointError: ``prepare`` has not been run, or the file that it wrote is damaged.
            ModelMismatchError: ``prepare`` was run with another network.
        """
        prepared = self._read(model)
        bank = new_bank(model, speakers, self.config.amplitude, self.config.layers)
        names = [site.name for site in bank.sites]
        failed = []
        with frozen(model), torch.no_grad():
            for speaker, frames in speakers.items():
                amplitudes = self._match(model, speaker, frames, prepared, names)
                if not all(bool(xi.isfinite().all()) for xi in amplitudes):
                    failed.append(speaker)
                    continue
                for table, xi in zip(bank.tables, amplitudes, strict=True):
                    table[bank.row(speaker)] = bank.amplitude.r_of(xi)
        warn_unadapted("their activations are not finite (check their features)", failed, len(speakers))
        if self.config.descent is not None:
            well = {speaker: frames for speaker, frames in speakers.items() if speaker not in failed}
            Descent(self.config.descent).adapt(bank, model, well, seed)
        return Amplitudes(bank)

    def _match(
        self,
        model: AcousticModel,
        speaker: str,
        frames: SpeakerData,
        prepared: Mapping[str, torch.Tensor],
        sites: list[str],
    ) -> list[torch.Tensor]:
        """The amplitudes of one speaker at each site, shapes (H,), float32."""
        highest = LARGEST_AMPLITUDE if self.config.amplitude != "2sigmoid" else 2.0 - 1.0 / LARGEST_AMPLITUDE
        counts = model.log_prior.new_zeros(model.pdf_count, dtype=torch.float64)
        hidden, weights = [], []
        for spliced, occupancy in _blocks(model, speaker, frames):
            counts += occupancy.sum(0, dtype=torch.float64)
            hidden.append(spliced)
            weights.append(occupancy.sum(1))
        amplitudes = []
        for number, (site, layer) in enumerate(model.hidden_layers().items()):
            for place, block in enumerate(hidden):
                hidden[place] = layer(block)
            if site not in sites:
                continue
            prior = self.config.prior_frames * prepared[f"mean.{number}"].double()
            expected = counts @ prepared[f"expected.{number}"].double() + prior
            observed = prior.clone()
            for weight, block in zip(weights, hidden, strict=True):
                observed += weight @ block
            # A unit that fires neither here nor in training has no ratio.
            xi = torch.where(observed != 0, expected / observed, 1.0).clamp(1.0 / LARGEST_AMPLITUDE, highest).float()
            for block in hidden:
                block *= xi
            amplitudes.append(xi)
        return amplitudes

    def _read(self, model: AcousticModel) -> dict[str, torch.Tensor]:
        """What ``prepare`` wrote: ``mean.<layer>`` (H,) and ``expected.<layer>`` (K, H), float32."""
        shapes: dict[str, Shape] = {}
        for number, site in enumerate(find_sites(model, model.sites())):
            shapes |= {f"mean.{number}": (site.width,), f"expected.{number}": (model.pdf_count, site.width)}
        tensors = load_prepared(self._path, model, {}, shapes)
        return {name: tensor.to(model.log_prior.device) for name, tensor in tensors.items()}


def _blocks(model: AcousticModel, speaker: str, frames: SpeakerData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Blocks of the frames that count: spliced features (B, (2c + 1) D), and weight times posterior (B, K)."""
    targets = frames.targets
    pdfs = torch.from_numpy(targets.pdf).long()
    shares = torch.from_numpy(targets.posterior * targets.weight[:, None])
    for rows, spliced in weighted_blocks(speaker, frames, model):
        occupancy = torch.zeros(len(rows), model.pdf_count).scatter_add_(1, pdfs[rows], shares[rows])
        yield spliced, occupancy.to(spliced.device)
