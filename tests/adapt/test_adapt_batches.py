"""A speaker's mini-batches: each useful frame once a sweep, kept or computed again; foreign data is refused."""

import math

import numpy as np
import pytest
import torch

from lhuc_asr.adapt.amplitudes import new_bank
from lhuc_asr.adapt.batches import SpeakerBatches
from lhuc_asr.adapt.fdlr import FeatureMaps
from lhuc_asr.adapt.movable import BankInNetwork
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets
from lhuc_asr.base.errors import AlignmentError, ConfigError
from lhuc_asr.features.context import splice
from lhuc_asr.hmm.fmllr import FmllrEstimation
from lhuc_asr.nnet.dnn import Dnn, DnnConfig

WIDTH, PDFS, UNITS = 3, 5, 8


@pytest.fixture
def model() -> Dnn:
    made = Dnn(DnnConfig(hidden_layers=2, hidden_units=UNITS, context=1), WIDTH, PDFS)
    generator = torch.Generator().manual_seed(0)
    made.initialise(generator)
    torch.nn.init.normal_(made.output.weight, generator=generator)
    return made.eval()


def _frames(lengths: tuple[int, ...], highest: int = PDFS - 1) -> SpeakerData:
    generator = np.random.default_rng(0)
    count = sum(lengths)
    weights = generator.choice([0.0, 0.01, 1.0], count).astype(np.float32)
    pdfs = np.minimum(np.arange(count), highest).astype(np.int32)
    features = generator.standard_normal((count, WIDTH)).astype(np.float32)
    return SpeakerData(features, lengths, FrameTargets.certain(pdfs, weights))


