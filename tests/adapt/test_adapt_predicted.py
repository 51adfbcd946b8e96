"""Predicted amplitudes: statistics by hand, least squares as the linear gate's oracle, a gain by construction."""

import pytest
import torch

from lhuc_asr.adapt.lhuc import LearnedLhucConfig, Lhuc
from lhuc_asr.adapt.predicted import GATES_FILE, Predicted, PredictedConfig
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.features.context import splice

PLAIN = LearnedLhucConfig(learning_rate=0.05, sweeps=4, kl_weight=0.0, batch_size=64)


def statistics_of(small, frames):
    hidden, means = splice(torch.from_numpy(frames.features), 1), []
    for layer in small.hidden:
        hidden = torch.sigmoid(layer.linear(hidden))
        means.append(hidden.mean(0))
    return torch.cat(means).detach().double()


@pytest.mark.parametrize("around", ["speakers", "unadapted"])
def test_the_linear_gate_ends_at_least_squares(small, speaker_of, tmp_path, around):
    """Normal equations on components found by hand; a new speaker gets their prediction."""
    generator = torch.Generator().manual_seed(6)
    training = {f"t{n}": speaker_of(n, 80, 0.3 * torch.randn(2, 16, generator=generator)) for n in range(6)}
    config = PredictedConfig(lhuc=PLAIN, dimensions=2, steps=2000, learning_rate=0.02, weight_decay=0.0, around=around)
    method = Predicted(config, tmp_path)
    method.prepare(small, training, seed=0)
    ann = speaker_of(40, 70)
    adapted = method.estimate(small, {"ann": ann}, seed=0).bank.side_by_side()[1].double()

    statistics = torch.stack([statistics_of(small, frames) for frames in training.values()])
    centred = statistics - statistics.mean(0)
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    directions = vectors[:, -2:]
    inputs = torch.cat([centred @ directions, torch.ones(6, 1, dtype=torch.float64)], 1)
    targets = Lhuc(PLAIN).estimate(small, training, seed=0).bank.side_by_side()[1:].double()
    if around == "unadapted":  # which is neutral: 0
        targets -= targets.mean(0)
    solution = torch.linalg.solve(inputs.T @ inputs, inputs.T @ targets)
    own = torch.cat([(statistics_of(small, ann) - statistics.mean(0)) @ directions, torch.ones(1).double()])
    torch.testing.assert_close(adapted, own @ solution, rtol=1e-3, atol=1e-2)  # Adam's last steps are that long
    assert (own @ solution - targets.mean(0)).abs().max() > 0.05


def test_decay_shrinks_towards_the_mean_amplitudes(small, speaker_of, tmp_path):
    generator = torch.Generator().manual_seed(6)
    training = {f"t{n}": speaker_of(n, 80, 0.3 * torch.randn(2, 16, generator=generator)) for n in range(4)}
    rows = Lhuc(PLAIN).estimate(small, training, seed=0).bank.side_by_side()[1:]
    distance = []
    for decay in (0.0, 1e2):
        config = PredictedConfig(
            lhuc=PLAIN, dimensions=3, steps=600, learning_rate=0.01, weight_decay=decay, around="speakers"
        )
        method = Predicted(config, tmp_path / str(decay))
        method.prepare(small, training, seed=0)
        adapted = method.estimate(small, training, seed=0).bank.side_by_side()[1:]
        distance.append(float((adapted - rows.mean(0)).abs().max()))
    assert distance[1] < 0.05 < distance[0]


@pytest.mark.parametrize("joint_sweeps", [0, 2])
def test_amplitudes_that_can_be_seen_in_the_features_are_predicted(small, speaker_of, loss_of, tmp_path, joint_sweeps):
    """A speaker's frames are scaled by 0.5 to 1.5; the amplitudes follow from that number, without targets."""
    direction = torch.randn(2, 16, generator=torch.Generator().manual_seed(3))

    def speaker(seed, frames, size):
        return speaker_of(seed, frames, (size - 1) * 2 * direction, scale=size)

    sizes = torch.linspace(0.5, 1.5, 16).tolist()
    training = {f"t{n}": speaker(n, 150, size) for n, size in enumerate(sizes)}
    config = PredictedConfig(lhuc=PLAIN, dimensions=2, weight_decay=0.01, joint_sweeps=joint_sweeps, around="speakers")
    method = Predicted(config, tmp_path)
    method.prepare(small, training, seed=0)
    new = {f"n{n}": speaker(50 + n, 100, size) for n, size in enumerate((0.6, 0.8, 1.2, 1.4))}
    adapted = method.estimate(small, new, seed=0)
    nothing = Lhuc(PLAIN.model_copy(update={"learning_rate": 1e-9})).estimate(small, new, seed=0)
    gained = [loss_of(nothing, name, frames) - loss_of(adapted, name, frames) for name, frames in new.items()]
    assert sum(gained) / len(gained) > 0.1, gained
    assert load_tensors(tmp_path / GATES_FILE)[0]["0.output.weight"].shape == (16, 2)
