"""Trees of a world with known classes, and their gains against likelihoods that are computed frame by frame."""

import itertools

import numpy as np
import pytest
import torch
from triphone_world import CLASSES, PHONES, largest_likelihood, speech, statistics

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.tied_gaussians import pdf_statistics
from lhuc_asr.hmm.tree import LEFT, PHONE, POSITION, RIGHT, ContextTree, Leaf, Split
from lhuc_asr.hmm.tree_building import BuiltTree, TreeConfig, build_tree
from lhuc_asr.hmm.tree_statistics import TreeStatistics, log_likelihoods
from lhuc_asr.hmm.triphone import TriphoneTopology
from lhuc_asr.lang.phones import SILENCE, PhoneSet

SILENCE_PDFS = 5


def built(config: TreeConfig, seed: int = 1) -> tuple[BuiltTree, TreeStatistics]:
    sums = statistics(seed)
    return build_tree(sums, PHONES, config), sums


def frames_and_likelihood(tree: ContextTree, sums: TreeStatistics) -> tuple[list[float], float]:
    """Frames of each pdf, and the log-likelihood of all frames under the Gaussians of their pdfs."""
    gathered = pdf_statistics(sums, TriphoneTopology.initial(PHONES, tree))
    table = np.concatenate([gathered.occupancy[:, None], gathered.first, gathered.second], axis=1)
    return gathered.occupancy.tolist(), float(log_likelihoods(table).sum())


def test_the_classes_that_move_a_state_are_what_it_is_split_on():
    """The first state depends on the left class only, the middle one on nothing, the last one on the right class."""
    tree = built(TreeConfig(leaves=5 + 6 * (4 + 1 + 4), shared_roots=False, tie_leaves=False))[0].tree
    for phone in PHONES.speech:
        windows = list(itertools.product(PHONES.names, repeat=2))
        first, middle, last = ({(a, b): tree.pdfs(a, phone, b)[k] for a, b in windows} for k in range(3))
        assert len(set(middle.values())) == 1
        for pdfs, side in ((first, 0), (last, 1)):
            classes = {window: CLASSES[window[side]] for window in windows}
            assert len({(classes[window], pdf) for window, pdf in pdfs.items()}) == len(set(pdfs.values())) == 4


def test_the_states_of_a_shared_root_are_told_apart_first():
    """States lie further apart than contexts do."""
    tree = built(TreeConfig(leaves=60))[0].tree
    for phone in PHONES.speech:
        (root,) = set(tree.roots[phone])
        node = tree.nodes[root]
        assert isinstance(node, Split)
        assert node.aspect == POSITION


def test_tied_leaves_of_a_shared_root_may_belong_to_two_states():
    """No context moves these states, and the first and the last one sound alike: they end in one pdf."""
    generator = np.random.default_rng(3)
    table = np.array([(2, 2, 2, position) for position in (0, 1, 2) for _ in range(200)], np.int32)
    features = generator.normal(size=(600, 2)) + np.where(table[:, 3:] == 1, 8.0, 0.0)
    contexts, which = np.unique(table, axis=0, return_inverse=True)
    rows = [np.concatenate([[200], f.sum(0), (f**2).sum(0)]) for f in (features[which == k] for k in range(3))]
    phones = PhoneSet.of(["A"])
    sums = TreeStatistics(contexts.astype(np.int32), np.array(rows))
    tree = build_tree(sums, phones, TreeConfig(leaves=8)).tree
    first, middle, last = tree.pdfs("A", "A", "A")
    assert first == last != middle


