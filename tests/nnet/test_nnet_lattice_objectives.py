"""MMI and sMBR against all paths one by one, and their derivatives against autograd over the paths."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_lattices import PDFS, SILENCE, World, chain, lattice_of, path_scores, paths_of, pdfs_of, random_world

from lhuc_asr.base.errors import LatticeError
from lhuc_asr.nnet.denominator import check_lattice
from lhuc_asr.nnet.lattice_objectives import Mmi, Reference, mmi, pdf_classes, smbr
from lhuc_asr.nnet.lattice_sums import arc_scores, expected_right, occupancy_of, path_sums

SEEDS = st.integers(0, 10**9)


def _reference(pdfs: list[int], silence: tuple[int, ...] = SILENCE) -> Reference:
    return Reference(np.array(pdfs, np.int32), pdf_classes(PDFS, silence))


def _leaf(world: World) -> torch.Tensor:
    return torch.tensor(world.logits, requires_grad=True)


@given(seed=SEEDS)
def test_totals_and_occupancies_are_sums_over_the_paths(seed):
    world = random_world(seed)
    check_lattice("random", world.lattice, PDFS)
    reference = world.reference
    scores = arc_scores(world.lattice, world.logits, reference.pdf, reference.classes, reference.of_frames)
    sums = path_sums(world.lattice, scores.log_weight)
    weights, right, _ = path_scores(world, torch.tensor(world.logits))
    assert sums.log_total == pytest.approx(float(torch.logsumexp(weights, 0)), rel=1e-12, abs=1e-12)
    probability = torch.softmax(weights, 0).numpy()
    paths = list(paths_of(world.lattice))
    posterior = np.zeros(len(world.lattice.source))
    rights = np.zeros(len(world.lattice.source))
    for path, share, number in zip(paths, probability, right.tolist(), strict=True):
        posterior[path] += share
        rights[path] += share * number
    np.testing.assert_allclose(sums.posterior, posterior, atol=1e-12)
    mean, through = expected_right(world.lattice, scores.log_weight, scores.right, sums)
    assert mean == pytest.approx(float(probability @ right.numpy()), abs=1e-12)
    np.testing.assert_allclose(posterior * through, rights, atol=1e-11)
    pdfs = np.array([pdfs_of(world.lattice, path) for path in paths])
    np.testing.assert_allclose(
        occupancy_of(world.lattice, posterior, reference.pdf), probability @ (pdfs == reference.pdf), atol=1e-12
    )


@given(seed=SEEDS, boost=st.sampled_from([0.0, 0.3, 2.0]))
def test_mmi_and_its_derivative_are_those_over_the_paths(seed, boost):
    world = random_world(seed)
    leaf = _leaf(world)
    weights, right, is_reference = path_scores(world, leaf)
    derivative = np.full_like(world.logits, np.nan)
    outcome = mmi(world.lattice, world.logits, world.reference, derivative, boost)
    truth = world.reference.pdf
    assert outcome.contained == bool(is_reference.any())
    if outcome.contained:
        numerator = torch.logsumexp(weights[is_reference], 0)
    else:
        numerator = sum((leaf[t, pdf] for t, pdf in enumerate(truth.tolist()) if pdf >= 0), torch.zeros(()))
    objective = numerator - torch.logsumexp(weights - boost * right, 0)
    assert outcome.objective == pytest.approx(objective.item(), rel=1e-10, abs=1e-10)
    objective.backward()
    # A frame is rejected where no path has the reference's pdf in it.
    pdfs = np.array([pdfs_of(world.lattice, path) for path in paths_of(world.lattice)])
    rejected = ~(pdfs == truth).any(axis=0)
    assert outcome.rejected == rejected.sum()
    np.testing.assert_allclose(derivative[~rejected], leaf.grad.numpy()[~rejected], atol=1e-11)
    assert not derivative[rejected].any()
    if boost == 0.0 and outcome.contained:
        assert outcome.objective <= 1e-12


@given(seed=SEEDS)
def test_smbr_and_its_derivative_are_those_over_the_paths(seed):
    world = random_world(seed)
    leaf = _leaf(world)
    weights, right, _ = path_scores(world, leaf)
    objective = torch.softmax(weights, 0) @ right
    derivative = np.full_like(world.logits, np.nan)
    assert smbr(world.lattice, world.logits, world.reference, derivative) == pytest.approx(objective.item(), abs=1e-11)
    objective.backward()
    np.testing.assert_allclose(derivative, leaf.grad.numpy(), atol=1e-11)


@given(seed=SEEDS)
def test_derivatives_sum_to_zero_in_each_frame_and_lie_on_the_lattices_pdfs_and_the_references(seed):
    world = random_world(seed)
    derivatives = np.zeros((2, *world.logits.shape))
    mmi(world.lattice, world.logits, world.reference, derivatives[0], 0.5)
    smbr(world.lattice, world.logits, world.reference, derivatives[1])
    np.testing.assert_allclose(derivatives.sum(axis=2), 0.0, atol=1e-12)
    possible = np.zeros(world.logits.shape, bool)
    for path in paths_of(world.lattice):
        possible[np.arange(len(possible)), pdfs_of(world.lattice, path)] = True
    assert not derivatives[:, ~possible].any()


@given(seed=SEEDS, shift=st.floats(-50, 50))
def test_a_constant_on_a_frame_changes_no_derivative(seed, shift):
    world = random_world(seed)
    shifted = world.logits + shift * np.arange(1, len(world.logits) + 1)[:, None]
    for objective in (mmi, smbr):
        derivatives = np.zeros((2, *world.logits.shape))
        objective(world.lattice, world.logits, world.reference, derivatives[0])
        objective(world.lattice, shifted, world.reference, derivatives[1])
        np.testing.assert_allclose(derivatives[0], derivatives[1], atol=1e-9)


@given(seed=SEEDS, boost=st.sampled_from([0.0, 0.7]), scale=st.sampled_from([0.1, 1.0]))
def test_derivatives_with_respect_to_logits_are_the_slopes(seed, boost, scale):
    """Finite differences in float64, through softmax, priors and scale; MMI in lattices that have the reference."""
    world = random_world(seed)
    prior = np.log(np.arange(1, PDFS + 1) / np.arange(1, PDFS + 1).sum())

    def scaled(logits: np.ndarray) -> np.ndarray:
        return scale * (torch.log_softmax(torch.from_numpy(logits), 1).numpy() - prior)

    def value(logits: np.ndarray, kind: str) -> float:
        if kind == "smbr":
            return smbr(world.lattice, scaled(logits), world.reference)
        return mmi(world.lattice, scaled(logits), world.reference, boost=boost).objective

    derivative = np.zeros_like(world.logits)
    for kind in ("smbr", "mmi"):
        if kind == "smbr":
            smbr(world.lattice, scaled(world.logits), world.reference, derivative)
        elif mmi(world.lattice, scaled(world.logits), world.reference, derivative, boost).rejected:
            continue
        slopes, step = np.zeros_like(world.logits), 1e-5
        for place in np.ndindex(*slopes.shape):
            nudge = np.zeros_like(slopes)
            nudge[place] = step
            slopes[place] = (value(world.logits + nudge, kind) - value(world.logits - nudge, kind)) / (2 * step)
        np.testing.assert_allclose(scale * derivative, slopes, atol=1e-8)


def test_the_reference_alone_is_certain():
    pdfs = [0, 1, 1, 4]
    scores = np.random.default_rng(0).normal(size=(4, PDFS))
    derivative = np.full((4, PDFS), np.nan)
    outcome = mmi(chain(pdfs, 2.0), scores, _reference(pdfs), derivative)
    assert outcome.objective == pytest.approx(0.0, abs=1e-12)
    assert outcome.contained
    assert outcome.rejected == 0
    np.testing.assert_allclose(derivative, 0.0, atol=1e-12)
    assert smbr(chain(pdfs), scores, _reference(pdfs), derivative) == 4.0
    np.testing.assert_allclose(derivative, 0.0, atol=1e-12)


def test_two_equal_words_by_hand():
    """A word of three frames against another, equally probable: the derivatives are halves, and halves of 3 - 1."""
    lattice = lattice_of([0, 3], [(0, 1, 1.0, [0, 0, 2]), (0, 1, 1.0, [4, 0, 4])], {1: 0.0})
    derivative = np.zeros((3, PDFS))
    outcome = mmi(lattice, np.zeros((3, PDFS)), _reference([0, 0, 2]), derivative)
    assert outcome.objective == pytest.approx(-np.log(2))
    expected = np.zeros((3, PDFS))
    expected[[0, 2], [0, 2]], expected[[0, 2], [4, 4]] = 0.5, -0.5
    np.testing.assert_allclose(derivative, expected, atol=1e-12)
    assert smbr(lattice, np.zeros((3, PDFS)), _reference([0, 0, 2]), derivative) == pytest.approx(2.0)
    np.testing.assert_allclose(derivative, expected, atol=1e-12)


def test_pdfs_of_silence_are_one_class():
    assert SILENCE == (1, 3)
    lattice, scores = chain([1, 0, 3]), np.zeros((3, PDFS))
    assert smbr(lattice, scores, _reference([3, 1, 3])) == 2.0
    assert smbr(lattice, scores, _reference([3, 1, 3], silence=())) == 1.0


def test_a_reference_that_is_not_in_the_lattice():
    """Frames that it shares with a path are trained on, others are rejected; sMBR takes the nearest path."""
    lattice = lattice_of(
        [0, 1, 2, 3],
        [(0, 1, 0.0, [0]), (0, 1, 0.0, [1]), (1, 2, 0.0, [2]), (2, 3, 0.0, [2]), (2, 3, 0.0, [4])],
        {3: 0.0},
    )
    scores, derivative = np.random.default_rng(2).normal(size=(3, PDFS)), np.zeros((3, PDFS))
    outcome = mmi(lattice, scores, _reference([0, 0, 4]), derivative)
    assert not outcome.contained
    assert outcome.rejected == 1
    assert not derivative[1].any()
    first, last = np.exp(scores[0, [0, 1]]), np.exp(scores[2, [2, 4]])
    assert derivative[0, 0] == pytest.approx(1 - first[0] / first.sum())
    assert derivative[2, 4] == pytest.approx(1 - last[1] / last.sum())
    right = first[0] / first.sum() + last[1] / last.sum()
    assert smbr(lattice, scores, _reference([0, 0, 4])) == pytest.approx(right)


def test_frames_without_a_reference_are_not_counted():
    """Two of three paths have the reference where it is known, whatever they have in the first frame.

    There MMI has no derivative. sMBR has one: pdfs 0 and 3 go on to the right pdf 2, and pdf 1 to the wrong 4.
    """
    lattice = lattice_of(
        [0, 1, 1, 2], [(0, 1, 0.0, [1]), (0, 2, 0.0, [0]), (1, 3, 0.0, [4]), (2, 3, 0.0, [2]), (0, 3, 0.0, [3, 2])],
        {3: 0.0},
    )  # fmt: skip
    scores, derivative = np.zeros((2, PDFS)), np.zeros((2, PDFS))
    reference = _reference([-1, 2], silence=())
    outcome = mmi(lattice, scores, reference, derivative)
    assert outcome == Mmi(pytest.approx(np.log(2 / 3)), True, 1)
    np.testing.assert_allclose(derivative, [[0.0] * PDFS, [0.0, 0.0, 1 / 3, 0.0, -1 / 3]], atol=1e-12)
    assert smbr(lattice, scores, reference, derivative) == pytest.approx(2 / 3)
    # Probability 1/3 of each path times its right frames less 2/3.
    np.testing.assert_allclose(derivative[0], [1 / 9, -2 / 9, 0.0, 1 / 9, 0.0], atol=1e-12)
    # A path that the lattice lacks: its score in the frame that is known is all that can be said of it.
    scores[:] = np.random.default_rng(0).normal(size=scores.shape)
    outcome = mmi(lattice, scores, _reference([-1, 0], silence=()))
    total = np.logaddexp.reduce([scores[0, 1] + scores[1, 4], scores[0, 0] + scores[1, 2], scores[0, 3] + scores[1, 2]])
    assert (outcome.contained, outcome.rejected) == (False, 2)
    assert outcome.objective == pytest.approx(scores[1, 0] - total)


def test_a_path_that_is_too_improbable_for_floats_counts_as_none():
    lattice = lattice_of([0, 1], [(0, 1, 0.0, [0]), (0, 1, 1e6, [1])], {1: 0.0})
    derivative = np.zeros((1, PDFS))
    assert mmi(lattice, np.zeros((1, PDFS)), _reference([1]), derivative).rejected == 1
    assert not derivative.any()


def test_float32_gives_the_same_as_float64_up_to_its_own_rounding():
    world = random_world(7)
    single = world.logits.astype(np.float32)
    for objective in (mmi, smbr):
        narrow, wide = np.zeros_like(single), np.zeros_like(world.logits)
        objective(world.lattice, single, world.reference, narrow)
        objective(world.lattice, single.astype(np.float64), world.reference, wide)
        np.testing.assert_allclose(narrow, wide, atol=1e-6)


def test_scores_that_are_not_numbers_do_not_pass_for_numbers():
    """Training has to see that it diverged."""
    lattice = lattice_of([0, 1, 2], [(0, 1, 0.0, [0]), (0, 1, 0.0, [1]), (1, 2, 0.0, [2])], {2: 0.0})
    scores = np.array([[np.nan] * PDFS, [0.0] * PDFS])
    assert np.isnan(smbr(lattice, scores, _reference([0, 2])))
    assert np.isnan(mmi(lattice, scores, _reference([0, 2])).objective)
    assert np.isnan(mmi(lattice, scores, _reference([4, 2])).objective)


@pytest.mark.parametrize(
    ("scores", "pdfs", "array", "message"),
    [
        ((3, PDFS), [0, 0], (2, PDFS), r"log-likelihoods of shape \(3, 5\) and a reference of 2 frames"),
        ((2, PDFS), [0, 0, 0], (2, PDFS), "reference of 3 frames for a lattice of 2 frames and 5 pdfs"),
        ((2, PDFS - 1), [0, 0], (2, PDFS), r"shape \(2, 4\).*5 pdfs; make the lattices again"),
        ((2, PDFS), [0, 0], (1, PDFS), r"an array of shape \(1, 5\) for a derivative of shape \(2, 5\)"),
        ((2, PDFS), [0, PDFS], (2, PDFS), "pdf 5 for a network with pdfs 0 to 4; make the lattices again"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(scores, pdfs, array, message):
    for objective in (mmi, smbr):
        with pytest.raises(LatticeError, match=message):
            objective(chain([0, 4]), np.zeros(scores), _reference(pdfs), np.zeros(array))


def test_pdfs_of_silence_that_the_network_does_not_have_are_refused():
    for silence in ([-1], [PDFS]):
        with pytest.raises(LatticeError, match=r"pdfs of silence .*, expected 0 to 4"):
            pdf_classes(PDFS, silence)
