"""GaussianModel learn, from a flat start, where the states of synthetic utterances begin and end."""

from dataclasses import dataclass

import numpy as np
import pytest

from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.features.store import FeatureStore, StoredUtterance, write_store
from lhuc_asr.hmm.aligned_phones import AlignedPhones
from lhuc_asr.hmm.aligner import align_blocks, align_utterances, estimate_self_loops, pdfs_of, transcript_graphs
from lhuc_asr.hmm.gaussian_features import StoredFeatures
from lhuc_asr.hmm.monophone import MonophoneConfig, train_monophones
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.hmm.training import GaussianModel, TrainingData
from lhuc_asr.hmm.viterbi import StatePath
from lhuc_asr.lang.lexicon import Lexicon
from lhuc_asr.lang.phones import PhoneSet

LEXICON = Lexicon(
    {"ab": (("A", "B"),), "ca": (("C", "A"),), "bd": (("B", "D"),), "dc": (("D", "C"),), "ad": (("A", "D"),)},
    PhoneSet(("SIL",), ("A", "B", "C", "D")),
)
CONFIG = MonophoneConfig(iterations=12, growing_iterations=4, gaussians=30)
WIDTH = 8


@dataclass(frozen=True)
class Spoken:
    """Synthetic utterances: features, transcripts, and the pdf that each frame was drawn from."""

    store: FeatureStore
    transcripts: dict[str, list[str]]
    truth: dict[str, np.ndarray]


def _speak(folder, utterances: int, seed: int = 0) -> Spoken:
    """Each state draws frames from a Gaussian of its own, for a random time; pauses come and go."""
    generator = np.random.default_rng(seed)
    topology = MonophoneTopology.initial(LEXICON.phones)
    # A phone's states are alike, as in speech; phones differ more.
    phone_means = {phone: 3 * generator.standard_normal(WIDTH) for phone in LEXICON.phones.names}
    means = np.zeros((topology.pdf_count, WIDTH))
    for phone in LEXICON.phones.names:
        for state in topology.states((phone,)):
            means[state.pdf] = phone_means[phone] + (phone != "SIL") * 1.5 * generator.standard_normal(WIDTH)
    items, transcripts, truth = [], {}, {}
    for number in range(utterances):
        words = generator.choice(list(LEXICON.pronunciations), generator.integers(2, 5)).tolist()
        phones = ["SIL"]
        for word in words:
            phones += [*LEXICON.pronunciations[word][0], *(["SIL"] if generator.random() < 0.3 else [])]
        phones += [] if phones[-1] == "SIL" else ["SIL"]
        states = [state.pdf for phone in phones for state in topology.states((phone,))]
        path = np.repeat(states, generator.integers(2, 7, len(states)))
        name = f"u{number:03d}"
        items.append((name, "s", (means[path] + generator.standard_normal((len(path), WIDTH))).astype(np.float32)))
        transcripts[name], truth[name] = words, path
    return Spoken(write_store(folder, items, WIDTH), transcripts, truth)


def _train(spoken: Spoken, config: MonophoneConfig = CONFIG, seed: int = 0) -> GaussianModel:
    return train_monophones(StoredFeatures(spoken.store), _data(spoken, spoken.transcripts), config, seed)


def _data(spoken: Spoken, transcripts: dict[str, list[str]]) -> TrainingData:
    return TrainingData(spoken.store.utterances, transcripts, LEXICON, 1, CONFIG.max_unaligned)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Spoken:
    return _speak(tmp_path_factory.mktemp("monophone") / "train", 50)


@pytest.fixture(scope="module")
def monophones(spoken) -> GaussianModel:
    return _train(spoken)


def _align(spoken: Spoken, monophones: GaussianModel) -> dict[str, np.ndarray]:
    """The pdfs of each utterance."""
    graphs = transcript_graphs(spoken.store.utterances, spoken.transcripts, LEXICON, monophones.topology)
    paths, _ = align_utterances(
        monophones.gmm, StoredFeatures(spoken.store), spoken.store.utterances, graphs, 1, CONFIG.max_unaligned
    )
    return pdfs_of(paths)


def test_aligned_phones_are_those_of_the_aligned_pdfs(spoken, monophones):
    utterances, topology = spoken.store.utterances, monophones.topology
    graphs = transcript_graphs(utterances, spoken.transcripts, LEXICON, topology)
    options = (monophones.gmm, StoredFeatures(spoken.store), utterances, graphs)
    paths, _ = align_utterances(*options, threads=1, max_unaligned=0.0)
    assert paths.keys() == graphs.keys()
    for name, path in paths.items():
        phones = AlignedPhones.of(path, graphs[name], LEXICON.phones)
        assert np.array_equal(phones.pdfs(topology), path.pdfs)


def _borders(phones: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.diff(phones)) + 1


