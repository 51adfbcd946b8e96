"""A network's scores for whole utterances, for search and alignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lhuc_asr.features.store import FeatureTable, StoredUtterance, blocks_of
from lhuc_asr.nnet.acoustic_model import AcousticModel, ScaledNetwork, over_priors

# Number of frames whose scores are computed before they are yielded.
SCORING_FRAMES = 20_000


def score_blocks(
    model: AcousticModel, store: FeatureTable, utterances: Sequence[StoredUtterance]
) -> Iterator[tuple[list[StoredUtterance], np.ndarray]]:
    """Log-likelihoods of utterances, in blocks: each block's utterances, and the scores of their frames (N, K)."""
    for block in blocks_of(utterances, SCORING_FRAMES):
        yield block, np.concatenate([score_utterance(model, store[utterance.id]) for utterance in block])


def score_utterance(model: AcousticModel, features: np.ndarray) -> np.ndarray:
    """Log p(x | pdf), up to a constant per frame.

    Args:
        model: The network, in evaluation mode.
        features: Shape (T, D), or (T, D + R) with a vector of the speaker in each row.

    Returns:
        Shape (T, K), float32.
    """
    device = model.log_prior.device
    with torch.no_grad():
        spliced = model.splicing.utterance(torch.from_numpy(np.array(features))).to(device)
        return model.log_likelihoods(spliced).cpu().numpy()


def score_scaled(
    model: AcousticModel, network: ScaledNetwork, scales: Sequence[torch.Tensor], features: np.ndarray
) -> np.ndarray:
    """``score_utterance`` by a network with scaled sites.

    Args:
        model: The network, for its priors and its context.
        network: The same network with scaled sites, from ``model.scaled(...)``.
        scales: Scales at each site, shapes (1, H).
        features: Shape (T, D), or (T, D + R) with a vector of the speaker in each row.

    Returns:
        Shape (T, K), float32.
    """
    with torch.no_grad():
        spliced = model.splicing.utterance(torch.from_numpy(np.array(features))).to(network.device)
        return over_priors(network.logits(network.psi(spliced), scales), model.log_prior).cpu().numpy()


def score_mixed(
    model: AcousticModel,
    network: ScaledNetwork,
    scales: Sequence[Sequence[torch.Tensor]],
    utterances: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """``score_scaled`` of utterances with scales of their own, whose frames go through the network together.

    Args:
        model: The network, for its priors and its context.
        network: The same network with scaled sites.
        scales: Scales of each utterance at each site, shapes (1, H), on any device.
        utterances: Features of each utterance, shapes (T_i, D).

    Returns:
        The scores of each utterance, shapes (T_i, K), float32.
    """
    scores: list[np.ndarray] = []
    device = network.device
    for group in _groups(utterances):
        lengths = [len(utterances[number]) for number in group]
        sites = zip(*(scales[number] for number in group), strict=True)
        with torch.no_grad():
            spliced = torch.cat([model.splicing.utterance(torch.from_numpy(np.array(utterances[n]))) for n in group])
            each = [
                torch.cat([rows.to(device).expand(frames, -1) for rows, frames in zip(site, lengths, strict=True)])
                for site in sites
            ]
            logits = network.logits(network.psi(spliced.to(device)), each)
            scores += np.split(over_priors(logits, model.log_prior).cpu().numpy(), np.cumsum(lengths)[:-1])
    return scores


def _groups(utterances: Sequence[np.ndarray]) -> Iterator[list[int]]:
    """Numbers of utterances that have about ``SCORING_FRAMES`` frames together."""
    group: list[int] = []
    frames = 0
    for number, features in enumerate(utterances):
        group.append(number)
        frames += len(features)
        if frames >= SCORING_FRAMES:
            yield group
            group, frames = [], 0
    if group:
        yield group
