"""Subspace LHUC: a speaker's amplitudes follow from a short code.

``prepare`` estimates amplitudes of the training speakers as ``adapt/lhuc.py`` does. It keeps their first P principal
components as bases B, each scaled to the standard deviation of the training speakers along it. A new speaker has a code
c of P numbers instead of one number for each unit:

    r = m + c B,        prior: c ~ N(0, I)

By default m is row 0, the network without adaptation (``around: unadapted``); with ``around: speakers`` it is the mean
of the training speakers. c is estimated by gradient descent on the cross-entropy of the speaker's frames plus
|c|^2 / 2. This is subspace LHUC (Samarakoon and Sim, Interspeech 2016), but with bases from principal components;
theirs are trained with the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.descent import Descent
from lhuc_asr.adapt.lhuc import LearnedLhucConfig
from lhuc_asr.adapt.method import ReadableSpeakers
from lhuc_asr.adapt.movable import put_back_diverged
from lhuc_asr.adapt.prepared import PreparedConfig, learned_bank, prepared_file, read_prepared, write_prepared
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.config import LearningRate
from lhuc_asr.lhuc.row_optim import OPTIMIZERS, RowTable
from lhuc_asr.nnet.acoustic_model import AcousticModel

SUBSPACE_FILE = "subspace.safetensors"


class SubspaceConfig(PreparedConfig):
    """Options of subspace LHUC.

    Attributes:
        kind: Name of the method.
        lhuc: Options of the descent for the training speakers' amplitudes. Codes are trained by the same options,
            but for the learning rate and ``prior_deviation``.
        dimensions: Length of a code, P; with S training speakers at most S - 1 are kept.
        learning_rate: Step size for the codes, in standard deviations over the speakers.
        around: What a code of all zeros stands for, m: ``unadapted`` for row 0, the network without adaptation,
            ``speakers`` for the mean of the training speakers; see ``BayesConfig.around``.
        prior_weight: Weight of |c|^2 / 2 against the cross-entropy of the frames.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"learning_rate", "prior_weight"})

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["subspace"] = "subspace"
    lhuc: LearnedLhucConfig = LearnedLhucConfig()
    dimensions: int = Field(16, ge=1, le=100_000)
    learning_rate: LearningRate = 0.1
    around: Literal["speakers", "unadapted"] = "unadapted"
    prior_weight: float = Field(1.0, ge=0.0, le=1e6)

    def make(self, folder: Path | None) -> Subspace:
        """The method with these options."""
        return Subspace(self, folder)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.lhuc.layers


class Subspace:
    """Subspace LHUC as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the file with m and the bases.
    """

    def __init__(self, config: SubspaceConfig, folder: Path | None = None) -> None:
        self.config = config
        self._folder = folder

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Compute m and the bases from the training speakers and write them.

        m is row 0 of the training speakers' bank, or their mean with ``around: speakers``.

        Raises:
            ConfigError: The method was made without a folder.
            SpeakerError: There are fewer than two training speakers from whom something can be learned.
        """
        path = prepared_file(self._folder, SUBSPACE_FILE)
        bank = learned_bank(path, self.config.lhuc, model, training, seed)
        rows = bank.side_by_side()  # (S + 1, W)
        mean, bases = principal_components(rows[1:], self.config.dimensions)
        if self.config.around == "unadapted":
            mean = rows[0]
        write_prepared(path, bank, {"mean": mean, "bases": bases}, dimensions=self.config.dimensions)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Estimate the code of each speaker, and from it the amplitudes.

        A speaker whose frames all have weight 0 stays unadapted.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seeds the order of each speaker's frames, which does not depend on the other speakers.

        Raises:
            CheckpointError: The bases have not been prepared, or their file is damaged.
            ModelMismatchError: The bases were prepared with another network or other options.
        """
        descent = Descent(self.config.lhuc)
        bank = new_bank(model, speakers, self.config.lhuc.amplitude, self.config.lhuc.layers)
        path = prepared_file(self._folder, SUBSPACE_FILE)
        widths = [site.width for site in bank.sites]
        shapes = {"mean": (sum(widths),), "bases": (None, sum(widths))}
        prepared = read_prepared(path, bank, shapes, dimensions=self.config.dimensions)
        names = [site.name for site in bank.sites]
        mean = dict(zip(names, prepared["mean"].split(widths), strict=True))  # (H,)
        bases = dict(zip(names, prepared["bases"].split(widths, dim=1), strict=True))  # (P, H)
        codes = RowTable(prepared["bases"].new_zeros(len(bank.speakers) + 1, len(prepared["bases"])))

        def code(rows: torch.Tensor) -> torch.Tensor:
            selected: torch.Tensor = functional.embedding(rows.to(codes.device), codes, sparse=True)
            return selected

        def r(site: str, rows: torch.Tensor) -> torch.Tensor:
            # A product for each speaker: the bits of one for all would depend on how many there are.
            own, basis = code(rows).unsqueeze(1), bases[site].expand(len(rows), -1, -1)
            amplitudes: torch.Tensor = mean[site] + torch.bmm(own, basis).squeeze(1)
            return amplitudes

        with bank.computed(r):
            descent.adapt(
                bank, model, speakers, seed,
                optimizer=OPTIMIZERS[descent.config.optimizer]([codes], lr=self.config.learning_rate),
                penalty=lambda rows: self.config.prior_weight / 2 * code(rows).square().sum(1),
            )  # fmt: skip
        everybody = torch.arange(1, len(bank.speakers) + 1)
        with torch.no_grad():
            bank.fill({name: r(name, everybody) for name in names})
        put_back_diverged(bank, list(speakers))
        bank.reset(name for name, frames in speakers.items() if not frames.targets.weight.any())
        return Amplitudes(bank)


def principal_components(rows: torch.Tensor, dimensions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and principal components of rows.

    Args:
        rows: At least two rows, shape (S, W).
        dimensions: Number of components, P; at most min(S - 1, W) are returned.

    Returns:
        The mean, shape (W,), and the bases, shape (P, W). The bases are orthogonal, each scaled to the standard
        deviation of the rows along it.
    """
    mean = rows.double().mean(0)
    _, singular, directions = torch.linalg.svd(rows.double() - mean, full_matrices=False)
    # S centred rows vary in at most S - 1 directions.
    kept = min(dimensions, len(rows) - 1, rows.shape[1])
    deviations = singular[:kept, None] / (len(rows) - 1) ** 0.5
    return mean.to(rows.dtype), (deviations * directions[:kept]).to(rows.dtype).contiguous()