def test_each_gain_is_the_rise_of_the_likelihood_of_the_frames():
    """Trees of one leaf more, frame by frame under the Gaussian of each leaf's frames: no sums, no matrices."""
    features, aligned = speech(np.random.default_rng(4), length=400)
    sums = TreeStatistics.of(features, [aligned])
    values = features.double().numpy()
    before, gains = None, None
    for leaves in range(11, 25):
        result = build_tree(sums, PHONES, TreeConfig(leaves=leaves, min_frames=30, tie_leaves=False))
        assert result.tree.pdf_count == result.untied == leaves
        pdfs = aligned.pdfs(TriphoneTopology.initial(PHONES, result.tree))
        after = sum(largest_likelihood(values[pdfs == pdf]) for pdf in range(leaves))
        if before is not None and gains is not None:
            assert result.gains[-1] == pytest.approx(after - before, rel=1e-6)
            assert np.array_equal(result.gains[:-1], gains)
        before, gains = after, result.gains
    assert gains is not None
    assert (gains > 0).all()


def test_the_first_split_is_the_best_of_all_questions_roots_and_aspects():
    """Against every set of phones or positions that any tree of this corpus asks for, by brute force."""
    features, aligned = speech(np.random.default_rng(5), length=400)
    sums, values, table = TreeStatistics.of(features, [aligned]), features.double().numpy(), aligned.table
    roots = len(PHONES.speech) + SILENCE_PDFS
    result = build_tree(sums, PHONES, TreeConfig(leaves=roots + 1, min_frames=30, tie_leaves=False))
    large = build_tree(sums, PHONES, TreeConfig(leaves=300, min_frames=1, tie_leaves=False)).tree
    asked = {(node.aspect, node.values) for node in large.nodes if isinstance(node, Split)}
    assert {aspect for aspect, _ in asked} == {LEFT, RIGHT, POSITION}
    names = np.array([SILENCE, *PHONES.names])
    gains = []
    for phone, (aspect, wanted) in itertools.product(PHONES.speech, asked):
        own = table[:, PHONE] == PHONES.ids[phone]
        answers = table[:, aspect] if aspect == POSITION else names[table[:, aspect]]
        yes = np.isin(answers, list(wanted))
        if min((own & yes).sum(), (own & ~yes).sum()) >= 30:
            parts = largest_likelihood(values[own & yes]) + largest_likelihood(values[own & ~yes])
            gains.append(parts - largest_likelihood(values[own]))
    assert result.gains[0] == pytest.approx(max(gains))


@pytest.mark.parametrize("min_frames", [20, 300])
def test_each_side_of_a_split_has_enough_frames(min_frames):
    result, sums = built(TreeConfig(leaves=10_000, min_frames=min_frames, tie_leaves=False))
    assert 40 < result.tree.pdf_count < 10_000
    assert min(frames_and_likelihood(result.tree, sums)[0]) >= min_frames


def test_tying_loses_less_a_merge_than_any_split_gained():
    untied, sums = built(TreeConfig(leaves=80, tie_leaves=False))
    tied, _ = built(TreeConfig(leaves=80))
    assert tied.untied == untied.tree.pdf_count == 80
    assert np.array_equal(tied.gains, untied.gains)
    merged = 80 - tied.tree.pdf_count
    assert merged > 0
    before, after = (frames_and_likelihood(result.tree, sums)[1] for result in (untied, tied))
    assert 0 < before - after < merged * untied.gains.min()
    whose = {leaf.pdf: set() for leaf in tied.tree.nodes if isinstance(leaf, Leaf)}
    for phone in PHONES.names:
        for left, right in itertools.product(PHONES.names, repeat=2):
            for pdf in tied.tree.pdfs(left, phone, right):
                whose[pdf].add(phone)
    assert all(len(phones) == 1 for phones in whose.values())  # leaves of different roots are not tied


