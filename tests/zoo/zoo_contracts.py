"""What amplitudes promise on any model: each contract is a function of an entry of the zoo, which fails or returns."""

from __future__ import annotations

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo_attached import NAMES, ROUNDING, Attached, close
from zoo_entries import Entry
from zoo_processes import BY_TORCH, ranks

from lhuc_asr.base.errors import LhucError, ModelMismatchError, SiteError
from lhuc_asr.lhuc import SpeakerBank, fold, frozen


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def gradients(bank: SpeakerBank) -> list[Tensor]:
    """The gradient of each site's table, dense; afterwards there is none."""
    bank.optimizer("sgd", lr=0.0).step()  # as every trainer steps; it moves nothing, and refuses what got no gradient
    dense = [table.grad.to_dense() for table in bank.tables]
    bank.zero_grad()
    return dense


def assert_rows_learn(found: list[Tensor], *rows: int) -> None:
    """At every site these rows, and no others, have a gradient."""
    for gradient in found:
        assert gradient.any(1).nonzero()[:, 0].tolist() == sorted(rows)


def neutral(entry: Entry) -> None:
    """Fresh speakers change no bit, and a bank that is detached leaves nothing behind.

    Under ``no_grad`` nn.TransformerEncoder has a fused kernel, which torch does not use where there are hooks: they
    change the rounding there.
    """
    model, batch = entry.model(), entry.inputs(len(NAMES))
    plain, hooks_before = entry.run(model, batch), hooks(model)
    state = {name: value.clone() for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    fused = any(isinstance(module, nn.TransformerEncoder) for module in model.modules())
    with torch.no_grad():
        unrecorded = entry.run(model, batch)
    case = Attached.of(entry, scattered=False)
    bank = case.bank
    for selected in (contextlib.nullcontext(), bank.speaker("bob"), bank.rows(NAMES), bank.blocks(["alice", "bob"])):
        with selected:
            assert torch.equal(case.run(), plain)
    with torch.no_grad():
        close(case.mixed(), unrecorded, 1e-6 if fused else 0.0)
    bank.detach()
    assert torch.equal(case.run(), plain)
    assert hooks(case.model) == hooks_before
    assert all(torch.equal(value, case.model.state_dict()[name]) for name, value in state.items())


def rows(entry: Entry) -> None:
    """An element of a mixed batch is what it is in its speaker's batch, to the bit, and alone, to rounding."""
    case = Attached.of(entry)
    mixed, each = case.mixed(), case.each()
    for number, name in enumerate(NAMES):
        if entry.rounding <= ROUNDING:
            assert torch.equal(mixed[number], each[name][number])
        close(mixed[number], each[name][number], entry.rounding)
        with case.bank.speaker(name):
            alone = case.run(entry.elements(case.batch, [number]))
        close(mixed[number : number + 1], alone, entry.rounding)
    for one, other in (("", "alice"), ("alice", "bob"), ("bob", "carol")):
        assert all(not torch.allclose(*pair, rtol=1e-3) for pair in zip(each[one], each[other], strict=True))
    with case.bank.blocks(["alice", "bob"]):
        blocks = case.run()
    with case.bank.rows(["alice", "alice", "bob", "bob"]):
        assert torch.equal(blocks, case.run())


def freeze(entry: Entry) -> None:
    """Only the rows of the batch's speakers learn; weights, statistics and modes stay, and dropout is off.

    Where nobody is selected the model runs, and a backward pass is refused.
    """
    case = Attached.of(entry)
    expected, model, bank = case.mixed(), case.model.train(), case.bank
    state, learned = copy.deepcopy(model.state_dict()), [parameter.requires_grad for parameter in model.parameters()]
    before = [table.detach().clone() for table in bank.tables]
    optimizer = bank.optimizer("adam", lr=0.1)
    with frozen(model):
        scores = case.mixed()
        close(scores, expected, 1e-6)  # a GRU whose weights take no gradient rounds otherwise
        scores.square().mean().backward()
        assert all(parameter.grad is None for parameter in model.parameters())
        optimizer.step()
    assert_rows_learn(gradients(bank), 0, 1, 2)
    with frozen(model):
        loss = case.run().square().mean()
        with pytest.raises(SiteError, match="no speaker was selected in the forward pass"):
            loss.backward()
    assert all(table.grad is None for table in bank.tables)
    for table, old in zip(bank.tables, before, strict=True):
        assert (table != old).any(1).tolist() == [True, True, True, False]
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == learned
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items() if isinstance(v, Tensor))


