"""Bayesian LHUC, and MAP estimation of amplitudes: what little data leaves open, the training speakers decide.

Preparing estimates amplitudes of the training speakers as ``adapt/lhuc.py`` does, and keeps their mean and variance,
unit by unit: the prior. A speaker then gets the Gaussian posterior over his r (``lhuc/posterior.py``: Xie et al.
2021), or the r that is most probable given his data and the prior (MAP). Either way what is used is one r, and
the more data, the farther from the prior's mean it goes.
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
from lhuc_asr.adapt.lhuc import Lhuc, LhucConfig
from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.prepared import PreparedConfig, check_speaker_count, prepared_file, read_prepared, write_prepared
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.lhuc.posterior import GaussianPrior, Posterior
from lhuc_asr.lhuc.row_optim import OPTIMIZERS
from lhuc_asr.nnet.acoustic_model import AcousticModel

PRIOR_FILE = "prior.safetensors"


class BayesConfig(PreparedConfig):
    """How posteriors are estimated.

    Attributes:
        kind: Of technique.
        lhuc: Descent, for the training speakers' amplitudes and for a new speaker's posterior, where the prior takes
            the place of ``prior_deviation``.
        estimate: ``posterior``: a Gaussian; ``map``: the most probable r alone.
        around: The prior's mean: that of the training ``speakers``, or ``row 0``, the network as it is. What training
            speakers have in common is mostly how well the network knows its training data: no new speaker shares it.
        prior_weight: Weight of the divergence from the prior. Frames repeat each other, so that the evidence of T
            of them is less than T times one's: more than 1 makes up for it.
        variance_floor: Least variance of r over speakers.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset({"estimate", "prior_weight"})

    speakers: ClassVar[type[AdaptedSpeakers]] = Amplitudes

    kind: Literal["bayes"] = "bayes"
    lhuc: LhucConfig = LhucConfig(learning_rate=0.01, sweeps=5, kl_weight=0.0)
    estimate: Literal["posterior", "map"] = "posterior"
    around: Literal["speakers", "unadapted"] = "unadapted"
    prior_weight: float = Field(1.0, ge=0.0)
    variance_floor: float = Field(1e-4, gt=0.0)

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
        config: How.
        folder: Where the prior is kept.
    """

    def __init__(self, config: BayesConfig, folder: Path | None = None) -> None:
        self.config = config
        self._folder = folder

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        """Estimate the prior over the training speakers and write it.

        Raises:
            ConfigError: The technique was made without a folder.
            SpeakerError: There are fewer than two of them, or amplitudes diverged.
        """
        path = prepared_file(self._folder, PRIOR_FILE)
        check_speaker_count(path, len(training), 2)
        bank = Lhuc(self.config.lhuc).estimate(model, training, seed).bank
        prior = GaussianPrior.of(
            bank, self.config.variance_floor, "row 0" if self.config.around == "unadapted" else "speakers"
        )
        tensors = {f"mean.{site}": mean for site, mean in prior.mean.items()}
        tensors |= {f"variance.{site}": variance for site, variance in prior.variance.items()}
        write_prepared(path, bank, tensors)

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> Amplitudes:
        """Estimate the posterior of each speaker; what is used is its mean.

        A speaker without a frame that counts stays speaker-independent.

        Args:
            model: The speaker-independent network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Of the order of frames and of the samples; neither depends on who else adapts.

        Raises:
            CheckpointError: The prior has not been prepared, or is damaged.
            ModelMismatchError: It belongs to another network, or to other options.
        """
        descent = Descent(self.config.lhuc)
        bank = new_bank(model, speakers, self.config.lhuc.amplitude, self.config.lhuc.layers)
        tensors = read_prepared(prepared_file(self._folder, PRIOR_FILE), bank)
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
    """Of the sample of a mini-batch: how many mini-batches others have before it doesn't matter."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + sweep) * 1_000_003 + step) % 2**63)
