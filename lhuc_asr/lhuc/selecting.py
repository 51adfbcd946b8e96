"""Which rows of a bank are selected: by this thread or asyncio task, for a while, or by everybody until further notice.

Contexts are context variables (PEP 567). So threads and asyncio tasks that share a bank do not see each other's
speakers; a task inherits those of the task that made it, a thread begins with none. What ``Selecting.stick`` selects
counts wherever no context does.

A selection made by a context does not reach a forward pass that happens later. Gradient checkpointing has one: it runs
the forward pass again during the backward pass, when the context may be over, another one may be open, or, on a GPU, in
another thread. ``Selecting.recomputed`` keeps the selection for it. Without it a forward pass during a backward pass is
an error, because nothing says whose it is.

Where nothing is selected, row 0 counts, but it does not learn: a gradient that comes back to it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NoReturn

import torch
from torch import Tensor

from lhuc_asr.base.errors import SiteError, SpeakerError
from lhuc_asr.lhuc.site import Selection

# A site's name and rows (N,) -> r (N, H).
ComputedRows = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Selected:
    """What is selected of a bank.

    Attributes:
        rows: The rows; None where none are selected, and row 0 counts.
        computed: What r is computed by, in place of being looked up.
        layout: The bank's layout when the rows were selected; speakers who leave the bank move the rows of others.
        recomputed: Whether this is what a checkpointed forward pass was made with.
        exported: Whether the rows are an input of a program that torch.export makes.
    """

    rows: Selection | None = None
    computed: ComputedRows | None = None
    layout: int = 0
    recomputed: bool = False
    exported: bool = False


_NOTHING = Selected()
# By the bank's part that selects: one variable for all banks, because a context holds its variables for ever.
_IN_CONTEXT: ContextVar[Mapping[Selecting, Selected]] = ContextVar("_IN_CONTEXT", default=MappingProxyType({}))


class Selecting:
    """The selections of one bank. A copy, and one that was pickled, has none.

    Attributes:
        sticky: What is selected wherever no context selects.
    """

    def __init__(self) -> None:
        self.sticky = _NOTHING
        self._layout = 0

    def stick(self, rows: Selection | None) -> None:
        """Select rows wherever no context does, in every thread; None to select none again."""
        self.sticky = _NOTHING if rows is None else Selected(rows, layout=self._layout)

    def rows_moved(self) -> None:
        """Speakers have left the bank: rows that were selected before may be others' now, and are refused."""
        self._layout += 1

    def now(self) -> Selected:
        """What is selected here and now.

        Raises:
            SiteError: This is a backward pass, and it runs a forward pass again without what that was made with; or
                torch.export makes a program, and the rows are not an input of it.
            SpeakerError: Speakers have left the bank since the rows were selected.
        """
        selected = _IN_CONTEXT.get().get(self, self.sticky)
        if selected.rows is not None and selected.layout != self._layout:
            raise SpeakerError("speakers were dropped since rows of this bank were selected; select them again")
        if torch.compiler.is_exporting() and not selected.exported:
            raise SiteError(
                "a program of torch.export does not ask the bank who speaks; export AdaptedModel(model, bank) with "
                "speakers= a tensor of rows, or, for one speaker, fold(bank, speaker)"
            )
        if not selected.recomputed and torch._C._current_graph_task_id() != -1:
            raise SiteError(
                "a forward pass runs again during a backward pass (gradient checkpointing), and nothing says for which "
                "speakers; pass context_fn=bank.checkpointing and use_reentrant=False to torch.utils.checkpoint, or "
                'to Hugging Face: gradient_checkpointing_kwargs={"use_reentrant": False, "context_fn": '
                "bank.checkpointing}, which AdaptedModel(model, bank).gradient_checkpointing_enable() does by itself"
            )
        return selected

    def rows(self, rows: Selection) -> AbstractContextManager[None]:
        """A context in which rows are selected."""
        return self._entered(lambda outer: replace(outer, rows=rows, layout=self._layout, recomputed=False))

    def computed(self, by: ComputedRows, rows: Selection | None = None) -> AbstractContextManager[None]:
        """A context in which r is computed, for rows that are selected too unless they are None."""

        def change(outer: Selected) -> Selected:
            selected = outer if rows is None else replace(outer, rows=rows, layout=self._layout)
            return replace(selected, computed=by, recomputed=False)

        return self._entered(change)

    def exported(self, rows: Selection, by: ComputedRows) -> AbstractContextManager[None]:
        """A context in which torch.export makes a program that takes rows; r is computed, by default by a function."""
        return self._entered(lambda outer: Selected(rows, outer.computed or by, self._layout, exported=True))

    def recomputed(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Contexts for a forward pass and for its repetition, in which what is selected now is selected."""
        kept = replace(self.now(), recomputed=True)
        return nullcontext(), self._entered(lambda outer: kept)

    @contextmanager
    def _entered(self, change: Callable[[Selected], Selected]) -> Iterator[None]:
        outer = _IN_CONTEXT.get()
        _IN_CONTEXT.set({**outer, self: change(outer.get(self, self.sticky))})
        try:
            yield
        finally:
            # Not by the token: a generator may be closed in another context than it was begun in.
            _IN_CONTEXT.set(outer)

    def __deepcopy__(self, memo: dict[int, object]) -> Selecting:
        return Selecting()

    def __reduce__(self) -> tuple[type[Selecting], tuple[()]]:
        return Selecting, ()


def refuse_unselected(gradient: object) -> NoReturn:
    """Refuse a gradient that comes back to row 0 from a forward pass without a selection.

    A hook of the amplitudes, so that such a pass may be made with gradients on, as long as no backward pass follows.

    Raises:
        SiteError: Always.
    """
    raise SiteError(
        "no speaker was selected in the forward pass, so row 0 would learn, for everybody; run the model inside "
        "bank.speaker(name) or bank.rows(names), or pass AdaptedModel speakers=. If row 0 is to learn, "
        'bank.select(""); if no row is, bank.requires_grad_(False)'
    )
