"""Amplitudes in a subspace: a speaker is a few numbers, what they mean is learned from the training speakers.

Preparing estimates amplitudes of the training speakers as ``adapt/lhuc.py`` does, and keeps their mean m and their
first P principal components as bases B, each as long as its standard deviation over speakers. A new speaker then
has P numbers, his code c, instead of one a unit:

    r = m + c B,        c ~ N(0, 1) a priori

estimated by descent on his frames' cross-entropy, and on c^2 / 2. This is subspace LHUC (Samarakoon and Sim,
Interspeech 2016) with bases from principal components, where theirs are trained with the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.descent import Descent, put_back_diverged
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.prepared import PreparedConfig, check_speaker_count, prepared_file, read_prepared, write_prepared
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.lhuc.row_optim import OPTIMIZERS, RowTable
from lhuc_asr.nnet.acoustic_model import AcousticModel

SUBSPACE_FILE = "subspace.safetensors"


class SubspaceConfig(PreparedConfig):
    """How codes and their bases are estimated.

    Attributes:
        kind: Of technique.
        lhuc: Descent for the training speakers' amplitudes; its optimizer, sweeps and batches are the codes' too.
        dimensions: Numbers a speaker, P; fewer where there are not more training speakers than that.
        learning_rate: Of the codes, whose unit is a standard deviation over speakers.
        around: What the code 0 stands for: the training ``speakers``' mean m, or ``row 0``, the network as it is, in
            its place; see ``adapt/bayes.py``.
        prior_weight: Weight of c^2 / 2 against the frames' cross-entropy.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"learning_rate", "prior_weight"})

    speakers: ClassVar[type[AdaptedSpeakers]] = Amplitudes

    kind: Literal["subspace"] = "subspace"
    lhuc: LhucConfig = LhucConfig(learning_rate=0.01, sweeps=5, kl_weight=0.0)
    dimensions: int = Field(16, ge=1)
    learning_rate: float = Field(0.1, gt=0.0)
    around: Literal["speakers", "unadapted"] = "unadapted"
    prior_weight: float = Field(1.0, ge=0.0)

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
        config: How.
        folder: Where mean and bases are kept.
    """

    def __init__(self, config: SubspaceConfig, folder: Path | None = None) -> None:
        self.config = config
        self._folder = folder

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Find the bases over the training speakers and write them.

        Raises:
            ConfigError: The technique was made without a folder.
            SpeakerError: There are fewer than two of them.
            CheckpointError: Their amplitudes diverged.
        """
        path = prepared_file(self._folder, SUBSPACE_FILE)
        check_speaker_count(path, len(training), 2)
        bank = Lhuc(self.config.lhuc).estimate(model, training, seed).bank
        rows = bank.side_by_side()  # (S + 1, W)
        mean, bases = principal_components(rows[1:], self.config.dimensions)
        if self.config.around == "unadapted":
            mean = rows[0]
        write_prepared(path, bank, {"mean": mean, "bases": bases}, dimensions=self.config.dimensions)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Estimate the code of each speaker; the bank has the amplitudes that it stands for.

        A speaker without a frame that counts stays speaker-independent.

        Args:
            model: The speaker-independent network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Of the order of each speaker's frames; it does not depend on who else adapts.

        Raises:
            CheckpointError: The bases have not been prepared, or are damaged.
            ModelMismatchError: They belong to another network, or to other options.
        """
        descent = Descent(self.config.lhuc)
        bank = new_bank(model, speakers, self.config.lhuc.amplitude, self.config.lhuc.layers)
        path = prepared_file(self._folder, SUBSPACE_FILE)
        prepared = read_prepared(path, bank, dimensions=self.config.dimensions)
        widths = [site.width for site in bank.sites]
        names = [site.name for site in bank.sites]
        mean = dict(zip(names, prepared["mean"].split(widths), strict=True))  # (H,)
        bases = dict(zip(names, prepared["bases"].split(widths, dim=1), strict=True))  # (P, H)
        codes = RowTable(prepared["bases"].new_zeros(len(bank.speakers) + 1, len(prepared["bases"])))

        def code(rows: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = functional.embedding(rows.to(codes.device), codes, sparse=True)
            return found

        def r(site: str, rows: torch.Tensor) -> torch.Tensor:
            amplitudes: torch.Tensor = mean[site] + code(rows) @ bases[site]
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
    """Mean and bases of rows: those directions in which they vary most.

    Args:
        rows: Shape (S, W), at least two.
        dimensions: P, as far as there are that many directions.

    Returns:
        The mean, shape (W,), and the bases, shape (P, W): orthogonal, each as long as the standard deviation of the
        rows along it.
    """
    mean = rows.double().mean(0)
    _, singular, directions = torch.linalg.svd(rows.double() - mean, full_matrices=False)
    # What is centred varies in one direction fewer than there are rows.
    kept = min(dimensions, len(rows) - 1, rows.shape[1])
    deviations = singular[:kept, None] / (len(rows) - 1) ** 0.5
    return mean.to(rows.dtype), (deviations * directions[:kept]).to(rows.dtype).contiguous()
