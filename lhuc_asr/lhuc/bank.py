"""A bank: the amplitudes of many speakers for one model, one row for each speaker.

Row 0 is the speaker-independent row. Its amplitudes start neutral, which changes no bit of the model's output, and
speaker-adaptive training learns them (theta^0 in equations 5 and 6). Row 0 is used outside any context and, on
request, for a speaker whom the bank does not know. So the same code runs before adaptation, after adaptive training
and for a new speaker. It learns only where it is selected (``bank.speaker("")``, or "" among ``bank.rows``): a backward
pass after a forward pass without a selection is an error.

    bank = attach(model, sites="hidden.*.activation", speakers=["alice", "bob"])
    with bank.speaker("alice"):                      # one speaker for the whole batch
        model(x)
    with bank.rows(["alice", "bob", "bob"]):         # a speaker for each element of the batch
        model(x)
    with bank.blocks(["alice", "bob"]):              # alice's half of the batch, then bob's
        model(x)

The model keeps its weights, the names of its parameters and its state dict: the bank is not part of it. The
parameters of a bank are tables (S + 1, H), one for each site. Their gradients are sparse and name the rows that took
part, so train them with ``bank.optimizer(...)`` (see row_optim).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SiteError
from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.identity import hashes_like, parts_of, sites_in
from lhuc_asr.lhuc.leaving import check_nobody_left
from lhuc_asr.lhuc.model_rows import ModelRows
from lhuc_asr.lhuc.names import inner
from lhuc_asr.lhuc.place import (
    forget_compiled,
    let_nest,
    nesting_around,
    never_compiled,
    stop_watching,
    watch,
    watchers,
)
from lhuc_asr.lhuc.processes import check_averaged
from lhuc_asr.lhuc.rows import Unknown
from lhuc_asr.lhuc.selecting import ComputedRows, Selecting, refuse_unselected
from lhuc_asr.lhuc.site import Selection, Site, SiteHook, scale_output
from lhuc_asr.lhuc.speaker import SpeakerState


class SpeakerBank(ModelRows):
    """Rows of amplitude parameters r, and the hooks that apply them.

    ``attach`` makes a bank, and finds the sites. A deep copy of a bank is a detached bank with rows of its own for
    the same model. A deep copy of an attached model is the model without amplitudes. Copied together, the model first
    (``copy.deepcopy((model, bank))``), the copy of the bank is attached to the copy of the model.

    Args:
        model: The model whose outputs are scaled; it is never changed. In a wrapper (``torch.compile``, DDP) it is the
            model inside that counts.
        sites: The sites.
        speakers: Names of rows 1 to S.
        xi: The amplitude function.

    Attributes:
        sites: The sites, in the model's order.
        amplitude: The amplitude function xi.
        tables: A table (S + 1, H) for each site.
        parts: As in ``ModelRows``.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[Site],
        speakers: Iterable[str] = (),
        xi: str | Amplitude = "exp",
    ) -> None:
        model = inner(model)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        # Half precision has too few digits for small steps around 1.
        super().__init__(sites, xi, torch.promote_types(like.dtype, torch.float32), like.device)
        self._model = (model,)
        self.add(speakers)
        self._selecting = Selecting()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._nesting: list[nn.TransformerEncoder] = []
        self._checked_last: tuple[Selection | None, list[tuple[int, int]]] | None = None

    def extra_repr(self) -> str:
        """Sites, speakers, and the size of a speaker beside the model's."""
        everything = sum(parameter.numel() for parameter in self.model.parameters())
        share = f"{self.numbers / everything:.3%} of the {everything:,}" if everything else "none"
        state = "attached" if self.attached else "detached"
        return f"{super().extra_repr()}\n{state}, {share} parameters of {type(self.model).__name__}"

    # Contexts nest, and the innermost counts. They belong to the thread or asyncio task that enters them.

    def speaker(self, name: str, unknown: Unknown = "error") -> AbstractContextManager[SpeakerBank]:
        """A context in which the whole batch is one speaker's; row 0 for ""."""
        return self._select(Selection(self.checked_rows([name], unknown)))

    def rows(
        self, rows: Sequence[str] | Tensor, unknown: Unknown = "error", *, beams: int = 1
    ) -> AbstractContextManager[SpeakerBank]:
        """A context in which each element of the batch has its own speaker.

        The elements are what the first axis counts, or the second axis in an LSTM that puts time first: the frames
        of a frame-level network (features (B, D)), the utterances of a sequence network ((B, T, D)).

        Args:
            rows: Names, or rows as an int64 tensor, shape (B,).
            unknown: As in ``rows_of``.
            beams: How often an element may stand in the batch, next to itself, as in the decoder during beam search;
                one context then serves one call of the decoding.
        """
        return self._select(Selection.of_elements(self.checked_rows(rows, unknown), beams))

    def blocks(self, rows: Sequence[str] | Tensor, unknown: Unknown = "error") -> AbstractContextManager[SpeakerBank]:
        """A context in which the batch is N contiguous blocks of equal size, one speaker for each block.

        It gives the result of ``rows`` at a lower cost, because nothing of the batch's size is gathered.

        Args:
            rows: Names, or rows as an int64 tensor, shape (N,).
            unknown: As in ``rows_of``.
        """
        return self._select(Selection(self.checked_rows(rows, unknown)))

    @contextmanager
    def _select(self, selection: Selection) -> Iterator[SpeakerBank]:
        with self._selecting.rows(self._ready(selection)):
            yield self

    def _ready(self, selection: Selection) -> Selection:
        """A selection that was checked, where the tables are: on a GPU the sites then have nothing to wait for."""
        if not self.attached:
            raise SiteError("the bank is detached, so no amplitude would reach the model; bank.attach() puts it back")
        self.check_finite(selection.index)
        return selection.on(self.tables[0].device)

    def select(self, rows: str | Sequence[str] | Tensor | None, unknown: Unknown = "error") -> None:
        """Select a speaker, or a row for each element, until further notice.

        It counts in all threads wherever no context does. For a trainer or a server that calls the model itself.

        Args:
            rows: A name; or names or rows as in ``rows``. "" selects row 0, which learns then. None ends the selection,
                as it was at first: row 0 counts, and does not learn.
            unknown: As in ``rows_of``.

        Raises:
            SiteError: The bank is detached.
            SpeakerError: The bank does not know a name, or a row is not finite.
        """
        if rows is None:
            self._selecting.stick(None)
        elif isinstance(rows, str):
            self._selecting.stick(self._ready(Selection(self.checked_rows([rows], unknown))))
        else:
            self._selecting.stick(self._ready(Selection.of_elements(self.checked_rows(rows, unknown))))

    def checkpointing(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """The ``context_fn`` of ``torch.utils.checkpoint.checkpoint``, with ``use_reentrant=False``.

        Gradient checkpointing runs a forward pass again during the backward pass. With this it does so for the speakers
        that were selected at first; without it, it is an error.

        Example::

            with bank.rows(names):
                hidden = checkpoint(block, x, use_reentrant=False, context_fn=bank.checkpointing)
            hidden.sum().backward()
        """
        return self._selecting.recomputed()

    @contextmanager
    def computed(self, by: ComputedRows, elements: Tensor | None = None) -> Iterator[SpeakerBank]:
        """A context in which r is computed instead of looked up, for example by a gate or by sampling.

        Args:
            by: Function from a site's name and rows (N,) to r of these rows at the site, shape (N, H), differentiable.
            elements: What ``by`` takes as the row of each element, shape (B,); by default, what is selected.
        """
        with self._selecting.computed(by, None if elements is None else Selection.of_elements(elements)):
            yield self

    def r(self, site: str, rows: Tensor) -> Tensor:
        """The parameters r of some rows at a site, shape (N, H): stored, or, inside ``computed``, computed."""
        by = self._selecting.now().computed
        return self.stored_r(site, rows) if by is None else by(site, rows)

    def _rows_moved(self) -> None:
        self._selecting.rows_moved()

    # Hooks

    @property
    def attached(self) -> bool:
        """Whether the model's outputs are scaled."""
        return bool(self._handles)

    def attach(self) -> None:
        """Hook the sites' modules; what ``torch.compile`` has made so far is made again at its next call.

        Raises:
            SiteError: A bank is attached there already, or the model lacks a site.
        """
        modules = dict(self.model.named_modules())
        for site in self.sites:
            if site.place.module not in modules:
                raise SiteError(
                    f"the model has no module {site.place.module!r}; attach the bank to the model that it was made for"
                )
            hooks = [hook.look for hook in watchers(modules[site.place.module])]
            if any(
                isinstance(hook, SiteHook) and hook.scale is not None and hook.site.name == site.name for hook in hooks
            ):
                raise SiteError(
                    f"site {site.name!r} carries amplitudes already; a bank holds many speakers (bank.add), "
                    "or detach the bank that is there"
                )
        self._handles = [
            watch(modules[site.place.module], site.place, SiteHook(self._scale, site)) for site in self.sites
        ]
        self._nesting = nesting_around(self.model, [site.place for site in self.sites])
        let_nest(self._nesting, False)
        forget_compiled()

    def detach(self) -> None:
        """Remove the hooks, so that the model is as it was before; the rows stay in the bank.

        Raises:
            SiteError: The bank is not attached.
        """
        if not self.attached:
            raise SiteError("the bank is detached already; bank.attach() attaches it")
        for handle in self._handles:
            handle.remove()
        self._handles = []
        let_nest(self._nesting, True)
        forget_compiled()

    @never_compiled  # what is selected changes from call to call
    def _scale(self, site: Site, output: object) -> object:
        selected = self._selecting.now()
        if selected.computed is None:
            check_averaged(self.model, self._table(site.name))
        selection = selected.rows
        if selection is None or selection is self._selecting.sticky.rows:
            selection = self._still_finite(selection)
        if not selection.of_one_speaker:
            check_nobody_left()
        amplitude = self.xi(site.name, selection.index)
        if selected.rows is None and selected.computed is None and amplitude.requires_grad:
            amplitude.register_hook(refuse_unselected)
        return scale_output(site, output, amplitude, selection)

    def _still_finite(self, selection: Selection | None) -> Selection:
        """A selection that outlasts changes of its rows, checked after each: a sticky one, or row 0 for None."""
        # The hook of every site calls this: check again only when the tables have changed.
        state = (selection, [(table.edition, table._version) for table in self.tables])
        selection = selection or Selection(self.tables[0].new_zeros(1, dtype=torch.int64))
        if state != self._checked_last:
            self.check_finite(selection.index)
            self._checked_last = state
        return selection

    @classmethod
    def load(cls, folder: Path | str, model: nn.Module, xi: Amplitude | None = None) -> Self:
        """Attach the speakers of a folder to their model, or to one with the same parts if the files are of ``parts``.

        Args:
            folder: A folder that ``save`` wrote; row 0 is neutral if its file is missing.
            model: The model that the speakers belong to.
            xi: The amplitude function, if it is not one of the paper's.

        Raises:
            CheckpointError: The folder has no speaker's file, or one is damaged.
            ModelMismatchError: A speaker belongs to another model, or has other sites or another amplitude function
                than the first.
        """
        if Path(folder).is_file():
            raise CheckpointError(
                f"{folder}: a file; give the folder that it is in, which holds all the bank's speakers"
            )
        states = [SpeakerState.load(path) for path in sorted(Path(folder).glob("*.safetensors"))]
        if not states:
            raise CheckpointError(f"{folder}: no speaker's file (*.safetensors); bank.save(folder) writes them")
        first, parts = states[0], parts_of(states[0].model)
        try:
            here = hashes_like((state.model for state in states), model, parts)
        except SiteError as error:
            raise ModelMismatchError(f"{first.source}: it belongs to parts of another model: {error}") from error
        bank = cls(model, sites_in(model, first.sites, first.model, here[first.model]), xi=xi or first.amplitude)
        bank.parts = parts
        bank._put(states, here)
        bank.attach()
        return bank

    def __deepcopy__(self, memo: dict[int, Any]) -> SpeakerBank:
        model = memo.get(id(self.model), self.model)
        twin = SpeakerBank(model, self.sites, self.speakers, self.amplitude)
        memo[id(self)] = twin
        twin.sparse_gradients, twin.parts = self.sparse_gradients, self.parts
        for mine, copied in zip(self.tables, twin.tables, strict=True):
            copied.data = mine.detach().clone()
            copied.requires_grad_(mine.requires_grad)
        if self.attached and model is not self.model:
            hooks = [hook for module in model.modules() for hook in watchers(module)]
            stop_watching(
                model, [hook for hook in hooks if isinstance(hook.look, SiteHook) and hook.look.scale is None]
            )
            twin.attach()
        return twin