def test_a_split_that_gains_much_late_does_not_tie_what_gained_less_before():
    """Neither neighbour of A says anything alone, both together say all: the second split gains far more than E's."""
    contexts, features = [], []
    generator = np.random.default_rng(0)

    def say(left: str, phone: str, right: str, mean: float, frames: int) -> None:
        for position in range(3):
            contexts.extend([(PHONES.ids[left], PHONES.ids[phone], PHONES.ids[right], position)] * frames)
            features.append(mean + generator.normal(size=(frames, 2)))

    for left, right in itertools.product("PT", "MN"):
        say(left, "A", right, 6.0 if (left == "P") == (right == "M") else -6.0, 400 if left == "P" else 420)
    for left, mean in (("P", -1.3), ("T", 1.3)):
        say(left, "E", "M", mean, 300)
    for phone in "MNPT":
        say("A", phone, "A", 20.0, 100)
    sums = TreeStatistics.of(
        torch.from_numpy(np.concatenate(features).astype(np.float32)), [AlignedPhones(*np.array(contexts, np.int32).T)]
    )
    result = build_tree(sums, PHONES, TreeConfig(leaves=16, min_frames=10))
    assert result.gains[-1] > 2 * result.gains[0] > 100 * result.gains.min()
    assert result.tree.pdfs("P", "E", "M") != result.tree.pdfs("T", "E", "M")


def test_silence_has_a_pdf_a_state_whatever_is_around_it():
    tree = built(TreeConfig(leaves=100))[0].tree
    pdfs = {tree.pdfs(left, SILENCE, right) for left in ("", *PHONES.names) for right in ("", *PHONES.names)}
    assert pdfs == {(0, 1, 2, 3, 4)}


def test_every_triphone_reaches_a_leaf_seen_or_not():
    result, sums = built(TreeConfig(leaves=150))
    seen = {tuple(row) for row in sums.contexts[:, :3].tolist()}
    windows = list(itertools.product(("", *PHONES.names), PHONES.names, ("", *PHONES.names)))
    assert len(seen) < len(windows)
    for window in windows:
        assert all(0 <= pdf < result.tree.pdf_count for pdf in result.tree.pdfs(*window))


def test_a_phone_never_seen_has_one_pdf_a_root_and_is_still_a_phone():
    phones = PhoneSet(PHONES.silence, (*PHONES.speech, "Z"))
    for shared, pdfs in ((True, 1), (False, 3)):
        config = TreeConfig(leaves=100, shared_roots=shared)
        tree = build_tree(statistics(1), phones, config).tree
        assert {tree.pdfs(left, "Z", right) for left, right in itertools.product(phones.names, repeat=2)} == {
            tree.pdfs("", "Z", "")
        }
        assert len(set(tree.pdfs("", "Z", ""))) == pdfs
        tree.pdfs("Z", "A", "Z")


def test_phones_of_one_base_share_a_root_and_are_asked_for():
    phones = PhoneSet.of([f"{name}{stress}" for name in ("AH", "EH") for stress in "01"])
    classes = {"AH0": 0, "AH1": 1, "EH0": 2, "EH1": 2, SILENCE: 3}
    features, aligned = speech(np.random.default_rng(6), phones, classes=classes)
    tree = build_tree(TreeStatistics.of(features, [aligned]), phones, TreeConfig(leaves=30)).tree
    assert tree.roots["AH0"] == tree.roots["AH1"] != tree.roots["EH0"]
    root = tree.nodes[tree.roots["AH0"][0]]
    assert isinstance(root, Split)
    assert root.aspect == PHONE  # the two vowels are of two classes, which are further apart than states


def test_statistics_of_another_phone_set_and_too_few_leaves_are_errors():
    with pytest.raises(AlignmentError, match="not of the phone set SIL A E"):
        build_tree(statistics(1), PhoneSet.of(["A", "E"]), TreeConfig())
    with pytest.raises(AlignmentError, match="not of the phone set X SIL"):
        build_tree(statistics(1), PhoneSet((), ("X", SILENCE, *PHONES.speech)), TreeConfig())
    with pytest.raises(AlignmentError, match="a tree of 10 leaves is wanted, and its phones have 11 roots"):
        build_tree(statistics(1), PHONES, TreeConfig(leaves=10))
