"""Sums over mixtures against torch's in float64, near and far from each other, and of any sizes."""

import numpy as np
import pytest
import torch

from lhuc_asr.hmm.log_sum_exp import log_sum_exp


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("sizes", [(1,), (3, 1, 8), (40,)])
def test_sums_are_those_of_float64(spread, sizes):
    generator = torch.Generator().manual_seed(0)
    densities = spread * torch.randn(sum(sizes), 67, generator=generator) - 100.0
    expected = torch.stack([torch.logsumexp(part.double(), 0) for part in densities.split(sizes)])
    sums = log_sum_exp(densities, np.concatenate([[0], np.cumsum(sizes)]))
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums.double(), expected, atol=1e-6, rtol=1e-7)


def test_densities_far_below_the_highest_add_nothing():
    """Beyond what float32 holds, at infinity too; on either side of the smallest normal number."""
    densities = torch.tensor([[0.0], [-87.0], [-88.0], [-1000.0], [-1e30], [-torch.inf]])
    assert log_sum_exp(densities, np.array([0, 6])).item() == 0.0


def test_the_exponential_is_exact_to_a_few_units_of_float32():
    """Through mixtures of two, log(1 + exp(x)), whose slope by exp(x) is one where that is small."""
    x = torch.linspace(-14.0, 0.0, 5001)
    sums = log_sum_exp(torch.stack([torch.zeros_like(x), x]), np.array([0, 2]))
    torch.testing.assert_close(sums[0].double(), torch.log1p(x.double().exp()), atol=2e-7, rtol=3e-7)