def test_the_alignment_is_recovered(spoken, monophones):
    phone_of = np.repeat(np.arange(5), [5, 3, 3, 3, 3])
    pdfs = _align(spoken, monophones)
    assert set(pdfs) == set(spoken.truth)
    aligned, true = (np.concatenate([phone_of[paths[name]] for name in spoken.truth]) for paths in (pdfs, spoken.truth))
    assert np.mean(aligned == true) > 0.95
    distances = []
    for name, path in spoken.truth.items():
        borders = _borders(phone_of[pdfs[name]])
        distances += [np.abs(borders - border).min() for border in _borders(phone_of[path])]
    assert np.mean(np.array(distances) <= 2) > 0.95


def test_the_gaussians_are_as_many_as_wanted_and_the_mixtures_sum_to_one(monophones):
    assert monophones.gmm.pdf_count == 17
    assert 17 < monophones.gmm.gaussians <= CONFIG.gaussians + 17
    sums = np.bincount(monophones.gmm.pdf.numpy(), monophones.gmm.weight.numpy())
    np.testing.assert_allclose(sums, 1.0, atol=1e-5)


def test_the_probabilities_of_staying_fit_the_durations(monophones):
    """A state of speech lasts 2 to 6 frames, so a phone of three states 12 on average, however they share them."""
    frames = 1 / (1 - monophones.topology.self_loop[5:].reshape(4, 3))
    np.testing.assert_allclose(frames.sum(1), 12.0, rtol=0.15)


def test_the_same_seed_gives_the_same_model(spoken):
    short = MonophoneConfig(iterations=3, growing_iterations=2, gaussians=25)
    one, two = _train(spoken, short), _train(spoken, short)
    assert np.array_equal(one.gmm.mean.numpy(), two.gmm.mean.numpy())
    aligned = [_align(spoken, each) for each in (one, two)]
    assert all(np.array_equal(*(pdfs[name] for pdfs in aligned)) for name in spoken.truth)


def test_one_utterance_that_is_too_short_is_left_out(spoken, caplog):
    transcripts = {**spoken.transcripts, "u000": ["ab"] * 200}
    short = MonophoneConfig(iterations=2, growing_iterations=1, gaussians=17)
    with caplog.at_level("INFO", "lhuc_asr"):
        train_monophones(StoredFeatures(spoken.store), _data(spoken, transcripts), short, 0)
    assert "49 of 50 utterances aligned" in caplog.text
    assert "1 utterances are too short for their transcripts: u000" in caplog.text


def test_too_many_that_are_too_short_stop_the_run(spoken):
    transcripts = {name: ["ab"] * 200 if name < "u010" else words for name, words in spoken.transcripts.items()}
    with pytest.raises(AlignmentError, match=r"10 of 50 utterances cannot be aligned \(limit 10%\): u000, u001"):
        train_monophones(StoredFeatures(spoken.store), _data(spoken, transcripts), CONFIG, 0)


def test_all_too_short_and_unknown_words_are_told(spoken):
    long = dict.fromkeys(spoken.transcripts, ["ab"] * 200)
    with pytest.raises(AlignmentError, match="every utterance is shorter than its transcript"):
        train_monophones(StoredFeatures(spoken.store), _data(spoken, long), CONFIG, 0)
    unknown = {**spoken.transcripts, "u003": ["zebra"]}
    with pytest.raises(AlignmentError, match="1 words are not in the lexicon: zebra"):
        train_monophones(StoredFeatures(spoken.store), _data(spoken, unknown), CONFIG, 0)


def test_none_can_be_aligned_whatever_the_limit():
    topology = MonophoneTopology.initial(LEXICON.phones)
    short = [StoredUtterance(id, "s", 0, 1) for id in ("u1", "u2")]
    graphs = transcript_graphs(short, {"u1": ["ab"], "u2": ["ab"]}, LEXICON, topology)
    scores = np.zeros((2, topology.pdf_count), np.float32)
    with pytest.raises(AlignmentError, match="none of 2 utterances can be aligned: u1, u2; too short for their"):
        align_blocks(iter([(short, scores)]), graphs, threads=1, max_unaligned=1.0)
    with pytest.raises(AlignmentError, match="no utterances to align"):
        align_blocks(iter([]), graphs, threads=1, max_unaligned=1.0)


def test_staying_is_counted_within_utterances_only():
    topology = MonophoneTopology.initial(LEXICON.phones)
    pdfs = [np.array([5, 5, 5, 6]), np.array([6, 6, 7])]
    estimated = estimate_self_loops(topology, [(each, each[1:] == each[:-1]) for each in pdfs])
    assert estimated.self_loop[5] == pytest.approx((2 + 0.75) / (3 + 1))
    assert estimated.self_loop[6] == pytest.approx((1 + 0.75) / (3 + 1))
    assert estimated.self_loop[7] == pytest.approx(0.75 / (1 + 1))


def test_a_state_that_follows_another_with_its_pdf_is_not_stayed_in():
    topology = MonophoneTopology.initial(LEXICON.phones)
    path = StatePath(np.array([3, 3, 4, 4, 4]), np.array([5, 5, 5, 5, 5]), 0.0)
    estimated = estimate_self_loops(topology, [(path.pdfs, path.stays)])
    assert estimated.self_loop[5] == pytest.approx((3 + 0.75) / (5 + 1))
