"""Log densities of mixtures from those of their Gaussians, in one compiled pass over values that stay in the cache."""

from __future__ import annotations

import numpy as np
import torch

from lhuc_asr.base.compiled import compiled

# exp(x) is 2^n 2^f, with n a whole number and f at most a half from zero; 2^f by its Taylor series, whose rest is below
# 2e-7 there. Compiled loops over single floats, unlike calls of exp, become vector instructions.
_LOG2_E = np.float32(1 / np.log(2.0))
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(np.log(2.0) ** power / factorial)
    for power, factorial in ((1, 1), (2, 2), (3, 6), (4, 24), (5, 120), (6, 720))
)
_ONE, _HALF = np.float32(1.0), np.float32(0.5)
# The smallest exponent of a normal float32, its bias, and the place of the exponent's bits.
_LOWEST, _BIAS, _EXPONENT_BITS = np.float32(-126.0), np.int32(127), np.int32(23)


def log_sum_exp(densities: torch.Tensor, starts: np.ndarray) -> torch.Tensor:
    """Sum the densities of each mixture.

    Args:
        densities: Log density of each Gaussian for each frame, those of a mixture being neighbours, shape (M, T),
            float32, contiguous; it is overwritten.
        starts: First Gaussian of each mixture, and M at the end, shape (K + 1,), int64; every mixture has one or more.

    Returns:
        Log density of each mixture, shape (K, T), float32.
    """
    shape = len(starts) - 1, densities.shape[1]
    highest, total = densities.new_empty(shape), densities.new_empty(shape)
    exponents = np.empty(shape[1], dtype=np.int32)
    _sum(densities.numpy(), starts, highest.numpy(), total.numpy(), exponents, exponents.view(np.float32))
    return highest.add_(total.log_())


@compiled
def _sum(
    densities: np.ndarray,
    starts: np.ndarray,
    highest: np.ndarray,
    total: np.ndarray,
    exponents: np.ndarray,
    powers: np.ndarray,
) -> None:
    """Highest log density of each mixture, and the sum of the densities over it; ``powers`` are ``exponents``' bits."""
    frames = densities.shape[1]
    for mixture in range(len(starts) - 1):
        first, end = starts[mixture], starts[mixture + 1]
        high, sums = highest[mixture], total[mixture]
        high[:] = densities[first]
        sums[:] = np.float32(0.0)
        for gaussian in range(first + 1, end):
            row = densities[gaussian]
            for t in range(frames):
                high[t] = max(high[t], row[t])
        for gaussian in range(first, end):
            row = densities[gaussian]
            for t in range(frames):
                x = max((row[t] - high[t]) * _LOG2_E, _LOWEST)
                # x is not positive, so that cutting off the fraction of x - 1/2 rounds to the nearest.
                whole = np.int32(x - _HALF)
                f = x - np.float32(whole)
                row[t] = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
                exponents[t] = (whole + _BIAS) << _EXPONENT_BITS
            for t in range(frames):
                sums[t] += row[t] * powers[t]
