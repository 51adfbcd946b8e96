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

Both sums may go on with each recording (``incremental``). With ``half_life`` there are two of each. The slow ones have
all that was heard, as above. In the fast ones what was heard counts half after that time, and the slow ones' means are
their prior in place of m_j: a change of the voice, or of who speaks, is followed, and silence leads back to the slow
amplitudes.

A unit that is computed at several positions of the window counts with its mean over them.

Activations must be 0 or more, as those of sigmoid and ReLU are. Otherwise a ratio of means is not a scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from lhuc_asr.adapt.amplitudes import Amplitudes, Layers, new_bank
from lhuc_asr.adapt.batches import weighted_blocks
from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import InnerLhucConfig
from lhuc_asr.adapt.method import AdaptedSpeakers, ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.prepared import PreparedConfig, check_frames, load_prepared, prepared_file, write_activations
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.tensors import Shape
from lhuc_asr.base.units import FRAME_SHIFT_SECONDS
from lhuc_asr.lhuc.amplitude import AmplitudeName
from lhuc_asr.lhuc.attach import find_sites
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.nnet.acoustic_model import AcousticModel, over_positions

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
        half_life: Time after which what was heard counts half, in seconds of frames that count; None to forget nothing.
            Only for amplitudes that go on with each recording.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"amplitude", "layers", "prior_frames", "descent", "half_life"})

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["moments"] = "moments"
    amplitude: AmplitudeName = "exp"
    layers: Layers | None = None
    prior_frames: float = Field(8000.0, gt=0.0, le=1e12)
    descent: InnerLhucConfig | None = None
    half_life: float | None = Field(None, gt=0.0, le=1e9)

    def make(self, folder: Path | None) -> Moments:
        """The method with these options."""
        return Moments(self, folder)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.layers

    @property
    def goes_on(self) -> bool:
        """Whether the amplitudes can go on with each recording: a descent would be undone by the next one's sums."""
        return self.descent is None

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
                        total += occupancy.T @ over_positions(hidden)
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
        increments = self.begin(model, speakers)
        increments.go_on(speakers, {name: name for name in speakers}, seed)
        return increments.speakers

    def begin(
        self, model: AcousticModel, names: Iterable[str], start: AdaptedSpeakers | None = None
    ) -> MomentsIncrements:
        """Neutral amplitudes, for sums that go on with each recording; other errors as ``estimate``.

        Raises:
            ConfigError: There are speakers to start from: their files do not hold the sums.
        """
        if start is not None:
            raise ConfigError("moments cannot go on from a speaker's file, which lacks their sums; start without one")
        bank = new_bank(model, names, self.config.amplitude, self.config.layers)
        return MomentsIncrements(model, bank, self._read(model), self.config)

    def _read(self, model: AcousticModel) -> dict[str, torch.Tensor]:
        """What ``prepare`` wrote: ``mean.<layer>`` (H,) and ``expected.<layer>`` (K, H), float32."""
        shapes: dict[str, Shape] = {}
        for number, site in enumerate(find_sites(model, model.sites())):
            shapes |= {f"mean.{number}": (site.width,), f"expected.{number}": (model.pdf_count, site.width)}
        tensors = load_prepared(self._path, model, {}, shapes)
        return {name: tensor.to(model.log_prior.device) for name, tensor in tensors.items()}


