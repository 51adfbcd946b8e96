"""Optimizers for banks: they leave the row of a speaker who is not in the mini-batch as it is, to the bit.

The gradient of a row is the sum over the frames of its speaker, and exactly zero for speakers absent from the
batch (equation 9). But momentum, Adam's averages and weight decay move a parameter whose gradient is zero. So
a bank's gradients are sparse: they name the rows that took part since ``zero_grad``, and these optimizers
change only those rows. Each row has its own momentum, averages and number of steps. Hence thirty speakers
adapted in shared batches, in any mixture, end where thirty separate runs would.

Plain ``torch.optim.SGD`` is row-wise by itself and works too. Every other optimizer of torch or of a third
party is refused at its first step over a bank's rows.

A table of embeddings whose gradient is sparse (``torch.nn.Embedding(..., sparse=True)``) is updated in the same way.

Weight decay pulls a row towards row 0, not towards zero: it is the gradient of a Gaussian prior around row 0. Row 0
is learned from all speakers and does not decay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor, distributed, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lhuc_asr.base.errors import ConfigError, SiteError, SpeakerError
from lhuc_asr.lhuc.exchange import check_same_start, mean_over_processes

# A number of steps is counted in float32, up to the square of this number.
TABLED = 4096


class RowTable(nn.Parameter):
    """The rows of all speakers at one site, shape (S + 1, H).

    Attributes:
        edition: Number of changes to the meaning of rows: speakers added, dropped, reset.
        owners: A hash of the names of the rows' speakers, in order.
        sparse_gradient: Whether its gradient names the rows that took part; in a dense one those that are not zero did.
        awaited: The site where rows were used since the last step, so that a gradient has to come; "" for none.
        over_processes: Whether its optimizer averages its gradients over the processes.
    """

    edition: int = 0
    owners: int = 0
    sparse_gradient: bool = True
    awaited: str = ""
    over_processes: bool = False

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # A parameter is pickled as a plain one, whatever its class.
        return _table, (self.data, self.requires_grad, self.edition, self.owners, self.sparse_gradient)


def _table(data: Tensor, requires_grad: bool, edition: int, owners: int, sparse_gradient: bool) -> RowTable:
    table = RowTable(data, requires_grad)
    table.edition, table.owners, table.sparse_gradient = edition, owners, sparse_gradient
    return table


class RowOptimizer(torch.optim.Optimizer):
    """Updates the rows that the gradients name; subclasses compute the change.

    A table without a gradient stays as it is. If the model ran its site, that is an error until a first gradient has
    come there, unless ``in_turn`` says that the loss leaves sites out at times; and wherever no table has a gradient.

    With ``over_processes``, sparse gradients become the mean over all processes of torch.distributed before a step, as
    DistributedDataParallel makes that of dense ones; all processes take a step together.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add tables, with options of their own; see ``torch.optim.Optimizer``."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for table in group["params"]:
            if isinstance(table, RowTable):
                table.over_processes = group.get("over_processes", False)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the rows that took part since ``zero_grad``.

        Raises:
            ConfigError: A gradient is dense, so it does not name the rows that took part.
            SiteError: Rows were used at a site, and no gradient has ever come back to them, or now to none at any
                site; nothing is updated then.
            SpeakerError: Speakers were added, dropped, reset or loaded since the first step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check_reached()
        with torch.no_grad():
            for group in self.param_groups:
                if group.get("over_processes") and distributed.is_initialized():
                    self._average(group["params"])
                for table in group["params"]:
                    if table.grad is not None:
                        self._step_table(group, table)
                    if isinstance(table, RowTable):
                        table.awaited = ""
        return loss

    def _average(self, tables: Sequence[Tensor]) -> None:
        for table in tables:
            if table.grad is not None and not table.grad.is_sparse:
                raise ConfigError("over_processes: averages sparse gradients alone; leave it out, or keep them sparse")
        begun = [table for table in tables if isinstance(table, RowTable)]
        if begun and not any(self.state.get(table) for table in begun):
            check_same_start(begun, [table.owners for table in begun])
        for table in tables:
            table.grad = mean_over_processes(table)

    def _check_reached(self) -> None:
        some = any(table.grad is not None for group in self.param_groups for table in group["params"])
        for group in self.param_groups:
            for table in group["params"]:
                missed = table.grad is None and isinstance(table, RowTable) and table.awaited
                # A table has a state once a gradient has come; states of earlier versions do not name the option.
                if missed and not (some and (group.get("in_turn") or self.state.get(table))):
                    raise _not_reached(table.awaited, others=some)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an optimizer of the same speakers' rows, for a training that goes on.

        Raises:
            SpeakerError: The state is of other speakers, or of the same in another order.
            ValueError: It is of another number of tables.
        """
        tables = [table for group in self.param_groups for table in group["params"]]
        for number, state in state_dict["state"].items():
            if isinstance(tables[number], RowTable) and state.get("owners") != tables[number].owners:
                raise SpeakerError(
                    "the optimizer's state belongs to other speakers than the bank's, or to another order of them; "
                    "load the bank's state first: bank.load_state_dict(...)"
                )
        super().load_state_dict(state_dict)
        for table in tables:
            if isinstance(table, RowTable) and self.state[table]:
                self.state[table]["edition"] = table.edition

    def _step_table(self, group: dict[str, Any], table: Tensor) -> None:
        dense = not table.grad.is_sparse  # type: ignore[union-attr]
        if dense and (not isinstance(table, RowTable) or table.sparse_gradient):
            raise ConfigError(
                f"{type(self).__name__}: expected the sparse gradients of a SpeakerBank's rows, found a dense "
                f"one of shape {tuple(table.shape)}; give it bank.parameters() only, or embeddings with sparse=True; "
                "bank.sparse_gradients = False makes a bank's dense"
            )
        state = self.state[table]
        edition = table.edition if isinstance(table, RowTable) else 0  # embeddings' rows keep their meaning
        if not state:
            state["edition"] = edition
            state["owners"] = table.owners if isinstance(table, RowTable) else 0
            self._start(state, table)
        if state["edition"] != edition:
            raise SpeakerError(
                "speakers were added, dropped, reset or loaded since this optimizer's first step, so its momentum "
                "belongs to other rows; make a new one: bank.optimizer(...), or load its state after the bank's"
            )
        rows, values = _rows_of(table.grad)  # type: ignore[arg-type]
        r = table[rows]
        if group["weight_decay"]:
            values = values + group["weight_decay"] * (r - table[0])
        table.index_copy_(0, rows, r - self._change(group, state, rows, values))

    def _start(self, state: dict[str, Any], table: Tensor) -> None:
        raise NotImplementedError

    def _change(self, group: dict[str, Any], state: dict[str, Any], rows: Tensor, gradient: Tensor) -> Tensor:
        raise NotImplementedError


def _not_reached(site: str, others: bool) -> SiteError:
    in_turn = ", or, if heads are trained in turn, pass bank.optimizer(..., in_turn=True)" if others else ""
    return SiteError(
        f"site {site!r}: the model ran it, and no gradient came back to its amplitudes; backward() was not called, the "
        "loss does not depend on the site, or what follows it passes no gradient, as layers in int8 do: adapt the "
        f"model in floating point, or leave the site out{in_turn}"
    )


def _rows_of(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that took part, shape (N,), and their gradients, shape (N, H)."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values()
    rows = gradient.any(1).nonzero()[:, 0]
    return rows, gradient[rows]


class RowSGD(RowOptimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` would do on each row alone.

    Args:
        params: ``bank.parameters()``.
        lr: Learning rate; 0.8 in the paper, for every amplitude function.
        momentum: Fraction of the last step that is kept.
        weight_decay: Pull towards row 0.
        in_turn: Whether the loss leaves some of the sites out at times, as where heads are trained in turn.
        over_processes: Whether gradients are averaged over the processes of torch.distributed; the model may then be
            wrapped by DistributedDataParallel without the bank.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        in_turn: bool = False,
        over_processes: bool = False,
    ) -> None:
        _check_options(lr=lr, momentum=momentum, weight_decay=weight_decay)
        options = {"momentum": momentum, "in_turn": in_turn, "over_processes": over_processes}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **options})

    def _start(self, state: dict[str, Any], table: Tensor) -> None:
        state["velocity"] = torch.zeros_like(table)

    def _change(self, group: dict[str, Any], state: dict[str, Any], rows: Tensor, gradient: Tensor) -> Tensor:
        if group["momentum"]:
            gradient = gradient + group["momentum"] * state["velocity"][rows]
            state["velocity"].index_copy_(0, rows, gradient)
        change: Tensor = gradient * group["lr"]
        return change


class RowAdam(RowOptimizer):
    """Adam with a number of steps for each row, as ``torch.optim.Adam`` would do on each row alone.

    Args:
        params: ``bank.parameters()``.
        lr: Learning rate.
        betas: Decay of the averages of the gradient and of its square.
        eps: Added to the denominator, so that a gradient that has always been zero gives no division by zero.
        weight_decay: Pull towards row 0, added to the gradient.
        in_turn: Whether the loss leaves some of the sites out at times, as where heads are trained in turn.
        over_processes: Whether gradients are averaged over the processes of torch.distributed; the model may then be
            wrapped by DistributedDataParallel without the bank.

    Source: D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        in_turn: bool = False,
        over_processes: bool = False,
    ) -> None:
        _check_options(lr=lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay)
        options = {"betas": betas, "eps": eps, "in_turn": in_turn, "over_processes": over_processes}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **options})

    def _start(self, state: dict[str, Any], table: Tensor) -> None:
        state["steps"] = torch.zeros_like(table[:, :1])
        state["mean"] = torch.zeros_like(table)
        state["square"] = torch.zeros_like(table)

    def _change(self, group: dict[str, Any], state: dict[str, Any], rows: Tensor, gradient: Tensor) -> Tensor:
        beta1, beta2 = group["betas"]
        steps = state["steps"][rows] + 1  # (N, 1)
        mean = torch.lerp(gradient, state["mean"][rows], beta1)
        square = torch.lerp(gradient.square(), state["square"][rows], beta2)
        for key, value in (("steps", steps), ("mean", mean), ("square", square)):
            state[key].index_copy_(0, rows, value)
        unbiased_mean = mean / _learned_share(beta1, steps)
        unbiased_square = square / _learned_share(beta2, steps)
        change: Tensor = group["lr"] * unbiased_mean / (unbiased_square.sqrt() + group["eps"])
        return change


