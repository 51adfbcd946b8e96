"""Speakers' amplitudes, which every LHUC method estimates, and the network scaled by them.

h_j^{l,s} = xi(r_j^{l,s}) psi_j(w_j^T x + b_j)          (equation 3 of Swietojanski et al. 2016)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from lhuc_asr.adapt.method import check_lenders, speaker_of_each
from lhuc_asr.base.errors import CheckpointError, ConfigError, ModelMismatchError, SiteError
from lhuc_asr.lhuc.attach import find_sites
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.identity import hashes_like
from lhuc_asr.lhuc.speaker import FORMAT, SpeakerState
from lhuc_asr.nnet.acoustic_model import AcousticModel, ScaledNetwork
from lhuc_asr.nnet.scoring import score_scaled

# Numbers of hidden layers, from 0 at the bottom.
Layers = Annotated[tuple[Annotated[int, Field(ge=0, le=99)], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Amplitudes:
    """The amplitudes of some speakers; an ``AdaptedSpeakers``.

    Attributes:
        bank: A detached bank of an acoustic model.
    """

    bank: SpeakerBank

    format: ClassVar[str] = FORMAT

    @property
    def model(self) -> AcousticModel:
        """The network that the amplitudes belong to."""
        model = self.bank.model
        if not isinstance(model, AcousticModel):
            raise ModelMismatchError(f"the amplitudes belong to a {type(model).__name__}, expected an acoustic model")
        return model

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers, row 0 left out."""
        return self.bank.speakers

    @cached_property
    def _network(self) -> ScaledNetwork:
        return self.model.scaled([site.name for site in self.bank.sites])

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances, each with the amplitudes of its speaker; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown, or their row is not finite.
        """
        names = speaker_of_each(speakers, utterances)
        scores = [np.zeros((0, self.model.pdf_count), np.float32)]
        scales: dict[str, list[torch.Tensor]] = {}
        for name, features in zip(names, utterances, strict=True):
            if name not in scales:
                # Rows are computed one at a time, because the last bit of xi may depend on how many there are.
                scales[name] = self._scales(name)
            scores.append(score_scaled(self.model, self._network, scales[name], features))
        return np.concatenate(scores)

    @contextmanager
    def applied(self, speaker: str) -> Iterator[AcousticModel]:
        """A context in which the network itself has the amplitudes of ``speaker``, for looking at its hidden units.

        It sets hooks on the network, so only one thread may use it. Decoding does not use it.
        """
        self.bank.attach()
        try:
            with self.bank.speaker(speaker):
                yield self.model
        finally:
            self.bank.detach()

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Amplitudes:
        """The mean r of the speakers in ``over``, for those in ``speakers``; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown, or ``over`` is empty.
        """
        self.bank.rows_of(speakers)
        check_lenders(over)
        control = SpeakerBank(self.model, self.bank.sites, speakers, self.bank.amplitude)
        with torch.no_grad():
            rows = self.bank.rows_of(over).to(self.bank.tables[0].device)
            for ours, theirs in zip(control.tables, self.bank.tables, strict=True):
                ours[0] = theirs[0]
                ours[1:] = theirs[rows].mean(0)
                ours.edition += 1
        return Amplitudes(control)

    def unadapted(self) -> Amplitudes:
        """The speakers with row 0; see ``AdaptedSpeakers``."""
        neutral = SpeakerBank(self.model, self.bank.sites, self.speakers, self.bank.amplitude)
        with torch.no_grad():
            for ours, theirs in zip(neutral.tables, self.bank.tables, strict=True):
                ours.copy_(theirs[:1].expand_as(ours))
                ours.edition += 1
        return Amplitudes(neutral)

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker, and a file for row 0."""
        self.bank.save(folder)

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, torch.Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""
        replace(self.bank.state(speaker), extras=dict(extras)).save(path)

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> Amplitudes:
        """Read speakers' files; see ``AdaptedSpeakers``.

        Raises:
            CheckpointError: A file is missing or damaged, or has a site that the network does not have.
            ModelMismatchError: A speaker belongs to another network, or has other sites or another amplitude function
                than the others.
            SpeakerError: A speaker's amplitudes are not finite.
        """
        states = [SpeakerState.load(path) for path in paths]
        first = states[0]
        # The network first: the sites of another may not be here.
        networks = hashes_like((state.model for state in states), model)
        first.check_fits(first.sites, first.amplitude, networks[first.model])
        try:
            sites = find_sites(model, [site.name for site in first.sites])
            bank = SpeakerBank(model, sites, xi=first.amplitude)
        except (ConfigError, SiteError) as error:
            raise CheckpointError(f"{paths[0]}: not a speaker of this network ({error})") from error
        # Not ``put``, which would hash the network again: for a large one that takes seconds.
        for state in states:
            state.check_fits(bank.sites, bank.amplitude.name, networks[state.model])
        bank.set_rows(states)
        bank.check_finite(bank.rows_of([state.speaker for state in states]))
        return cls(bank)

    def _scales(self, speaker: str) -> list[torch.Tensor]:
        """The speaker's amplitudes at each site, shapes (1, H)."""
        rows = self.bank.rows_of([speaker])
        self.bank.check_finite(rows)
        return [self.bank.xi(site.name, rows).detach() for site in self.bank.sites]


def new_bank(
    model: AcousticModel, speakers: Iterable[str], amplitude: str = "exp", layers: Sequence[int] | None = None
) -> SpeakerBank:
    """A neutral, detached bank.

    Args:
        model: The network.
        speakers: Names of rows 1 to S.
        amplitude: Name of the amplitude function xi.
        layers: Hidden layers that get amplitudes, from 0 at the bottom; None for all.

    Raises:
        SiteError: The network does not have one of the layers.
    """
    return SpeakerBank(model, find_sites(model, model.sites(layers)), speakers, amplitude)
