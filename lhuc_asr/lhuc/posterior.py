"""Bayesian LHUC: a Gaussian posterior over a speaker's r instead of one best value (Xie et al.).

Many r explain little data about equally well. The posterior keeps all of them, weighted by the data and the prior.
Unit j of speaker s has the posterior q(r) = N(mu, sigma^2), and the prior of all speakers is p(r) = N(m, v). The
lower bound on the evidence is maximised by descent on

    sum over frames of E_q[-log P(c_t | x_t; r)]  +  KL(q || p)

    KL(q || p) = log(sqrt(v) / sigma) + (sigma^2 + (mu - m)^2) / (2 v) - 1/2        summed over units

One sample in each step takes the place of the expectation: r = mu + sigma * epsilon, epsilon ~ N(0, 1). The gradient
reaches mu and sigma through it. In decoding r is mu. With sigma at 0 only (mu - m)^2 / (2 v) is left of the divergence,
and this is maximum a posteriori (MAP) estimation.

mu is the speaker's row of the bank. log sigma has a table of the same shape here, so that one row-wise optimizer
trains both and absent speakers don't move.

Source: X. Xie, X. Liu, T. Lee, L. Wang, "Bayesian Learning for Deep Neural Network Adaptation", IEEE/ACM TASLP 29,
2021 (arXiv 2012.07460).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError, SpeakerError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.row_optim import RowTable
from lhuc_asr.lhuc.rows import SpeakerRows


@dataclass(frozen=True)
class GaussianPrior:
    """The prior of r over speakers, for each unit.

    Attributes:
        mean: The means m: a site's name -> shape (H,).
        variance: The variances v: a site's name -> shape (H,), above 0.
    """

    mean: Mapping[str, Tensor]
    variance: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for site, variance in self.variance.items():
            if not bool(((variance > 0) & variance.isfinite() & self.mean[site].isfinite()).all()):
                raise ConfigError(
                    f"prior at site {site!r}: expected finite means and finite variances above 0; estimate it from "
                    "finite rows, with variance_floor above 0"
                )

    @classmethod
    def of(cls, rows: SpeakerRows, variance_floor: float, *, around_row_zero: bool = False) -> GaussianPrior:
        """Estimate the prior from the rows of speakers.

        Args:
            rows: The rows of the training speakers.
            variance_floor: Smallest variance: a unit that has never mattered may matter to the next speaker.
            around_row_zero: Whether row 0 is the prior's mean; otherwise it is the mean over speakers.

        Raises:
            SpeakerError: There are fewer than two speakers.
        """
        count = len(rows.speakers)
        if count < 2:
            raise SpeakerError(f"prior: expected at least 2 speakers to estimate it from, found {count}; train on more")
        tables = {site.name: table.detach()[1:] for site, table in zip(rows.sites, rows.tables, strict=True)}
        if around_row_zero:
            mean = {site.name: table.detach()[0].clone() for site, table in zip(rows.sites, rows.tables, strict=True)}
            variance = {name: (table - mean[name]).square().mean(0) for name, table in tables.items()}
        else:
            mean = {name: table.mean(0) for name, table in tables.items()}
            variance = {name: table.var(0) for name, table in tables.items()}
        return cls(mean, {name: value.clamp(min=variance_floor) for name, value in variance.items()})

    def distance(self, bank: SpeakerBank, rows: Tensor) -> Tensor:
        """sum_j (r_j - m_j)^2 / (2 v_j), which is -log p(r) up to a constant: the penalty of MAP estimation.

        Args:
            bank: The bank.
            rows: Rows of the bank, shape (N,).

        Returns:
            The distance of each row, shape (N,), differentiable.
        """
        distance = torch.zeros(len(rows), dtype=bank.tables[0].dtype, device=bank.tables[0].device)
        for site in bank.sites:
            offset = bank.stored_r(site.name, rows) - self.mean[site.name]
            distance = distance + (offset.square() / (2 * self.variance[site.name])).sum(1)
        return distance


class Posterior(nn.Module):
    """Posteriors of the speakers of a bank; they start at the prior.

    Args:
        bank: The bank. Its rows 1 to S become the posteriors' means mu, and are set to the prior's means. No speaker
            may be added or dropped while the posterior is in use.
        prior: The prior.

    Attributes:
        prior: The prior.
        log_deviations: log sigma, a table (S + 1, H) for each site.
    """

    def __init__(self, bank: SpeakerBank, prior: GaussianPrior) -> None:
        super().__init__()
        # In a tuple: the bank's tables are its own parameters, not the posterior's.
        self._bank = (bank,)
        self.prior = prior
        count = len(bank.speakers)
        bank.fill(prior.mean)
        self.log_deviations = nn.ParameterList(
            RowTable(prior.variance[site.name].log().div(2).repeat(count + 1, 1)) for site in bank.sites
        )
        self._number = {site.name: number for number, site in enumerate(bank.sites)}

    @contextmanager
    def sampled(self, generator: torch.Generator) -> Iterator[None]:
        """A context in which the bank's amplitudes are those of one sample of r, drawn on entry.

        Each unit has one epsilon for all speakers, so that what a speaker learns does not depend on the other speakers
        in the batch.

        Args:
            generator: Generator of epsilon, on the CPU.
        """
        bank = self._bank[0]
        noise = {
            site.name: torch.randn(site.width, generator=generator).to(table)
            for site, table in zip(bank.sites, bank.tables, strict=True)
        }
        with bank.computed(
            lambda site, rows: bank.stored_r(site, rows) + self._log_deviation(site, rows).exp() * noise[site]
        ):
            yield

    def divergence(self, rows: Tensor) -> Tensor:
        """KL(q || p) of some speakers.

        Args:
            rows: Rows of the bank, shape (N,).

        Returns:
            The divergence of each row, shape (N,), differentiable, 0 or more.
        """
        bank = self._bank[0]
        divergence = self.prior.distance(bank, rows)
        for site in bank.sites:
            # log(sigma^2 / v)
            log_ratio = 2 * self._log_deviation(site.name, rows) - self.prior.variance[site.name].log()
            divergence = divergence + 0.5 * (log_ratio.exp() - 1 - log_ratio).sum(1)
        return divergence

    def _log_deviation(self, site: str, rows: Tensor) -> Tensor:
        table = self.log_deviations[self._number[site]]
        log_deviations: Tensor = functional.embedding(rows.to(table.device), table, sparse=True)
        return log_deviations
