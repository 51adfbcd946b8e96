"""Amplitudes by matching moments: in closed form, with no step size and no belief in the network's own errors.

A unit that is more active than its speaker's words let expect is turned down, one that is less active is turned up.
Preparing learns, over the training speakers and their reference alignment, what each unit does in each state:
E[h_j | k], the mean activation of unit j given pdf k, and m_j, its mean over all frames. A speaker with targets q_tk of
weights w_t then has

    xi_j = (sum_t w_t sum_k q_tk E[h_j | k] + tau m_j) / (sum_t w_t h_j(t) + tau m_j)

layer by layer from the bottom, h_j(t) with the amplitudes of the layers below applied: what a layer has put right, the
next need not. tau (``prior_frames``) is what pulls xi to 1 where there is little data: pseudo-frames on which the unit
does what it does on average. The targets enter as counts of states alone, so that a frame with a wrong target does harm
only in so far as it changes what the speaker is believed to have said on the whole.

It needs activations of 0 or more, as sigmoid's and ReLU's are: otherwise a ratio of means says nothing about scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.method import AdaptedSpeakers, warn_unadapted
from lhuc_asr.adapt.prepared import PreparedConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import AlignmentError, CheckpointError, ConfigError, ModelMismatchError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.features.context import splice_index
from lhuc_asr.lhuc.attach import find_sites
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.speaker import model_hash
from lhuc_asr.nnet.acoustic_model import AcousticModel

MOMENTS_FILE = "moments.safetensors"
# Frames that go through the network at once: 1,024 x 2,048 units x 4 bytes = 8 MB a layer.
FRAMES_AT_ONCE = 1_024
# A pdf's mean activations rest on its frames and on so many of the overall mean: neighbouring frames repeat each other,
# and a pdf that is in one or two words of the training data says little.
PDF_PRIOR_FRAMES = 10.0
# Amplitudes stay within [1/4, 4] (2sigmoid: 7/4): the ratio of a unit that hardly ever fires is mostly noise.
LARGEST_AMPLITUDE = 4.0


class MomentsConfig(PreparedConfig):
    """How amplitudes are matched.

    Attributes:
        kind: Of technique.
        amplitude: xi.
        layers: Hidden layers that get amplitudes, from 0 at the bottom; None all.
        prior_frames: tau, pseudo-frames of the mean activation. With the default, half a minute of speech (3,000
            frames) goes less than half of the way: so the frame cross-entropy of held-out speakers' other recordings
            was lowest, or next to it, on AN4 and on LibriSpeech.
        descent: Gradient descent that starts from the matched amplitudes; None for none.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"amplitude", "layers", "prior_frames", "descent"})

    speakers: ClassVar[type[AdaptedSpeakers]] = Amplitudes

    kind: Literal["moments"] = "moments"
    amplitude: Literal["exp", "2sigmoid", "identity", "relu"] = "exp"
    layers: tuple[int, ...] | None = None
    prior_frames: float = Field(4000.0, gt=0.0)
    descent: LhucConfig | None = None

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
        config: How.
        folder: Where ``prepare`` keeps the mean activations.

    Raises:
        ConfigError: There is no folder.
    """

    def __init__(self, config: MomentsConfig, folder: Path | None = None) -> None:
        if folder is None:
            raise ConfigError("moments: this technique learns from the training speakers; give it a folder")
        self.config = config
        self._path = folder / MOMENTS_FILE

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Write the mean activation of every hidden unit in each pdf, and overall.

        It does not depend on the configuration: one preparation serves all. Takes K H numbers of float64 a layer,
        whatever the number of frames.

        Args:
            model: The speaker-independent network; it comes back unchanged.
            training: The training speakers, with their reference alignment as targets.
            seed: Not needed: nothing is drawn.

        Raises:
            AlignmentError: Targets or features are not this network's, or no frame counts.
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
        if not bool(counts.any()):
            raise AlignmentError(f"none of {len(training)} training speakers has a frame that counts; align them first")
        tensors: dict[str, torch.Tensor] = {}
        for number, total in enumerate(sums):
            mean = total.sum(0) / counts.sum()  # (H,)
            expected = (total + PDF_PRIOR_FRAMES * mean) / (counts[:, None] + PDF_PRIOR_FRAMES)  # (K, H)
            tensors |= {f"mean.{number}": mean.float(), f"expected.{number}": expected.float()}
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise AlignmentError("activations of the training speakers are not finite; look at their features")
        save_tensors(self._path, tensors, {"model": model_hash(model)})

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Match the amplitudes of each speaker, and descend from there where the configuration says so.

        A speaker without a frame that counts stays neutral; one whose activations are not finite does too, with a
        warning. Holds one layer's activations of one speaker at a time: 49 MB a minute at 2,048 units.

        Args:
            model: The speaker-independent network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Of the descent.

        Raises:
            SiteError: A layer that the network does not have.
            AlignmentError: Targets or features are not this network's.
            CheckpointError: ``prepare`` has not been run, or its file is damaged.
            ModelMismatchError: It was run with another network.
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
        warn_unadapted("their activations are not finite, look at their features", failed, len(speakers))
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
            found = prior.clone()
            for weight, block in zip(weights, hidden, strict=True):
                found += weight @ block
            # A unit that never fires, here or in training, has no ratio.
            xi = torch.where(found != 0, expected / found, 1.0).clamp(1.0 / LARGEST_AMPLITUDE, highest).float()
            for block in hidden:
                block *= xi
            amplitudes.append(xi)
        return amplitudes

    def _read(self, model: AcousticModel) -> dict[str, torch.Tensor]:
        """What ``prepare`` wrote: ``mean.<layer>`` (H,) and ``expected.<layer>`` (K, H), float32."""
        if not self._path.exists():
            raise CheckpointError(f"{self._path}: no such file; prepare the technique on the training speakers first")
        tensors, description = load_tensors(self._path)
        if description.get("model") != model_hash(model):
            raise ModelMismatchError(f"{self._path}: made with another network; delete it and prepare again")
        return {name: tensor.to(model.log_prior.device) for name, tensor in tensors.items()}


def _blocks(model: AcousticModel, speaker: str, frames: SpeakerData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The frames that count: spliced features (B, (2c+1) D), and weight times posterior of each pdf (B, K)."""
    targets, device = frames.targets, model.log_prior.device
    frames.check_fits(speaker, model)
    features = torch.from_numpy(np.ascontiguousarray(frames.features))
    pdfs = torch.from_numpy(targets.pdf).long()
    shares = torch.from_numpy(targets.posterior * targets.weight[:, None])
    lengths = torch.tensor(frames.lengths)
    ends = torch.cumsum(lengths, 0)
    first, last = (torch.repeat_interleave(rows, lengths) for rows in (ends - lengths, ends - 1))
    for rows in torch.from_numpy(np.flatnonzero(targets.weight)).split(FRAMES_AT_ONCE):
        index = splice_index(rows, first[rows], last[rows], model.context)
        occupancy = torch.zeros(len(rows), model.pdf_count).scatter_add_(1, pdfs[rows], shares[rows])
        yield features[index].flatten(1).to(device), occupancy.to(device)
