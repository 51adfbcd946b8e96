"""fDLR: its steps are the gradient's, its forms leave out what they say, and a known distortion is undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scaled_speakers import PDFS, WIDTH, frames_of, small_dnn
from torch.nn import functional

from lhuc_asr.adapt.fdlr import Fdlr, FdlrConfig
from lhuc_asr.adapt.lhuc import PAPER, Lhuc, LhucConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.stacked import StackedMethod
from lhuc_asr.base.errors import TransformError
from lhuc_asr.features.context import splice
from lhuc_asr.nnet.dnn import Dnn

EYE = torch.eye(WIDTH, WIDTH + 1, dtype=torch.float64)


@pytest.fixture
def model() -> Dnn:
    return small_dnn()


def estimated(model: Dnn, frames: SpeakerData, **options: object) -> torch.Tensor:
    """W of one speaker, shape (D, D + 1)."""
    return Fdlr(FdlrConfig.model_validate(options)).estimate(model, {"ann": frames}, seed=1).transforms.of("ann")


def cross_entropy(model: Dnn, frames: SpeakerData, transform: torch.Tensor) -> torch.Tensor:
    """Mean over the frames, each utterance transformed before it is spliced, in float64."""
    double, pdfs = small_dnn().double(), torch.from_numpy(frames.targets.pdf[:, 0]).long()
    double.load_state_dict(model.state_dict())
    features = torch.from_numpy(frames.features).double() @ transform[:, :-1].T + transform[:, -1]
    spliced = torch.cat([splice(utterance, 1) for utterance in features.split(frames.lengths)])
    return functional.cross_entropy(double(spliced), pdfs)


def in_two(frames: SpeakerData) -> SpeakerData:
    """The same frames as two utterances."""
    return replace(frames, lengths=(len(frames.features) // 3, len(frames.features) - len(frames.features) // 3))


def test_a_step_of_sgd_follows_the_gradient_of_the_cross_entropy(model):
    frames = in_two(frames_of(model, 5, 60))
    transform = EYE.clone().requires_grad_()
    cross_entropy(model, frames, transform).backward()
    moved = estimated(model, frames, **{**PAPER, "batch_size": 60, "learning_rate": 0.1})
    assert transform.grad is not None
    assert float(transform.grad.abs().max()) > 0.05
    torch.testing.assert_close(moved, EYE - 0.1 * transform.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [7, 20, 512])
def test_speakers_of_any_lengths_together_are_each_alone(model, batch_size):
    speakers = {f"s{n}": in_two(frames_of(model, n, 20 + 17 * n)) for n in range(5)}
    method = Fdlr(FdlrConfig(batch_size=batch_size, learning_rate=0.02, sweeps=2, prior_deviation=0.5))
    together = method.estimate(model, speakers, seed=3).transforms
    for name, frames in speakers.items():
        alone = method.estimate(model, {name: frames}, seed=3).transforms.of(name)
        torch.testing.assert_close(together.of(name), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "kept"),
    [
        ("full", torch.ones(WIDTH, WIDTH)),
        ("block", torch.block_diag(*[torch.ones(2, 2)] * 3)),
        ("diagonal", torch.eye(WIDTH)),
        ("offset", torch.zeros(WIDTH, WIDTH)),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_form_moves_its_own_numbers_and_no_others(model, form, kept, optimizer):
    options = {"min_counts": {form: 60.0}, "blocks": 3, "optimizer": optimizer, "learning_rate": 0.02}
    moved = estimated(model, frames_of(model, 5, 60), **options) != EYE
    assert torch.equal(moved, torch.cat([kept.bool(), torch.ones(WIDTH, 1, dtype=torch.bool)], dim=1))
    assert torch.equal(estimated(model, frames_of(model, 5, 59), **options), EYE)


def test_a_speaker_gets_the_richest_form_that_they_have_enough_for(model):
    options = {"min_counts": {"full": 200.0, "diagonal": 50.0, "offset": 10.0}, "learning_rate": 0.02}
    numbers = [int((estimated(model, frames_of(model, 5, n), **options) != EYE).sum()) for n in (9, 49, 199, 200)]
    assert numbers == [0, WIDTH, 2 * WIDTH, WIDTH * (WIDTH + 1)]


def test_a_known_distortion_is_undone(model):
    """Pdfs are the network's own for frames that the speaker's channel then distorts."""
    generator = torch.Generator().manual_seed(8)
    channel = torch.eye(WIDTH) + 0.25 * torch.randn(WIDTH, WIDTH, generator=generator)
    clean = frames_of(model, 9, 3000)
    heard = replace(clean, features=clean.features @ channel.numpy().T + 0.4)
    inverse = torch.linalg.inv(channel.double())
    best = torch.cat([inverse, -0.4 * inverse.sum(1, keepdim=True)], dim=1)
    moved = estimated(model, heard, learning_rate=0.01, sweeps=30, kl_weight=0.0)
    before, after, bound = (cross_entropy(model, heard, each).item() for each in (EYE, moved, best))
    assert before > bound + 0.3
    assert after < bound + 0.05 * (before - bound)
    # Speech that was not adapted on.
    unheard = frames_of(model, 10, 1000)
    unheard = replace(unheard, features=unheard.features @ channel.numpy().T + 0.4)
    before, after, bound = (cross_entropy(model, unheard, each).item() for each in (EYE, moved, best))
    assert after < bound + 0.1 * (before - bound)


def test_a_prior_holds_a_map_near_the_identity(model):
    frames = frames_of(model, 5, 100)
    free, held = (
        float((estimated(model, frames, sweeps=40, learning_rate=0.01, prior_deviation=sigma) - EYE).norm())
        for sigma in (None, 0.05)
    )
    assert 0.0 < held < 0.3 * free


def test_bfloat16_ends_near_float32(model):
    frames = frames_of(model, 5, 300)
    one, other = (estimated(model, frames, learning_rate=0.01, bfloat16=narrow) - EYE for narrow in (False, True))
    assert not torch.equal(one, other)
    assert float((one - other).norm() / one.norm()) < 0.1


def test_amplitudes_go_on_top_of_a_map(model):
    frames = {"ann": frames_of(model, 5, 100), "bob": frames_of(model, 6, 50)}
    below = Fdlr(FdlrConfig(learning_rate=0.01)).estimate(model, frames, seed=1)
    stacked = StackedMethod(below, Lhuc(LhucConfig())).estimate(model, frames, seed=1)
    utterance = np.random.default_rng(0).standard_normal((20, WIDTH)).astype(np.float32)
    scores = stacked.log_likelihoods("ann", [utterance])
    assert scores.shape == (20, PDFS)
    assert np.abs(scores - below.log_likelihoods("ann", [utterance])).max() > 0.01
    control = stacked.pooled(["ann"], ["bob"])
    assert control.below is stacked.below


def test_features_that_cannot_be_cut_into_the_blocks_are_refused(model):
    with pytest.raises(TransformError, match="6 features cannot be cut into 4 equal blocks; choose a number"):
        estimated(model, frames_of(model, 5, 60), min_counts={"block": 1.0}, blocks=4)
