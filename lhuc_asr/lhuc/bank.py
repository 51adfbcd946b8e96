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

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lhuc_asr.base.errors import CheckpointError, SiteError, SpeakerError
from lhuc_asr.lhuc.amplitude import Amplitude
from lhuc_asr.lhuc.archive import SpeakerArchive
from lhuc_asr.lhuc.rows import SpeakerRows, Unknown
from lhuc_asr.lhuc.site import Selection, Site, scale_output
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT, SpeakerState, model_hash, speaker_path

# A site's name and rows (N,) -> r (N, H).
ComputedRows = Callable[[str, Tensor], Tensor]


class SpeakerBank(SpeakerRows):
    """Rows of amplitude parameters r, and the hooks that apply them.

    Usually made by ``attach``, which finds the sites. A deep copy of a bank is a bank with rows of its own
    for the same model, not attached; a deep copy of an attached model is the plain model.

    Args:
        model: The model whose outputs are scaled; never changed.
        sites: Where.
        speakers: Names of rows 1 to S.
        xi: The amplitude function.

    Attributes:
        sites, amplitude, tables: As of SpeakerRows.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[Site],
        speakers: Iterable[str] = (),
        xi: str | Amplitude = "exp",
    ) -> None:
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        # Half precision has too few digits for small steps around 1.
        super().__init__(sites, xi, torch.promote_types(like.dtype, torch.float32), like.device)
        # In a tuple, because a module's attribute that is a module becomes its child, its weights the bank's.
        self._model = (model,)
        self._selection: Selection | None = None
        self._computed: ComputedRows | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._checked_row_zero: list[tuple[int, int]] = []
        self._archive: SpeakerArchive | None = None
        self.add(speakers)

    @property
    def model(self) -> nn.Module:
        """The model that the bank belongs to."""
        return self._model[0]

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
        self.check_finite(selection.index)
        outer, self._selection = self._selection, selection
        try:
            yield self
        finally:
            self._selection = outer

    @contextmanager
    def computed(self, by: ComputedRows) -> Iterator[SpeakerBank]:
        """A context in which r is computed instead of looked up: by a gate, from a speaker's code, by sampling.

        Args:
            by: A site's name and rows (N,) -> r of these rows at the site, shape (N, H), differentiable.
        """
        outer, self._computed = self._computed, by
        try:
            yield self
        finally:
            self._computed = outer

    def r(self, site: str, rows: Tensor) -> Tensor:
        """What the amplitudes of some rows at a site are made of, shape (N, H): stored, or in ``computed`` computed."""
        return self.stored_r(site, rows) if self._computed is None else self._computed(site, rows)

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
        selection = self._selection or self._row_zero()
        return scale_output(site, output, self.xi(site.name, selection.index), selection)

    def _row_zero(self) -> Selection:
        selection = Selection(self.tables[0].new_zeros(1, dtype=torch.int64))
        # Every site's hook comes here: ask again only when the tables have changed.
        versions = [(table.edition, table._version) for table in self.tables]
        if versions != self._checked_row_zero:
            self.check_finite(selection.index)
            self._checked_row_zero = versions
        return selection

    # Speakers from and to elsewhere

    def state(self, speaker: str) -> SpeakerState:
        """A copy of one speaker's row, ready to be saved; "" is row 0.

        Raises:
            SpeakerError: The bank does not know the speaker, or the row is not finite.
        """
        return next(self.states([speaker]))

    def states(self, speakers: Iterable[str] | None = None) -> Iterator[SpeakerState]:
        """Copies of the rows of some speakers; of row 0 and of all where none are named."""
        model = model_hash(self.model)
        for speaker in list(self._rows) if speakers is None else speakers:
            row = self.row(speaker)
            r = {site.name: table.detach()[row].clone() for site, table in zip(self.sites, self.tables, strict=True)}
            yield SpeakerState(speaker, self.amplitude.name, model, self.sites, r)

    def put(self, *states: SpeakerState) -> None:
        """Set speakers' rows, adding the speakers that the bank does not know. All of them, or none.

        Raises:
            ModelMismatchError: A state belongs to another model, other sites or another amplitude.
            SpeakerError: A name cannot be used.
        """
        model = model_hash(self.model)
        for state in states:
            state.check_fits(self.sites, self.amplitude.name, model)
        self._write(states)

    def merge(self, other: SpeakerBank) -> None:
        """Take over another bank's speakers; row 0 stays this bank's.

        Raises:
            ModelMismatchError: The other bank has other sites, another amplitude or another model.
            SpeakerError: A speaker is in both; then none is taken.
        """
        both = sorted(set(self.speakers) & set(other.speakers))
        states = list(other.states(other.speakers))
        if both:
            raise SpeakerError(f"speakers {both[:5]} are in both banks; drop them from one: bank.drop([...])")
        self.put(*states)

    def save(self, folder: Path | str) -> None:
        """Write ``<speaker>.safetensors`` a speaker, and ``speaker-independent.safetensors`` for row 0.

        Raises:
            SpeakerError: A row is not finite; then nothing is written.
        """
        for state in list(self.states()):
            state.save(speaker_path(folder, state.speaker))

    def load_speaker(self, path: Path | str) -> str:
        """Put one speaker's file into the bank and return the speaker's name.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: It belongs to another model, other sites or another amplitude.
        """
        state = SpeakerState.load(path)
        state.check_fits(self.sites, self.amplitude.name, model_hash(self.model), path)
        self._write([state])
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
        states = {path: SpeakerState.load(path) for path in sorted(Path(folder).glob("*.safetensors"))}
        if not states:
            raise CheckpointError(f"{folder}: no speaker's file (*.safetensors); bank.save(folder) writes them")
        first = next(iter(states.values()))
        bank = cls(model, first.sites, xi=xi or first.amplitude)
        model_now = model_hash(model)
        for path, state in states.items():
            state.check_fits(bank.sites, bank.amplitude.name, model_now, path)
        bank._write(list(states.values()))
        bank.attach()
        return bank

    def open_archive(self, path: Path | str) -> SpeakerArchive:
        """Take speakers from an archive from now on: they stay on disk until ``fetch`` names them.

        Row 0 becomes the archive's, where it has one.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: It belongs to another model, other sites or another amplitude.
        """
        archive = SpeakerArchive(path)
        archive.check_fits(self.sites, self.amplitude.name, model_hash(self.model))
        if SPEAKER_INDEPENDENT in archive:
            self._write([archive.state(SPEAKER_INDEPENDENT)])
        self._archive = archive
        return archive

    def fetch(self, speakers: Iterable[str]) -> None:
        """Read speakers of the opened archive into the bank; who is there already stays as he is.

        Raises:
            SpeakerError: No archive is open, or a speaker is neither in it nor in the bank; then none is read.
            CheckpointError: A row is damaged; then none is read.
        """
        if self._archive is None:
            raise SpeakerError("no archive is open; bank.open_archive(path) first")
        missing = dict.fromkeys(speaker for speaker in speakers if speaker not in self._rows)
        self._write([self._archive.state(speaker) for speaker in missing])

    def _write(self, states: Sequence[SpeakerState]) -> None:
        self.add(state.speaker for state in states if state.speaker not in self._rows)
        with torch.no_grad():
            for state in states:
                row = self._rows[state.speaker]
                for site, table in zip(self.sites, self.tables, strict=True):
                    table[row] = state.r[site.name]
        for table in self.tables:
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
