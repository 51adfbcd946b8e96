"""Amplitudes of a speaker and of an environment that were estimated apart, put together (Swietojanski et al. 2016).

r_S is estimated on a speaker's recordings in one environment, r_E on other speakers' in another: neither has seen the
speaker there. Two ways to use both after hidden layer l:

    interpolated    xi(r_SE^l) = alpha xi(r_S^l) + (1 - alpha) xi(r_E^l)        (equation 10)
    together        xi(r_S^l) xi(r_E^l)

It is amplitudes that are combined, not r, so the two may have different functions xi. The result is a bank with xi the
identity: its rows are the amplitudes, and whatever the amplitudes are, they have such a row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.base.errors import ConfigError, ModelMismatchError
from lhuc_asr.lhuc.bank import SpeakerBank


def combine(
    speakers: AdaptedSpeakers, environments: AdaptedSpeakers, rows: Mapping[str, tuple[str, str]], alpha: float | None
) -> Amplitudes:
    """Combine rows of two banks.

    With alpha 1 the amplitudes are those of the speakers, with 0 those of the environments, but for the last bit of xi,
    which may depend on how many rows are computed at once. Row 0 of the result is neutral, as it is in the two where
    the network's own transform is in its weights.

    Args:
        speakers: Amplitudes of speakers.
        environments: Amplitudes of environments, at the same sites of the same model.
        rows: Each name in the result -> a name in ``speakers`` and one in ``environments``.
        alpha: Weight of the speaker's, 0 to 1; None for the product.

    Returns:
        The combined amplitudes, under these names.

    Raises:
        ConfigError: alpha is out of its range, or one of the two is not amplitudes.
        ModelMismatchError: The banks belong to different models, or have amplitudes at different sites.
        SpeakerError: A name is unknown, or its row is not finite.
    """
    if not isinstance(speakers, Amplitudes) or not isinstance(environments, Amplitudes):
        raise ConfigError("combine: only amplitudes can be combined; give both passes a method that estimates them")
    return Amplitudes(_combined(speakers.bank, environments.bank, rows, alpha))


def _combined(
    speakers: SpeakerBank, environments: SpeakerBank, rows: Mapping[str, tuple[str, str]], alpha: float | None
) -> SpeakerBank:
    if alpha is not None and not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha {alpha:g}: expected 0 (the environment's alone) to 1 (the speaker's alone)")
    if speakers.model is not environments.model:
        raise ModelMismatchError("the two banks belong to different models; load both onto one")
    if speakers.sites != environments.sites:
        sites = [", ".join(site.name for site in bank.sites) for bank in (speakers, environments)]
        raise ModelMismatchError(f"amplitudes of speakers at {sites[0]}, of environments at {sites[1]}; expected alike")
    result = SpeakerBank(speakers.model, speakers.sites, rows, "identity")
    of_speakers = speakers.rows_of(speaker for speaker, _ in rows.values())
    of_environments = environments.rows_of(environment for _, environment in rows.values())
    speakers.check_finite(of_speakers)
    environments.check_finite(of_environments)
    amplitudes = {}
    with torch.no_grad():
        for site in speakers.sites:
            s, e = speakers.xi(site.name, of_speakers), environments.xi(site.name, of_environments)
            # lerp gives its ends exactly.
            amplitudes[site.name] = s * e if alpha is None else torch.lerp(e, s, alpha)
    result.fill(amplitudes)
    return result
