"""Rows move, and amplitudes follow from them, to the bit as if each were alone: a processor's vectors end elsewhere."""

from __future__ import annotations

import pytest
import torch

from lhuc_asr.lhuc import RowAdam, RowSGD, amplitude
from lhuc_asr.lhuc.row_optim import _learned_share

# More rows than a vector of any processor has numbers, and widths that are and are not multiples of it.
ROWS = 41
WIDTHS = (1, 7, 47, 64)


def moved(optimizer: type[RowAdam] | type[RowSGD], start: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """A table (N, H) after steps with gradients (steps, N, H)."""
    table = torch.nn.Embedding.from_pretrained(start.clone(), freeze=False, sparse=True)
    made = optimizer(table.parameters(), lr=0.01, weight_decay=0.1)
    for gradient in gradients:
        made.zero_grad()
        (table(torch.arange(len(start))) * gradient).sum().backward()
        made.step()
    return table.weight.detach()


@pytest.mark.parametrize("optimizer", [RowAdam, RowSGD])
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_move_as_each_would_alone(optimizer: type[RowAdam] | type[RowSGD], width: int) -> None:
    """Adam's powers of 0.9 and 0.999 differ by place from 31 and from 168 steps on."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(ROWS, width, generator=generator)
    start[0] = 0.0  # the row towards which the others decay
    gradients = torch.randn(200, ROWS, width, generator=generator)
    together = moved(optimizer, start, gradients)
    for row in range(1, ROWS, 8):
        alone = moved(optimizer, start[[0, row]], gradients[:, [0, row]])
        assert torch.equal(alone[1], together[row]), row


@pytest.mark.parametrize("name", ["exp", "2sigmoid", "identity", "relu"])
@pytest.mark.parametrize("width", WIDTHS)
def test_amplitudes_and_their_gradients_do_not_depend_on_the_place(name: str, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, gradient = torch.randn(2, ROWS, width, generator=generator)

    def values_and_slopes(rows: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = rows.clone().requires_grad_()
        values = amplitude(name)(rows)
        values.backward(gradient)
        assert rows.grad is not None
        return values.detach(), rows.grad

    values, slopes = values_and_slopes(rows, gradient)
    for row in range(ROWS):
        value, slope = values_and_slopes(rows[row : row + 1], gradient[row : row + 1])
        assert torch.equal(value[0], values[row]), row
        assert torch.equal(slope[0], slopes[row]), row


def test_the_share_that_adam_has_learned_is_that_of_powers() -> None:
    """A million steps and more, beside powers in double precision."""
    steps = torch.tensor([1, 2, 31, 4095, 4096, 4097, 10**5, 10**6, 2**24 - 1], dtype=torch.float32)[:, None]
    for beta in (0.0, 0.9, 0.999, 0.999_999, 0.999_999_9):
        share = _learned_share(beta, steps).double()
        torch.testing.assert_close(share, 1 - beta ** steps.double(), rtol=3e-7, atol=0.0)