def files(entry: Entry) -> None:
    """Speakers come back from their files, on a model of the same weights, to the bit."""
    case = Attached.of(entry)
    expected = case.each()
    with tempfile.TemporaryDirectory() as folder:
        case.bank.save(folder)
        model = entry.model()
        bank = SpeakerBank.load(folder, model)
    for name, scores in Attached(entry, model, bank, case.batch).each().items():
        assert torch.equal(scores, expected[name])
    assert bank.sites == case.bank.sites


def refuse(entry: Entry) -> None:
    """Speakers of a model of which one number is another are refused."""
    case, other = Attached.of(entry), entry.model()
    modules = [module for module in other.modules() if isinstance(module, torch.ao.nn.quantized.Linear)]
    if modules:
        modules[-1].set_weight_bias(modules[-1].weight(), modules[-1].bias() + 1.0)
    else:
        list(other.parameters())[-1].data.flatten()[-1] += 1.0
    with tempfile.TemporaryDirectory() as folder:
        case.bank.save(folder)
        with pytest.raises(ModelMismatchError, match="was adapted on the model"):
            SpeakerBank.load(folder, other)
    assert hooks(other) == hooks(entry.model())


def folded(entry: Entry) -> None:
    """A folded copy has no hooks, and computes what the model computes for its speaker."""
    case = Attached.of(entry)
    expected = case.each()
    for name in ("", "alice"):
        plain = fold(case.bank, name, example=case.batch if entry.measured else None)
        close(entry.run(plain, case.batch), expected[name], ROUNDING)
        assert hooks(plain) == hooks(entry.model())
    assert torch.equal(case.each()["alice"], expected["alice"])


def checkpointed(entry: Entry) -> None:
    """Gradient checkpointing trains who was selected; without the bank's contexts it is refused."""
    case = Attached.of(entry)
    model, bank = case.model.requires_grad_(False), case.bank
    case.mixed().square().mean().backward()
    plain = gradients(bank)

    def recomputed(**options: object) -> Tensor:
        def run(*values: Tensor) -> Tensor:
            named = isinstance(case.batch, dict)
            return case.run(dict(zip(case.batch, values, strict=True)) if named else values)

        values = case.batch.values() if isinstance(case.batch, dict) else case.batch
        return checkpoint(run, *values, use_reentrant=False, **options).square().mean()

    with bank.rows(NAMES):
        loss = recomputed(context_fn=bank.checkpointing)
    with bank.speaker("carol"):
        loss.backward()
    assert all(map(torch.equal, gradients(bank), plain))
    with bank.rows(NAMES):
        loss = recomputed()
        with pytest.raises(SiteError, match="nothing says for which speakers"):
            loss.backward()
    bank.zero_grad()
    if hasattr(model, "gradient_checkpointing_enable"):
        as_in_hugging_face(case)


def as_in_hugging_face(case: Attached) -> None:
    """The same by the model's own checkpointing, as Hugging Face's trainer turns it on: in training, with dropout."""
    options = {"use_reentrant": False, "context_fn": case.bank.checkpointing}
    model, found = case.model.train(), []
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`gradient_checkpointing_enable` is deprecated", FutureWarning)
        for enable in (lambda: None, lambda: model.gradient_checkpointing_enable(options)):
            enable()
            torch.manual_seed(3)
            case.mixed().square().mean().backward()
            found.append(gradients(case.bank))
    assert all(map(torch.equal, *found))
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def threads(entry: Entry) -> None:
    """Two threads share a model and its bank, and keep their speakers."""
    case = Attached.of(entry)
    expected, together = case.each(), Barrier(2)

    def speak(name: str) -> bool:
        right = True
        for _ in range(4):
            with case.bank.speaker(name):
                together.wait()
                right &= torch.equal(case.run(), expected[name])
            together.wait()
            right &= torch.equal(case.run(), expected[""])
        return right

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(speak, ["alice", "bob"])) == [True, True]


