"""Bayesian and MAP estimation of amplitudes: with little data, the prior over the training speakers decides.

``prepare`` estimates amplitudes of the training speakers as ``adapt/lhuc.py`` does. The prior of a unit is a Gaussian.
By default its mean is row 0, the network without adaptation, and its variance the mean square of the speakers' distance
from there; with ``around: speakers`` both are the speakers' mean and variance. For a new speaker, ``estimate`` computes
one of two things:

    posterior    a Gaussian posterior over r, of which the mean is used (``lhuc/posterior.py``; Xie et al. 2021)
    map          the r that is most probable given the data and the prior

The more data a speaker has, the farther r moves from the mean of the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field

from lhuc_asr.adapt.amplitudes import Amplitudes, new_bank
from lhuc_asr.adapt.descent import Descent, Penalty, StepContext
from lhuc_asr.adapt.lhuc import LearnedLhucConfig
from lhuc_asr.adapt.method import ReadableSpeakers
from lhuc_asr.adapt.prepared import (
    REMEDY,
    PreparedConfig,
    learned_bank,
    prepared_file,
    read_prepared,
    write_prepared,
)
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import CheckpointError
from lhuc_asr.lhuc.posterior import GaussianPrior, Posterior
from lhuc_asr.lhuc.row_optim import OPTIMIZERS
from lhuc_asr.nnet.acoustic_model import AcousticModel

PRIOR_FILE = "prior.safetensors"


class BayesConfig(PreparedConfig):
    """Options of Bayesian and MAP estimation.

    Attributes:
        kind: Name of the method.
        lhuc: Options of the descent, both for the training speakers' amplitudes and for a new speaker. For a new
            speaker the prior replaces ``prior_deviation``.
        estimate: ``posterior`` for a Gaussian over r, ``map`` for the most probable r.
        around: Mean of the prior. ``speakers`` is the mean of the training speakers, ``unadapted`` the network without
            adaptation. What the training speakers have in common is mostly that the network was trained on them. A new
            speaker does not share this; hence the default.
        prior_weight: Weight of the divergence from the prior. Neighbouring frames are correlated, so T frames are less
            evidence than T independent ones; a weight above 1 corrects for this.
        variance_floor: Lower limit of the variance of r over the training speakers.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"estimate", "prior_weight"})

    speakers: ClassVar[type[ReadableSpeakers]] = Amplitudes

    kind: Literal["bayes"] = "bayes"
    lhuc: LearnedLhucConfig = LearnedLhucConfig()
    estimate: Literal["posterior", "map"] = "posterior"
    around: Literal["speakers", "unadapted"] = "unadapted"
    prior_weight: float = Field(1.0, ge=0.0, le=1e6)
    variance_floor: float = Field(1e-4, ge=1e-12, le=1e6)

    def make(self, folder: Path | None) -> Bayes:
        """The method with these options."""
        return Bayes(self, folder)

    @property
    def amplitude_layers(self) -> tuple[int, ...] | None:
        """Hidden layers that get amplitudes; None for all."""
        return self.lhuc.layers


class Bayes:
    """Bayesian LHUC as an adaptation method.

    Args:
        config: Options of the method.
        folder: Folder of the prior's file.
    """

    def __init__(self, config: BayesConfig, folder: Path | None = None) -> None:
        self.config = config
        self._folder = folder

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Estimate the prior over the training speakers and write it.

        Raises:
            ConfigError: The method was made without a folder.
            SpeakerError: There are fewer than two training speakers from whom something can be learned.
        """
        path = prepared_file(self._folder, PRIOR_FILE)
        bank = learned_bank(path, self.config.lhuc, model, training, seed)
        unadapted = self.config.around == "unadapted"
        prior = GaussianPrior.of(bank, self.config.variance_floor, around_row_zero=unadapted)
        tensors = {f"mean.{site}": mean for site, mean in prior.mean.items()}
        tensors |= {f"variance.{site}": variance for site, variance in prior.variance.items()}
        write_prepared(path, bank, tensors)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Estimate each speaker's amplitudes: the mean of the posterior, or the most probable r.

        A speaker whose frames all have weight 0 stays unadapted.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seeds the order of each speaker's frames and the samples; neither depends on the other speakers.

        Raises:
            CheckpointError: The prior has not been prepared, or its file is damaged.
            ModelMismatchError: The prior was prepared with another network or other options.
        """
        descent = Descent(self.config.lhuc)
        bank = new_bank(model, speakers, self.config.lhuc.amplitude, self.config.lhuc.layers)
        path = prepared_file(self._folder, PRIOR_FILE)
        shapes = {f"{kind}.{site.name}": (site.width,) for site in bank.sites for kind in ("mean", "variance")}
        tensors = read_prepared(path, bank, shapes)
        if not all(bool((tensors[f"variance.{site.name}"] > 0).all()) for site in bank.sites):
            raise CheckpointError(f"{path}: a variance is not positive; {REMEDY}")
        prior = GaussianPrior(
            {site.name: tensors[f"mean.{site.name}"] for site in bank.sites},
            {site.name: tensors[f"variance.{site.name}"] for site in bank.sites},
        )
        tables: list[torch.nn.Parameter] = list(bank.parameters())
        penalty: Penalty = partial(prior.distance, bank)
        each_step: StepContext | None = None
        if self.config.estimate == "posterior":
            posterior = Posterior(bank, prior)
            tables += posterior.parameters()
            penalty = posterior.divergence

            def sample(sweep: int, step: int) -> AbstractContextManager[None]:
                return posterior.sampled(sample_generator(seed, sweep, step))

            each_step = sample
        else:
            bank.fill(prior.mean)
        descent.adapt(
            bank, model, speakers, seed,
            optimizer=OPTIMIZERS[descent.config.optimizer](tables, lr=descent.config.learning_rate),
            penalty=lambda rows: self.config.prior_weight * penalty(rows),
            each_step=each_step,
        )  # fmt: skip
        bank.reset(name for name, frames in speakers.items() if not frames.targets.weight.any())
        return Amplitudes(bank)


def sample_generator(seed: int, sweep: int, step: int) -> torch.Generator:
    """Random generator for one mini-batch's sample of r; it does not depend on how many mini-batches came before."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + sweep) * 1_000_003 + step) % 2**63)