def _batches(model: Dnn, frames: SpeakerData, layers: tuple[int, ...] = (0, 1)) -> SpeakerBatches:
    bank = new_bank(model, ["ann"], layers=layers)
    with torch.no_grad():
        for table in bank.tables:
            table.fill_(math.log(1.5))
    return SpeakerBatches("ann", frames, model, BankInNetwork(bank, model), True, seed=3)


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("layers", [(0, 1), (1,)])
def test_a_sweep_has_every_useful_frame_once_with_the_networks_outputs(model, kept, layers):
    frames = _frames((20, 1, 12))
    speaker = _batches(model, frames, layers)
    if kept:
        speaker.keep()
    speaker.shuffle(4)
    spliced = torch.cat([splice(part, 1) for part in torch.from_numpy(frames.features).split(frames.lengths)])
    useful = np.flatnonzero(frames.targets.weight)
    with torch.no_grad():
        psi = spliced
        for layer in model.hidden[: layers[0] + 1]:
            psi = layer(psi)
        scaled = 1.5 * psi
        for layer in model.hidden[layers[0] + 1 :]:
            scaled = 1.5 * layer(scaled)
        unadapted = torch.softmax(model.output(scaled), 1)
    seen = []
    assert speaker.batches(8) == -(-len(useful) // 8)
    for step in range(speaker.batches(8)):
        batch = speaker.batch(step, 8, filled_to=8)
        real = speaker.frames_in(step, 8)
        assert len(batch.psi) == 8
        assert not batch.targets.weights[real:].any()
        for psi_t, posterior in zip(batch.psi[:real], batch.targets.reference[:real], strict=True):
            row = int((psi - psi_t).abs().sum(1).argmin())
            torch.testing.assert_close(psi_t, psi[row])
            torch.testing.assert_close(posterior, unadapted[row])
            seen.append(row)
        assert batch.targets.classes[:real, 0].tolist() == frames.targets.pdf[seen[-real:], 0].tolist()
        assert batch.targets.weights[:real].tolist() == frames.targets.weight[seen[-real:]].tolist()
    assert sorted(seen) == useful.tolist() != seen


def test_outputs_with_row_zero_are_computed_only_if_needed(model):
    movable = BankInNetwork(new_bank(model, ["ann"], layers=(0,)), model)
    speaker = SpeakerBatches("ann", _frames((9,)), model, movable, False, seed=0)
    assert speaker.batch(0, 4, 4).targets.reference.shape == (4, 0)
    assert speaker.bytes_to_keep == 4 * UNITS * int((_frames((9,)).targets.weight > 0).sum())


def _masked(model: Dnn, frames: SpeakerData, width: int) -> SpeakerBatches:
    """With psi the spliced features themselves."""
    maps = FeatureMaps(model, {"ann": "full"}, FmllrEstimation())
    return SpeakerBatches("ann", frames, model, maps, True, seed=3, band_mask=width)


def test_masks_hide_a_band_in_all_of_a_frames_context_and_not_from_the_unadapted_output(model):
    frames = _frames((200,))
    plain, masked = (_masked(model, frames, width) for width in (0, WIDTH))
    for speaker in (plain, masked):
        speaker.shuffle(1)
    count = int((frames.targets.weight > 0).sum())
    before, after = (speaker.batch(0, count, count) for speaker in (plain, masked))
    # The same frames in the same order, with the targets of the frames as they are.
    assert torch.equal(before.targets.classes, after.targets.classes)
    assert torch.equal(before.targets.reference, after.targets.reference)
    clean, heard = (batch.psi.view(count, 3, WIDTH) for batch in (before, after))
    hidden = (heard == 0) & (clean != 0)
    assert torch.equal(heard[~hidden], clean[~hidden])
    assert torch.equal(hidden.any(1), hidden.all(1))
    widths = hidden[:, 0].sum(1)
    assert set(widths.tolist()) == set(range(WIDTH))
    # A band has one step up and one down.
    ends = torch.nn.functional.pad(hidden[:, 0].int(), (1, 1)).diff(dim=1).abs().sum(1)
    assert int(ends.max()) == 2


def test_a_batch_that_is_filled_up_has_the_same_masks(model):
    frames = _frames((50,))
    alone, beside = (_masked(model, frames, 3) for _ in range(2))
    for speaker in (alone, beside):
        speaker.shuffle(1)
    count = alone.frames_in(0, 50)
    assert 16 < count < 50
    assert torch.equal(alone.batch(0, 50, count).psi, beside.batch(0, 50, 50).psi[:count])


def test_a_limit_of_masks_above_the_number_of_features_is_refused(model):
    speaker = _masked(model, _frames((50,)), WIDTH + 1)
    with pytest.raises(ConfigError, match=f"band_mask: expected at most .* {WIDTH}; found {WIDTH + 1}"):
        speaker.batch(0, 16, 16)


def test_masks_are_drawn_anew_in_each_sweep_and_are_the_same_for_the_same_seed(model):
    frames = _frames((50,))
    one, other = _masked(model, frames, 3), _masked(model, frames, 3)
    drawn = []
    for speaker in (one, other):
        for sweep in (0, 1, 0):
            speaker.shuffle(sweep)
            drawn.append([speaker.batch(step, 16, 16).psi for step in range(2)])
    assert all(torch.equal(*pair) for pair in zip(drawn[0], drawn[3], strict=True))
    assert all(torch.equal(*pair) for pair in zip(drawn[0], drawn[2], strict=True))
    assert not torch.equal(drawn[0][0].sort(0).values, drawn[1][0].sort(0).values)


def test_targets_of_another_tree_are_refused(model):
    with pytest.raises(
        AlignmentError, match=r"speaker 'ann': pdf 7 in frame 7, but the network has pdfs 0 to 4: .*tree"
    ):
        _batches(model, _frames((9,), highest=7))


def test_features_of_another_dimension_are_refused(model):
    frames = SpeakerData(np.zeros((2, 5), np.float32), (2,), FrameTargets.certain(np.zeros(2, np.int32), np.ones(2)))
    with pytest.raises(AlignmentError, match=r"speaker 'ann': features of shape \(2, 5\), but the network takes 3"):
        _batches(model, frames)