def compiled(entry: Entry, backend: str = "aot_eager") -> None:
    """A compiled model follows what is selected."""
    case = Attached.of(entry)
    mixed, each = case.mixed(), case.each()
    model = torch.compile(case.model, backend=backend)
    with torch.no_grad():
        with case.bank.rows(NAMES):
            close(entry.run(model, case.batch), mixed, ROUNDING)
        with case.bank.speaker("bob"):
            close(entry.run(model, case.batch), each["bob"], ROUNDING)
        close(entry.run(model, case.batch), each[""], ROUNDING)


def inductor(entry: Entry) -> None:
    """The same, by inductor."""
    compiled(entry, "inductor")


def copied(entry: Entry) -> None:
    """A model and its bank are copied together; a copy of the model alone has no amplitudes."""
    case = Attached.of(entry)
    expected = case.each()
    model, bank = copy.deepcopy((case.model, case.bank))
    assert bank.model is model
    twin = Attached(entry, model, bank, case.batch)
    with case.bank.speaker("carol"):
        assert all(torch.equal(scores, expected[name]) for name, scores in twin.each().items())
    with torch.no_grad():
        bank.tables[0].add_(1.0)
    assert all(torch.equal(scores, expected[name]) for name, scores in case.each().items())
    assert not torch.equal(twin.each()["alice"], expected["alice"])
    with case.bank.speaker("alice"):
        alone = entry.run(copy.deepcopy(case.model), case.batch)
    case.bank.detach()
    assert torch.equal(alone, case.run())


def autocast(entry: Entry) -> None:
    """In bfloat16, fresh speakers change no bit and no type, and mixed rows are their speakers'."""
    with torch.autocast("cpu", torch.bfloat16):
        plain = entry.run(entry.model(), entry.inputs(len(NAMES)))
        fresh = Attached.of(entry, scattered=False).mixed()
        assert fresh.dtype == plain.dtype
        assert torch.equal(fresh, plain)
        case = Attached.of(entry)
        mixed, each = case.mixed(), case.each()
        for number, name in enumerate(NAMES):
            assert torch.equal(mixed[number], each[name][number])
        mixed.float().square().mean().backward()
        # torch's reference kernels: those of oneDNN for processors with AMX get grouped convolutions of a few channels
        # a group and 16 or 128 taps wrong by as much as the scores (torch 2.11), with amplitudes and without.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.backends.mkldnn, "enabled", False)
            rounded = case.mixed().float()
    close(rounded, case.mixed(), 0.1)
    assert_rows_learn(gradients(case.bank), 0, 1, 2)


def processes(entry: Entry) -> None:
    """Two processes under DDP, each with half of the batch, do the step that one does, and stay equal."""
    case = Attached.of(entry)
    before = [table.detach().clone() for table in case.bank.tables]
    first, second = (rank[entry.name] for rank in ranks())
    if isinstance(first, str):
        raise (RuntimeError if first.startswith(BY_TORCH) else LhucError)(first)
    case.mixed().square().mean().backward()
    case.bank.optimizer("sgd", lr=1.0).step()
    for table, old, one, other in zip(case.bank.tables, before, first, second, strict=True):
        assert torch.equal(one, other)
        close(one - old, table.detach() - old, 1e-4)


# Minutes each: not in the default suite, nor in the table of docs/any_model.md.
SLOW = {"inductor"}
# By the column of the table.
CONTRACTS: dict[str, Callable[[Entry], None]] = {
    "neutral": neutral,
    "rows": rows,
    "freeze": freeze,
    "files": files,
    "refuse": refuse,
    "fold": folded,
    "checkpoint": checkpointed,
    "threads": threads,
    "compile": compiled,
    "inductor": inductor,
    "copy": copied,
    "autocast": autocast,
    "processes": processes,
}
