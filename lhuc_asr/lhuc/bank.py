"""A bank: the amplitudes of many speakers for one model, a row a speaker.

Row 0 is the speaker-independent transform. It starts neutral, where it changes no bit of the model's output,
and speaker-adaptive training learns it (theta^0 in equations 5 and 6). Outside any context, and for a speaker
the bank does not know, row 0 is used: an unadapted model, an adaptively trained model and a new speaker are
one code path.

    bank = attach(model, sites="hidden.*.activation", speakers=["alice", "bob"])
    with bank.speaker("alice"):                      # one speaker for the whole batch
        model(x)
    with bank.rows(["alice", "bob", "bob"]):         # a speaker for each element of the batch
        model(x)
    with bank.blocks(["alice", "bob"]):              # alice's half of the batch, then bob's
        model(x)

The model keeps its weights, its parameters' names and its state dict; the bank is no part of it. The
parameters of a bank are tables (S + 1, H), one a site; their gradients are sparse and name the rows that took
part, so train them with ``bank.optimizer(...)``: see row_optim.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.errors import CheckpointError, ConfigError, SiteError, SpeakerError
from lhuc_asr.lhuc.amplitude import Amplitude, amplitude
from lhuc_asr.lhuc.row_optim import OPTIMIZERS, RowOptimizer, RowTable, refuse_foreign_optimizers
from lhuc_asr.lhuc.site import Selection, Site, scale_output
from lhuc_asr.lhuc.speaker import (
    SPEAKER_INDEPENDENT,
    SpeakerState,
    check_speaker_name,
    model_hash,
    speaker_path,
)

Unknown = Literal["error", "si"]


class SpeakerBank(nn.Module):
    """Rows of amplitude parameters r, and the hooks that apply them.

    Usually made by ``attach``, which finds the sites. A deep copy of a bank is a bank with rows of its own
    for the same model, not attached; a deep copy of an attached model is the plain model.

    Args:
        model: The model whose outputs are scaled; never changed.
        sites: Where.
        speakers: Names of rows 1 to S.
        xi: The amplitude function.

    Attributes:
        sites: The sites, in the model's order.
        amplitude: The amplitude function xi.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[Site],
        speakers: Iterable[str] = (),
        xi: str | Amplitude = "exp",
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.amplitude = amplitude(xi)
        # In a tuple, because a module's attribute that is a module becomes its child, its weights the bank's.
        self._model = (model,)
        self._rows = {SPEAKER_INDEPENDENT: 0}
        self._selection: Selection | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        # Half precision has too few digits for small steps around 1.
        dtype = torch.promote_types(like.dtype, torch.float32)
        self.tables = nn.ParameterList(
            RowTable(torch.full((1, site.width), self.amplitude.neutral, dtype=dtype, device=like.device))
            for site in self.sites
        )
        self._table_of = {site.name: number for number, site in enumerate(self.sites)}
        self.add(speakers)
        refuse_foreign_optimizers()

    # Speakers

    @property
    def model(self) -> nn.Module:
        """The model that the bank belongs to."""
        return self._model[0]

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of rows 1 to S, in order."""
        return tuple(self._rows)[1:]

    def row(self, speaker: str) -> int:
        """The row of a speaker; "" is row 0.

        Raises:
            SpeakerError: The bank does not know the name.
        """
        if speaker not in self._rows:
            near = difflib.get_close_matches(str(speaker), self.speakers, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(self.speakers)} speakers."
            raise SpeakerError(
                f"speaker {speaker!r} is not in the bank; {hint} Add it with bank.add([...]), or use the "
                'speaker-independent row 0: bank.rows_of(names, unknown="si")'
            )
        return self._rows[speaker]

    def rows_of(self, names: Iterable[str], unknown: Unknown = "error") -> Tensor:
        """The rows of speakers, shape (number of names,), int64.

        Args:
            names: Speakers; "" is row 0.
            unknown: What a name that the bank does not know is: an error, or row 0 ("si").
        """
        known = self._rows
        rows = [known.get(name, 0) if unknown == "si" else self.row(name) for name in names]
        return torch.tensor(rows, dtype=torch.int64, device=self.tables[0].device)

    def add(self, speakers: Iterable[str]) -> None:
        """Append rows that start where row 0 is: neutral, or what adaptive training has learned.

        Raises:
            SpeakerError: A name is taken, or cannot be a file's name; then no row is added.
        """
        names = list(speakers)
        taken = dict(self._rows)
        for name in names:
            check_speaker_name(name)
            if name in taken:
                raise SpeakerError(f"speaker {name!r} is in the bank already; give each speaker one name")
            taken[name] = len(taken)
        if names:
            self._rows = taken
            self._replace_tables(lambda table: torch.cat([table, table[:1].expand(len(names), -1)]))

    def drop(self, speakers: Iterable[str]) -> None:
        """Remove speakers; the rows after them move up.

        Raises:
            SpeakerError: A name is unknown, or is row 0's.
        """
        gone = self._speaker_rows(speakers)
        kept = torch.tensor([row for row in self._rows.values() if row not in gone], device=self.tables[0].device)
        names = [name for name, row in self._rows.items() if row not in gone]
        self._rows = {name: row for row, name in enumerate(names)}
        self._replace_tables(lambda table: table[kept])

    def reset(self, speakers: Iterable[str]) -> None:
        """Set speakers back to row 0.

        Raises:
            SpeakerError: A name is unknown, or is row 0's.
        """
        rows = torch.tensor(sorted(self._speaker_rows(speakers)), dtype=torch.int64, device=self.tables[0].device)
        self._replace_tables(lambda table: table.index_copy(0, rows, table[:1].expand(len(rows), -1)))

    def merge(self, other: SpeakerBank) -> None:
        """Take over another bank's speakers; row 0 stays this bank's.

        Raises:
            ModelMismatchError: The other bank has other sites, another amplitude or another model.
            SpeakerError: A speaker is in both; then none is taken.
        """
        mine = model_hash(self.model)
        theirs = mine if other.model is self.model else model_hash(other.model)
        states = [other._state(name, theirs) for name in other.speakers]
        for state in states:
            state.check_fits(self.sites, self.amplitude.name, mine)
        self.add(other.speakers)
        for state in states:
            self._write(state)

    def _speaker_rows(self, speakers: Iterable[str]) -> set[int]:
        rows = {self.row(name) for name in speakers}
        if 0 in rows:
            raise SpeakerError("row 0 is the speaker-independent transform and always exists; name a speaker")
        return rows

    def _replace_tables(self, change: Callable[[Tensor], Tensor]) -> None:
        # The parameter stays the same object, so that whoever holds it goes on with the new rows; the edition
        # tells optimizers that their state belongs to the old ones.
        for table in self.tables:
            table.data = change(table.data)
            table.grad = None
            table.edition += 1

    # Amplitudes

    def r(self, site: str, rows: Tensor) -> Tensor:
        """The unconstrained parameters of some rows at a site, shape (N, H); the gradient names the rows.

        Args:
            site: A site's name.
            rows: Shape (N,), int64.
        """
        table = self._table(site)
        r: Tensor = functional.embedding(rows.to(table.device), table, sparse=True)
        return r

    def xi(self, site: str, rows: Tensor) -> Tensor:
        """The amplitudes xi(r) of some rows at a site, shape (N, H)."""
        return self.amplitude(self.r(site, rows))

    def optimizer(self, name: str, **options: Any) -> RowOptimizer:
        """An optimizer that moves only the rows that took part: "sgd" or "adam".

        Args:
            name: Which.
            options: Those of RowSGD (lr, momentum, weight_decay) or RowAdam (lr, betas, eps, weight_decay).

        Raises:
            ConfigError: No such optimizer or option.
        """
        if name not in OPTIMIZERS:
            raise ConfigError(f"no row-wise optimizer is called {name!r}; known: {', '.join(OPTIMIZERS)}")
        try:
            return OPTIMIZERS[name](self.parameters(), **options)
        except TypeError as error:
            raise ConfigError(f"optimizer {name!r} with options {sorted(options)}: {error}") from error

    def _table(self, site: str) -> Tensor:
        if site not in self._table_of:
            raise SiteError(f"site {site!r} is not in the bank; it has {', '.join(self._table_of)}")
        table: Tensor = self.tables[self._table_of[site]]
        return table

    # Contexts: they nest, and the innermost counts. They belong to the bank, so threads must not share one.

    def speaker(self, name: str, unknown: Unknown = "error") -> AbstractContextManager[SpeakerBank]:
        """A context in which the whole batch is one speaker's; "" is the speaker-independent row."""
        return self._select(Selection(self.rows_of([name], unknown)))

    def rows(self, rows: Sequence[str] | Tensor, unknown: Unknown = "error") -> AbstractContextManager[SpeakerBank]:
        """A context in which each element of the batch has a speaker of its own.

        An element is a frame of a frame-level network (features (B, D)), an utterance of a sequence network
        ((B, T, D)): whatever the first axis counts, or the second in an LSTM that puts time first.

        Args:
            rows: Names, or rows as an int64 tensor, shape (B,).
            unknown: As in ``rows_of``.
        """
        return self._select(Selection.of_elements(self._checked(rows, unknown)))

    def blocks(self, rows: Sequence[str] | Tensor, unknown: Unknown = "error") -> AbstractContextManager[SpeakerBank]:
        """A context in which the batch is N contiguous blocks of equal size, each of one speaker.

        It gives what ``rows`` gives, and costs less: nothing of the batch's size is gathered.

        Args:
            rows: Names, or rows as an int64 tensor, shape (N,).
            unknown: As in ``rows_of``.
        """
        return self._select(Selection(self._checked(rows, unknown)))

    def _checked(self, rows: Sequence[str] | Tensor, unknown: Unknown) -> Tensor:
        if not isinstance(rows, Tensor):
            if isinstance(rows, str):
                raise SpeakerError(f"one name {rows!r} where a sequence of names belongs; use bank.speaker({rows!r})")
            rows = self.rows_of(rows, unknown)
        if rows.dtype != torch.int64 or rows.dim() != 1 or not len(rows):
            raise SpeakerError(f"rows: expected int64 of shape (B,), found {rows.dtype} of shape {tuple(rows.shape)}")
        low, high = (int(bound) for bound in torch.aminmax(rows))
        if low < 0 or high >= len(self._rows):
            raise SpeakerError(f"rows from {low} to {high}, but the bank has rows 0 to {len(self._rows) - 1}")
        return rows

    @contextmanager
    def _select(self, selection: Selection) -> Iterator[SpeakerBank]:
        if not self.attached:
            raise SiteError("the bank is detached, so no amplitude would reach the model; bank.attach() puts it back")
        outer, self._selection = self._selection, selection
        try:
            yield self
        finally:
            self._selection = outer

    # Hooks

    @property
    def attached(self) -> bool:
        """Whether the model's outputs are scaled."""
        return bool(self._handles)

    def attach(self) -> None:
        """Hook the sites' modules.

        Raises:
            SiteError: This bank or another is attached there already, or the model lacks a site.
        """
        modules = dict(self.model.named_modules())
        for site in self.sites:
            if site.name not in modules:
                raise SiteError(f"the model has no module {site.name!r}")
            hooks = modules[site.name]._forward_hooks.values()
            if any(isinstance(hook, SiteHook) and hook.bank is not None for hook in hooks):
                raise SiteError(
                    f"site {site.name!r} carries amplitudes already; a bank holds many speakers (bank.add), "
                    "or detach the bank that is there"
                )
        self._handles = [modules[site.name].register_forward_hook(SiteHook(self, site)) for site in self.sites]

    def detach(self) -> None:
        """Remove the hooks: the model is what it was. The rows stay in the bank.

        Raises:
            SiteError: The bank is not attached.
        """
        if not self.attached:
            raise SiteError("the bank is detached already")
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _scale(self, site: Site, output: object) -> object:
        selection = self._selection or Selection(self.tables[0].new_zeros(1, dtype=torch.int64))
        return scale_output(site, output, self.xi(site.name, selection.index), selection)

    # Files

    def state(self, speaker: str) -> SpeakerState:
        """A copy of one speaker's row, ready to be saved; "" is row 0."""
        return self._state(speaker, model_hash(self.model))

    def put(self, state: SpeakerState) -> None:
        """Set a speaker's row, adding the speaker where the bank does not know it.

        Raises:
            ModelMismatchError: The state belongs to another model, other sites or another amplitude.
            SpeakerError: The name cannot be used.
        """
        state.check_fits(self.sites, self.amplitude.name, model_hash(self.model))
        if state.speaker not in self._rows:
            self.add([state.speaker])
        self._write(state)

    def save(self, folder: Path | str) -> None:
        """Write ``<speaker>.safetensors`` a speaker, and ``speaker-independent.safetensors`` for row 0."""
        model = model_hash(self.model)
        for name in self._rows:
            self._state(name, model).save(speaker_path(folder, name))

    def load_speaker(self, path: Path | str) -> str:
        """Put one speaker's file into the bank and return the speaker's name.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: It belongs to another model, other sites or another amplitude.
        """
        state = SpeakerState.load(path)
        self.put(state)
        return state.speaker

    @classmethod
    def load(cls, folder: Path | str, model: nn.Module, xi: Amplitude | None = None) -> SpeakerBank:
        """Attach the speakers of a folder to their model.

        Args:
            folder: Where ``save`` wrote; row 0 stays neutral if its file is not there.
            model: The model that they belong to.
            xi: The amplitude function, where it is none of the paper's.

        Raises:
            CheckpointError: There is no speaker's file, or one is damaged.
            ModelMismatchError: A speaker belongs to another model, or not to the bank of the others.
        """
        states = [SpeakerState.load(path) for path in sorted(Path(folder).glob("*.safetensors"))]
        if not states:
            raise CheckpointError(f"{folder}: no speaker's file (*.safetensors)")
        bank = cls(model, states[0].sites, xi=xi or states[0].amplitude)
        model_now = model_hash(model)
        for state in states:
            state.check_fits(bank.sites, bank.amplitude.name, model_now)
        bank.add(state.speaker for state in states if state.speaker)
        for state in states:
            bank._write(state)
        bank.attach()
        return bank

    def _state(self, speaker: str, model: str) -> SpeakerState:
        row = self.row(speaker)
        r = {site.name: table.detach()[row].clone() for site, table in zip(self.sites, self.tables, strict=True)}
        return SpeakerState(speaker, self.amplitude.name, model, self.sites, r)

    def _write(self, state: SpeakerState) -> None:
        row = self._rows[state.speaker]
        with torch.no_grad():
            for site, table in zip(self.sites, self.tables, strict=True):
                table[row] = state.r[site.name]
                table.edition += 1

    def __deepcopy__(self, memo: dict[int, Any]) -> SpeakerBank:
        twin = SpeakerBank(self.model, self.sites, self.speakers, self.amplitude)
        for mine, copied in zip(self.tables, twin.tables, strict=True):
            copied.data = mine.detach().clone()
            copied.requires_grad_(mine.requires_grad)
        return twin


class SiteHook:
    """What torch calls after a site's module; a deep copy of the model gets one that does nothing."""

    def __init__(self, bank: SpeakerBank | None, site: Site) -> None:
        self.bank, self.site = bank, site

    def __call__(self, module: nn.Module, inputs: object, output: object) -> object:
        return output if self.bank is None else self.bank._scale(self.site, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> SiteHook:
        return SiteHook(None, self.site)
