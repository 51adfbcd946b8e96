"""Programs (torch.export, ONNX, TorchScript) of a folded copy, and of a model and its bank for all speakers."""

import pytest
import torch
from torch import nn

from lhuc_asr.base.errors import SiteError, SpeakerError
from lhuc_asr.lhuc import AdaptedModel, attach, fold

BATCH = torch.export.Dim("batch")
ANY_BATCH = {"args": ({0: BATCH},), "speakers": {0: BATCH}}


@pytest.fixture
def adapted(cnn, scatter):
    bank = attach(cnn, nn.MaxPool2d, ["alice", "bob"], inputs_of="output")
    scatter(bank)
    return AdaptedModel(cnn, bank).eval()


@pytest.fixture
def rows():
    return torch.tensor([2, 0, 1])


@pytest.fixture
def program(adapted, rows, randn):
    return torch.export.export(adapted, (randn(3, 1, 8, 8),), {"speakers": rows}, dynamic_shapes=ANY_BATCH)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_one_program_serves_all_speakers(adapted, program, randn, tmp_path):
    torch.export.save(program, tmp_path / "adapted.pt2")
    run = torch.export.load(tmp_path / "adapted.pt2").module()
    for speakers in (["alice", "bob", "", "bob", "alice"], ["bob"] * 2, [""] * 4):
        x, rows = randn(len(speakers), 1, 8, 8), adapted.bank.rows_of(speakers)
        assert torch.equal(run(x, speakers=rows), adapted(x, speakers=speakers))
    assert not torch.equal(run(x, speakers=rows), run(x, speakers=rows + 1))


@pytest.mark.filterwarnings("ignore:The tensor attributes .*_flat_weights.* were assigned during export")
def test_sequences_with_time_first(recurrent, scatter, randn, rows):
    bank = attach(recurrent, "lstm", ["alice", "bob"])
    scatter(bank)
    adapted, x = AdaptedModel(recurrent, bank).eval(), randn(6, 3, 5)
    run = torch.export.export(adapted, (x,), {"speakers": rows}).module()
    assert torch.equal(run(x, speakers=rows.flip(0)), adapted(x, speakers=rows.flip(0)))


@pytest.mark.parametrize("row", [-1, 3])
def test_rows_that_the_bank_does_not_have_are_errors(program, randn, row):
    with pytest.raises(IndexError, match="index out of range"):
        program.module()(randn(2, 1, 8, 8), speakers=torch.tensor([0, row]))


@pytest.mark.parametrize("speakers", [["alice", "bob", "bob"], "alice", torch.zeros(3, 1, dtype=torch.int64)])
def test_names_are_refused(adapted, randn, speakers):
    with pytest.raises(SpeakerError, match=r"not a tensor of rows, .*bank.rows_of\(names\)"):
        torch.export.export(adapted, (randn(3, 1, 8, 8),), {"speakers": speakers})


def test_a_speaker_who_is_no_input_is_refused(adapted, randn):
    x = randn(3, 1, 8, 8)
    for module in (adapted, adapted.model):
        for speaker in ("", "bob"):
            adapted.bank.select(speaker)
            with pytest.raises(SiteError, match="does not ask the bank who speaks; export AdaptedModel"):
                torch.export.export(module, (x,))
    with adapted.bank.speaker("alice"), pytest.raises(SiteError, match="does not ask the bank"):
        torch.export.export(adapted.model, (x,))


def onnx_session(path, model, args, **options):
    """Write a model as ONNX, and open it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.onnx.export(model, args, dynamo=True, verbose=False, **options).save(path)
    return onnxruntime.InferenceSession(path)


THIRD_PARTIES = (
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*The axis name. batch will not be used:UserWarning"),
)


def onnx_test(test):
    for mark in THIRD_PARTIES:
        test = mark(test)
    return test


@onnx_test
def test_onnx_for_all_speakers(adapted, rows, randn, tmp_path):
    adapted.float()
    options = {"kwargs": {"speakers": rows}, "dynamic_shapes": ANY_BATCH}
    session = onnx_session(tmp_path / "adapted.onnx", adapted, (randn(3, 1, 8, 8).float(),), **options)
    features, speakers = (each.name for each in session.get_inputs())
    x, rows = randn(5, 1, 8, 8).float(), torch.tensor([1, 2, 2, 0, 1])
    (output,) = session.run(None, {features: x.numpy(), speakers: rows.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), adapted(x, speakers=rows).detach(), rtol=1e-5, atol=1e-5)
    for wrong in (-1, 3):
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(None, {features: x.numpy(), speakers: (0 * rows + wrong).numpy()})


@pytest.fixture
def folded(adapted, randn):
    """A copy of the model for bob, an input, and what the model with its bank gives for it."""
    adapted.bank.detach()
    bank = attach(adapted.model.float(), nn.MaxPool2d, ["bob"])
    bank.fill({site.name: 0.5 * randn(site.width) for site in bank.sites})
    x = randn(3, 1, 8, 8).float()
    with bank.speaker("bob"):
        expected = adapted.model(x).detach()
    copied = fold(bank, "bob", x)
    assert not torch.allclose(adapted.model(x), expected, atol=1e-3)
    return copied, x, expected


@pytest.mark.parametrize(
    "program_of",
    [
        lambda model, x: torch.export.export(model, (x,)).module(),
        lambda model, x: torch.export.export(model, (x,), strict=True).module(),
        torch.jit.trace,
        lambda model, x: torch.jit.script(model),
    ],
    ids=["export", "strict export", "trace", "script"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
def test_programs_of_a_folded_copy(folded, program_of):
    model, x, expected = folded
    torch.testing.assert_close(program_of(model, x)(x).detach(), expected, rtol=1e-5, atol=1e-5)


@onnx_test
def test_onnx_of_a_folded_copy(folded, tmp_path):
    model, x, expected = folded
    session = onnx_session(tmp_path / "bob.onnx", model, (x,))
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=1e-5, atol=1e-5)
