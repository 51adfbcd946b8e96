"""Row updates: each raises the auxiliary function, their end is its maximum, and speakers do not meet."""

import pytest
import torch

from lhuc_asr.base.errors import TransformError
from lhuc_asr.hmm.row_updates import RowAscent, RowStatistics, maximum

DIMENSION = 6


def statistics(speakers: int, seed: int, affine: bool = True) -> RowStatistics:
    """Statistics of random frames and random means and precisions, by the definition."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    values = normal(speakers, 300, DIMENSION) @ (torch.eye(DIMENSION, dtype=torch.float64) + 0.3 * normal(DIMENSION))
    values = torch.cat([values, torch.ones(speakers, 300, 1)], 2) if affine else values
    precision = 0.5 + torch.rand(speakers, 300, DIMENSION, generator=generator, dtype=torch.float64)
    mean = 0.7 * values[..., :DIMENSION] + 0.3 * normal(speakers, 300, DIMENSION) + 0.5
    linear = torch.einsum("std,stn->sdn", mean * precision, values)
    return RowStatistics(
        tuple(f"s{speaker}" for speaker in range(speakers)),
        torch.full((speakers,), 300.0, dtype=torch.float64),
        linear if affine else torch.zeros_like(linear),
        torch.einsum("std,stm,stn->sdmn", precision, values, values),
    )


def objective(of: RowStatistics, transform: torch.Tensor) -> torch.Tensor:
    """Q of the only speaker, written with sums over rows, for differentiation."""
    total = of.count[0] * torch.linalg.slogdet(transform[:, : of.dimension])[1]
    for row, linear, quadratic in zip(transform, of.linear[0], of.quadratic[0], strict=True):
        total = total + row @ linear - 0.5 * row @ quadratic @ row
    return total


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "linear"])
@pytest.mark.parametrize("blocks", [1, 2, DIMENSION])
def test_every_row_update_raises_the_objective(affine, blocks):
    of = statistics(2, 1, affine)
    ascent = RowAscent(of, of.identity(), blocks)
    before = of.objective(ascent.transforms)
    for _ in range(5):
        ascent.begin_sweep()
        for row in range(DIMENSION):
            ascent.update(row)
            after = of.objective(ascent.transforms)
            assert bool((after >= before - 1e-9 * before.abs()).all())
            before = after
    assert bool((before > of.objective(of.identity()) + 1.0).all())


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "linear"])
@pytest.mark.parametrize("blocks", [1, 2, DIMENSION])
def test_the_end_is_the_maximum(affine, blocks):
    """The gradient vanishes where the transform is free, and a general optimiser comes to the same transform."""
    of = statistics(1, 2, affine)
    transform = maximum(of, 300 if affine else 1000, blocks)[0]
    size = DIMENSION // blocks
    free = torch.zeros_like(transform, dtype=torch.bool)
    for first in range(0, DIMENSION, size):
        free[first : first + size, first : first + size] = True
    free[:, DIMENSION:] = True
    assert bool((transform[~free] == 0).all())
    point = transform.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(of, point), point)
    assert float(gradient[free].abs().max()) < 1e-6 * float(of.count)
    numbers = of.identity()[0][free].requires_grad_()
    optimiser = torch.optim.LBFGS([numbers], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = -objective(of, torch.zeros_like(transform).masked_scatter(free, numbers)) / of.count[0]
        value.backward()
        return value

    optimiser.step(loss)
    other = torch.zeros_like(transform).masked_scatter(free, numbers.detach())
    torch.testing.assert_close(float(objective(of, transform)), float(objective(of, other)), rtol=1e-8, atol=0)
    if affine:  # without the linear term, the sign of a row is free
        torch.testing.assert_close(transform, other, atol=1e-4, rtol=0)


def test_the_objective_is_the_sum_over_rows():
    of = statistics(1, 3)
    transform = of.identity() + 0.1
    assert float(of.objective(transform)) == pytest.approx(float(objective(of, transform[0])), rel=1e-12)


def test_a_transform_does_not_depend_on_who_else_is_estimated():
    of = statistics(7, 4)
    together = maximum(of, 10)
    for speaker in range(7):
        assert torch.equal(maximum(of.of([speaker]), 10)[0], together[speaker])
    assert torch.equal(maximum(of.of([5, 2]), 10), together[[5, 2]])


def test_statistics_of_two_parts_add_up_and_stack():
    one, two = statistics(2, 5), statistics(2, 6)
    both = one + two
    assert torch.equal(both.quadratic, one.quadratic + two.quadratic)
    assert torch.equal(both.linear, one.linear + two.linear)
    assert both.count.tolist() == [600.0, 600.0]
    stacked = RowStatistics.stacked([one.of([1]), two.of([0])])
    assert stacked.names == ("s1", "s0")
    assert torch.equal(stacked.quadratic[1], two.quadratic[0])
    with pytest.raises(TransformError, match="cannot be added"):
        one + two.of([0])


@pytest.mark.parametrize("blocks", [1, DIMENSION])
def test_singular_statistics_name_the_speaker(blocks):
    """A feature that is constant, as the offset's is: in the rows of full matrices, and in its own."""
    of = statistics(3, 7)
    quadratic = of.quadratic.clone()
    quadratic[1, :, 2], quadratic[1, :, :, 2] = 3 * quadratic[1, :, -1], 3 * quadratic[1, :, :, -1]
    quadratic[1, :, 2, 2] = 9 * quadratic[1, :, -1, -1]
    with pytest.raises(TransformError, match="s1: the covariance of the features is singular"):
        maximum(RowStatistics(of.names, of.count, of.linear, quadratic), 1, blocks)


def test_blocks_that_do_not_divide_the_features_are_refused():
    with pytest.raises(TransformError, match="6 features cannot be cut into 4 equal blocks"):
        maximum(statistics(1, 8), 1, 4)
