"""Every technique against awkward speakers: they end with finite amplitudes or row 0's, and harm nobody else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scaled_speakers import PDFS, WIDTH, frames_of, small_dnn

from lhuc_asr.adapt.method import PreparedMethod
from lhuc_asr.adapt.methods import AnyMethod, load_speakers
from lhuc_asr.adapt.predicted import Predicted
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.targets import FrameTargets, no_targets
from lhuc_asr.base.errors import AlignmentError, ModelMismatchError
from lhuc_asr.features.context import splice

TECHNIQUES = {
    "lhuc": {},
    "paper": {"kind": "lhuc", "preset": "paper"},
    "prior": {"kind": "lhuc", "prior_deviation": 0.3},
    "moments": {},
    "moments, then descent": {"kind": "moments", "descent": {"kind": "lhuc"}},
    "bayes": {},
    "map": {"kind": "bayes", "estimate": "map"},
    "subspace": {"dimensions": 2},
    "predicted": {"dimensions": 2},
}


@pytest.fixture(params=TECHNIQUES)
def method(request, small, tmp_path: Path):
    settings = {"kind": request.param, **TECHNIQUES[request.param]}
    made = TypeAdapter(AnyMethod).validate_python(settings).make(tmp_path / "prepared")
    if isinstance(made, PreparedMethod):
        generator = torch.Generator().manual_seed(3)
        training = {f"t{n}": frames_of(small, n, 60, 0.3 * torch.randn(2, 16, generator=generator)) for n in range(6)}
        made.prepare(small, training, seed=0)
    return made


def empty() -> SpeakerData:
    return SpeakerData.of([(np.zeros((0, WIDTH), np.float32), no_targets(0))])


def without_targets(frames: SpeakerData) -> SpeakerData:
    """What a first pass leaves that found nothing."""
    return SpeakerData(frames.features, frames.lengths, no_targets(len(frames.features)))


def amplitudes(found, name: str) -> torch.Tensor:
    bank = found.bank
    return torch.cat([bank.amplitude(table.detach()[bank.row(name)]) for table in bank.tables])


def test_awkward_speakers_harm_nobody(small, method):
    well = {"ann": frames_of(small, 20, 150), "bob": frames_of(small, 21, 90)}
    awkward = {
        "nothing": empty(),
        "one frame": frames_of(small, 22, 1),
        "first pass failed": without_targets(frames_of(small, 23, 40)),
        "only silence": frames_of(small, 24, 40, weight=0.01),
        "loud": frames_of(small, 25, 40, scale=1e4),
    }
    together = method.estimate(small, {**awkward, **well}, seed=1)
    for name in awkward:
        assert amplitudes(together, name).isfinite().all(), name
    alone = method.estimate(small, well, seed=1)
    for name in well:
        torch.testing.assert_close(amplitudes(together, name), amplitudes(alone, name), rtol=0, atol=2e-4)


def test_nobody_to_adapt_to_is_no_error(small, method):
    assert method.estimate(small, {}, seed=1).bank.speakers == ()


def test_who_says_nothing_stays_at_row_zero(small, method):
    found = method.estimate(small, {"nothing": empty()}, seed=1)
    torch.testing.assert_close(amplitudes(found, "nothing"), torch.ones(32), rtol=0, atol=0)


def test_features_that_are_no_numbers_leave_row_zero_and_a_warning(small, method, caplog):
    broken = frames_of(small, 26, 40)
    broken.features[7] = np.nan
    found = method.estimate(small, {"broken": broken, "ann": frames_of(small, 20, 150)}, seed=1)
    torch.testing.assert_close(amplitudes(found, "broken"), torch.ones(32), rtol=0, atol=0)
    assert "1 of 2 speakers stay unadapted" in caplog.text
    assert "broken" in caplog.text
    assert amplitudes(found, "ann").isfinite().all()


def test_targets_of_another_tree_are_refused(small, method):
    frames = frames_of(small, 20, 30)
    pdf = frames.targets.pdf.copy()
    pdf[4] = PDFS
    targets = FrameTargets(pdf, frames.targets.posterior, frames.targets.weight)
    other = SpeakerData(frames.features, frames.lengths, targets)
    if isinstance(method, Predicted):  # it looks at no target
        told, expected = (method.estimate(small, {"ann": data}, seed=1) for data in (other, frames))
        torch.testing.assert_close(amplitudes(told, "ann"), amplitudes(expected, "ann"), rtol=0, atol=0)
        return
    with pytest.raises(AlignmentError, match=f"'ann'.*{PDFS}"):
        method.estimate(small, {"ann": other}, seed=1)


def test_amplitudes_of_another_model_are_refused(small, method, tmp_path: Path):
    found = method.estimate(small, {"ann": frames_of(small, 20, 30)}, seed=1)
    found.save(tmp_path / "speakers")
    other = small_dnn()
    with torch.no_grad():
        other.output.bias += 1
    with pytest.raises(ModelMismatchError):
        load_speakers(other, tmp_path / "speakers")


def test_no_adaptation_is_the_network_to_the_bit(small, tmp_path: Path):
    method = TypeAdapter(AnyMethod).validate_python({"kind": "none"}).make(None)
    frames = frames_of(small, 20, 30)
    x = splice(torch.from_numpy(frames.features), small.config.context)
    before = small(x)
    found = method.estimate(small, {"ann": frames}, seed=1)
    found.save(tmp_path / "speakers")
    for speakers in (found, load_speakers(small, tmp_path / "speakers")):
        with speakers.applied("ann"):
            assert torch.equal(small(x), before)