def _learned_share(beta: float, steps: Tensor) -> Tensor:
    """1 - beta^n, by which Adam's average of n gradients is too small; n has the shape (N, 1), and so has the share.

    It is put together from two tables, with 1 - beta^n = a + b - a b of a and b for n mod ``TABLED`` and for the rest
    of n. torch's powers are those of one function for whole vectors of a processor and of another one for what is
    left, so that the bits of a row would depend on how many other rows there are.
    """
    few, many = _tables(beta, steps.dtype, steps.device)
    number = steps.long()
    a, b = few[number % TABLED], many[number // TABLED]
    return a + b - a * b


@functools.cache
def _tables(beta: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """1 - beta^n for n from 0 to ``TABLED`` - 1, and for as many multiples of ``TABLED``."""
    exponents = torch.arange(TABLED, dtype=torch.float64)
    few, many = 1 - beta**exponents, 1 - beta ** (TABLED * exponents)
    return few.to(device, dtype), many.to(device, dtype)


OPTIMIZERS: dict[str, Callable[..., RowOptimizer]] = {"sgd": RowSGD, "adam": RowAdam}


@functools.cache
def refuse_foreign_optimizers() -> None:
    """Make optimizers that would move absent rows raise ConfigError; needed once in a process."""
    register_optimizer_step_pre_hook(_check_optimizer)


def _check_optimizer(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    if isinstance(optimizer, RowOptimizer):
        return
    for group in optimizer.param_groups:
        plain = type(optimizer) is torch.optim.SGD and not group["momentum"] and not group["weight_decay"]
        if not plain and any(isinstance(parameter, RowTable) for parameter in group["params"]):
            raise ConfigError(
                f"{type(optimizer).__name__} with these options would move the rows of speakers who are not in the "
                f"batch; make one that does not: bank.optimizer({' or '.join(map(repr, OPTIMIZERS))}, lr=...)"
            )


def _check_options(**options: float) -> None:
    for name, value in options.items():
        fraction = name in ("momentum", "beta1", "beta2")
        if not (0.0 <= value < 1.0 if fraction else 0.0 <= value < float("inf")):
            expected = "at least 0 and under 1" if fraction else "a finite number, not negative"
            raise ConfigError(f"optimizer option {name} = {value}: expected {expected}")
