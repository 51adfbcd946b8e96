"""Amplitudes of a speaker and of an environment, estimated separately and combined (Swietojanski et al. 2016).

r_S is estimated on a speaker's recordings in one environment, and r_E on other speakers' recordings in another. Neither
was estimated on that speaker in that environment. After hidden layer l they are combined in one of two ways:

    interpolated    xi(r_SE^l) = alpha xi(r_S^l) + (1 - alpha) xi(r_E^l)        (equation 10)
    product         xi(r_S^l) xi(r_E^l)

The amplitudes xi are combined, not r, so the two may have different amplitude functions. The result is a bank whose
amplitude function is the identity: its rows are the combined amplitudes.
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
    """Combine amplitudes of speakers and of environments.

    With alpha 1 the result has the speakers' amplitudes, with alpha 0 the environments', except that the last bit may
    differ: it may depend on how many rows are computed at once. Row 0 of the result is neutral.

    Args:
        speakers: Amplitudes of speakers.
        environments: Amplitudes of environments, at the same sites of the same model.
        rows: Names in the result, each with a name in ``speakers`` and one in ``environments``.
        alpha: Weight of the speaker's amplitudes, 0 to 1; None for the product.

    Returns:
        The combined amplitudes, under the names of ``rows``.

    Raises:
        ConfigError: alpha is outside [0, 1], or one of the two is not ``Amplitudes``.
        ModelMismatchError: The banks belong to different models, or have amplitudes at different sites.
        SpeakerError: A name is unknown, or the row of a name is not finite.
    """
    if not isinstance(speakers, Amplitudes) or not isinstance(environments, Amplitudes):
        raise ConfigError(
            "combine: only amplitudes can be combined; give both passes a method that estimates amplitudes"
        )
    return Amplitudes(_combined(speakers.bank, environments.bank, rows, alpha))


def _combined(
    speakers: SpeakerBank, environments: SpeakerBank, rows: Mapping[str, tuple[str, str]], alpha: float | None
) -> SpeakerBank:
    if alpha is not None and not 0.0 <= alpha <= 1.0:
        raise ConfigError(f"alpha {alpha:g}: expected 0 (environment only) to 1 (speaker only)")
    if speakers.model is not environments.model:
        raise ModelMismatchError("the two banks belong to different models; load both onto one")
    if speakers.sites != environments.sites:
        sites = [", ".join(site.name for site in bank.sites) for bank in (speakers, environments)]
        raise ModelMismatchError(
            f"amplitudes of speakers at {sites[0]}, of environments at {sites[1]}; expected the same sites"
        )
    result = SpeakerBank(speakers.model, speakers.sites, rows, "identity")
    of_speakers = speakers.rows_of(speaker for speaker, _ in rows.values())
    of_environments = environments.rows_of(environment for _, environment in rows.values())
    speakers.check_finite(of_speakers)
    environments.check_finite(of_environments)
    amplitudes = {}
    with torch.no_grad():
        for site in speakers.sites:
            s, e = speakers.xi(site.name, of_speakers), environments.xi(site.name, of_environments)
            # At alpha 0 and 1, lerp gives its arguments exactly.
            amplitudes[site.name] = s * e if alpha is None else torch.lerp(e, s, alpha)
    result.fill(amplitudes)
    return result