class MomentsIncrements:
    """Amplitudes whose sums go on with each recording; ``Increments``.

    Args:
        model: The network.
        bank: A detached bank of the network.
        prepared: What ``prepare`` wrote.
        config: Options of the method.
    """

    def __init__(
        self, model: AcousticModel, bank: SpeakerBank, prepared: Mapping[str, torch.Tensor], config: MomentsConfig
    ) -> None:
        self._model, self._bank, self._prepared, self._config = model, bank, prepared, config
        self._sums: dict[str, Sequence[_Sums] | None] = {}  # one for each site; None where nothing was heard
        self._descent = None if config.descent is None else Descent(config.descent)

    @property
    def speakers(self) -> Amplitudes:
        """The amplitudes of all names."""
        return Amplitudes(self._bank)

    def go_on(self, heard: Mapping[str, SpeakerData], after: Mapping[str, str], seed: int) -> None:
        """Match the amplitudes anew, with the sums over all that was heard; see ``Increments``."""
        bank, failed = self._bank, []
        before = {name: self._sums.get(after[name]) for name in heard}
        bank.copy_rows({name: after[name] for name in heard})
        with frozen(self._model), torch.no_grad():
            for name, frames in heard.items():
                amplitudes, sums = self._match(name, frames, before[name])
                if all(bool(xi.isfinite().all()) for xi in amplitudes):
                    for table, xi in zip(bank.tables, amplitudes, strict=True):
                        table[bank.row(name)] = bank.amplitude.r_of(xi)
                    self._sums[name] = sums
                else:
                    failed.append(name)
                    self._sums[name] = before[name]
        warn_unadapted("their activations are not finite (check their features)", failed, len(heard))
        if self._descent is not None:
            well = {name: frames for name, frames in heard.items() if name not in failed}
            self._descent.adapt(bank, self._model, well, seed)

    def _match(
        self, name: str, frames: SpeakerData, before: Sequence[_Sums] | None
    ) -> tuple[list[torch.Tensor], list[_Sums]]:
        """The amplitudes of a name at each site, shapes (H,), float32, and the sums that they come from."""
        model, config, sites = self._model, self._config, [site.name for site in self._bank.sites]
        highest = LARGEST_AMPLITUDE if config.amplitude != "2sigmoid" else 2.0 - 1.0 / LARGEST_AMPLITUDE
        counts = model.log_prior.new_zeros(model.pdf_count, dtype=torch.float64)
        hidden, weights = [], []
        for spliced, occupancy in _blocks(model, name, frames):
            counts += occupancy.sum(0, dtype=torch.float64)
            hidden.append(spliced)
            weights.append(occupancy.sum(1))
        amplitudes: list[torch.Tensor] = []
        sums: list[_Sums] = []
        for number, (site, layer) in enumerate(model.hidden_layers().items()):
            for place, block in enumerate(hidden):
                hidden[place] = layer(block)
            if site not in sites:
                continue
            observed = torch.zeros_like(self._prepared[f"mean.{number}"], dtype=torch.float64)
            for weight, block in zip(weights, hidden, strict=True):
                observed += weight @ over_positions(block)
            new = _Sums(float(counts.sum()), counts @ self._prepared[f"expected.{number}"].double(), observed)
            sums.append(new.after(before[len(sums)], config.half_life) if before else new)
            xi = sums[-1].amplitudes(config.prior_frames, self._prepared[f"mean.{number}"].double())
            xi = xi.clamp(1.0 / LARGEST_AMPLITUDE, highest).float()
            for block in hidden:
                block *= xi
            amplitudes.append(xi)
        return amplitudes, sums


@dataclass(frozen=True)
class _Sums:
    """Sums over the frames that were heard, of one layer.

    Attributes:
        frames: Number of frames, weighted.
        expected: Sum of their expected activations, shape (H,), float64.
        observed: Sum of their activations, shape (H,), float64.
        recent: The same, where what was heard counts half after the half-life; None without one.
    """

    frames: float
    expected: torch.Tensor
    observed: torch.Tensor
    recent: _Sums | None = None

    def after(self, before: _Sums, half_life: float | None) -> _Sums:
        """These sums and those before them."""
        recent = None
        if half_life is not None:
            kept = 0.5 ** (self.frames * FRAME_SHIFT_SECONDS / half_life)
            recent = self.plus(before.recent or before, kept)
        return replace(self.plus(before, 1.0), recent=recent)

    def plus(self, other: _Sums, share: float) -> _Sums:
        """These sums and a share of others."""
        return _Sums(
            self.frames + share * other.frames,
            self.expected + share * other.expected,
            self.observed + share * other.observed,
        )

    def amplitudes(self, prior_frames: float, mean: torch.Tensor) -> torch.Tensor:
        """The ratios, shape (H,); ``mean`` are the mean activations of the training speakers, shape (H,)."""
        prior = _Sums(prior_frames, prior_frames * mean, prior_frames * mean)
        sums = self.plus(prior, 1.0)
        if self.recent is not None:
            sums = self.recent.plus(sums, prior_frames / sums.frames)
        # A unit that fires neither here nor in training has no ratio.
        return torch.where(sums.observed != 0, sums.expected / sums.observed, 1.0)


def _blocks(model: AcousticModel, speaker: str, frames: SpeakerData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Blocks of the frames that count: spliced features (B, w D + R), and weight times posterior (B, K)."""
    targets = frames.targets
    pdfs = torch.from_numpy(targets.pdf).long()
    shares = torch.from_numpy(targets.posterior * targets.weight[:, None])
    for rows, spliced in weighted_blocks(speaker, frames, model):
        occupancy = torch.zeros(len(rows), model.pdf_count).scatter_add_(1, pdfs[rows], shares[rows])
        yield spliced, occupancy.to(spliced.device)
