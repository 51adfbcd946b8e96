"""Rows of speakers: names, and for each site a table (S + 1, H) of the parameters r.

Row 0 is the speaker-independent row, and each speaker's row starts as a copy of it. The gradients of the tables are
sparse: they name the rows that took part. So train the tables with ``optimizer`` (see row_optim). How the rows act on
a model is in bank.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError, SiteError, SpeakerError
from lhuc_asr.lhuc.amplitude import Amplitude, amplitude
from lhuc_asr.lhuc.row_optim import OPTIMIZERS, RowOptimizer, RowTable, refuse_foreign_optimizers
from lhuc_asr.lhuc.site import Site
from lhuc_asr.lhuc.speaker import LARGEST_AMPLITUDE, SPEAKER_INDEPENDENT, SpeakerState, check_speaker_name, not_finite

Unknown = Literal["error", "si"]


class SpeakerRows(nn.Module):
    """The rows of many speakers at some sites.

    Args:
        sites: The sites of the amplitudes.
        xi: The amplitude function.
        dtype: Type of the tables.
        device: Device of the tables.

    Attributes:
        sites: The sites, in the model's order.
        amplitude: The amplitude function xi.
        tables: A table (S + 1, H) for each site.
    """

    def __init__(
        self,
        sites: Iterable[Site],
        xi: str | Amplitude = "exp",
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.sites = tuple(sites)
        self.amplitude = amplitude(xi)
        self.tables = nn.ParameterList(
            RowTable(torch.full((1, site.width), self.amplitude.neutral, dtype=dtype, device=device))
            for site in self.sites
        )
        self._table_of = {site.name: number for number, site in enumerate(self.sites)}
        self._finite_in: list[tuple[int, int]] = []
        self._finite_rows: set[int] = set()
        self._give_rows([SPEAKER_INDEPENDENT])
        refuse_foreign_optimizers()

    # The names are part of the state dict, as a tensor, so that rows keep their owners and safetensors can hold it.

    def get_extra_state(self) -> Tensor:
        """The speakers' names, as bytes of a JSON list."""
        return torch.frombuffer(bytearray(json.dumps(self.speakers).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the names of a state dict's rows.

        Raises:
            SpeakerError: They cannot be names, or are not as many as the rows.
        """
        self._give_rows([SPEAKER_INDEPENDENT, *_names(state, len(self.tables[0]))])
        self._rows_moved()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        names, stored = state_dict.get(f"{prefix}_extra_state"), state_dict.get(f"{prefix}tables.0")
        if names is not None and isinstance(stored, Tensor) and stored.dim() == 2:
            rows = len(stored)
            _names(names, rows)  # before anything is lost
            shapes = [getattr(state_dict.get(f"{prefix}tables.{n}"), "shape", None) for n in range(len(self.tables))]
            if shapes == [(rows, site.width) for site in self.sites]:  # otherwise torch says what does not fit
                self._replace_tables(lambda table: table[:1].repeat(rows, 1))
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of rows 1 to S, in order."""
        return tuple(self._rows)[1:]

    @property
    def sparse_gradients(self) -> bool:
        """Whether the tables' gradients name the rows that took part, as they do at first.

        Dense ones can be clipped, scaled, and reduced over processes; those rows took part whose gradient is not zero.
        """
        return all(table.sparse_gradient for table in self.tables)

    @sparse_gradients.setter
    def sparse_gradients(self, sparse: bool) -> None:
        for table in self.tables:
            table.sparse_gradient, table.grad = sparse, None

    @property
    def numbers(self) -> int:
        """How many numbers a speaker has: the sum of the sites' widths."""
        return sum(site.width for site in self.sites)

    def extra_repr(self) -> str:
        """Sites, speakers, and how many numbers each has."""
        names = [site.name for site in self.sites]
        shown = ", ".join([*names[:4], "...", names[-1]] if len(names) > 6 else names)
        return (
            f"amplitude {self.amplitude.name} at {len(names)} sites: {shown}\n"
            f"{len(self.speakers)} speakers, {self.numbers:,} numbers each"
        )

    def row(self, speaker: str) -> int:
        """The row of a speaker; row 0 for "".

        Raises:
            SpeakerError: The bank does not know the name.
        """
        if speaker not in self._rows:
            near = difflib.get_close_matches(str(speaker), self.speakers, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(self.speakers)} speakers."
            raise SpeakerError(
                f"speaker {speaker!r} is not in the bank; {hint} Add it with bank.add([...]), or use the "
                'speaker-independent row, row 0: bank.rows_of(names, unknown="si")'
            )
        return self._rows[speaker]

    def rows_of(self, names: Iterable[str], unknown: Unknown = "error") -> Tensor:
        """The rows of speakers, shape (number of names,), int64.

        Args:
            names: Speakers; "" for row 0.
            unknown: What to do with a name that the bank does not know: "error" raises an error, "si" takes row 0.

        Raises:
            SpeakerError: The bank does not know a name, under "error".
        """
        return torch.tensor(self._numbers(names, unknown), dtype=torch.int64, device=self.tables[0].device)

    def checked_rows(self, rows: Sequence[str] | Tensor, unknown: Unknown = "error") -> Tensor:
        """Rows that are given as names or as rows, shape (B,), int64, in main memory.

        Raises:
            SpeakerError: The bank does not know a name, or does not have a row; or there is none.
        """
        if not isinstance(rows, Tensor):
            if isinstance(rows, str):
                raise SpeakerError(f"rows: expected a sequence of names, found {rows!r}; use bank.speaker({rows!r})")
            rows = torch.tensor(self._numbers(rows, unknown), dtype=torch.int64)
        if rows.dtype != torch.int64 or rows.dim() != 1 or not len(rows):
            raise SpeakerError(f"rows: expected int64 of shape (B,), found {rows.dtype} of shape {tuple(rows.shape)}")
        rows = rows.cpu()
        low, high = (int(bound) for bound in torch.aminmax(rows))
        if low < 0 or high >= len(self._rows):
            raise SpeakerError(f"rows from {low} to {high}, but the bank has rows 0 to {len(self._rows) - 1}")
        return rows

    def _numbers(self, names: Iterable[str], unknown: Unknown) -> list[int]:
        return [self._rows.get(name, 0) if unknown == "si" else self.row(name) for name in names]

    def add(self, speakers: Iterable[str]) -> None:
        """Append rows that start as copies of row 0: neutral, or as adaptive training has learned it.

        Raises:
            SpeakerError: A name is taken, or cannot be a file's name; no row is added then.
        """
        names = list(speakers)
        taken = dict(self._rows)
        for name in names:
            check_speaker_name(name)
            if name in taken:
                raise SpeakerError(f"speaker {name!r} is in the bank already; give each speaker one name")
            taken[name] = len(taken)
        if names:
            self._give_rows(list(taken))
            self._replace_tables(lambda table: torch.cat([table, table[:1].expand(len(names), -1)]))

    def drop(self, speakers: Iterable[str]) -> None:
        """Remove speakers; the rows after them move up.

        Raises:
            SpeakerError: A name is unknown, or is row 0's.
        """
        gone = self._speaker_rows(speakers)
        kept = torch.tensor([row for row in self._rows.values() if row not in gone], device=self.tables[0].device)
        self._give_rows([name for name, row in self._rows.items() if row not in gone])
        self._replace_tables(lambda table: table[kept])
        self._rows_moved()

    def reset(self, speakers: Iterable[str]) -> None:
        """Set speakers back to row 0.

        Raises:
            SpeakerError: A name is unknown, or is row 0's.
        """
        rows = torch.tensor(sorted(self._speaker_rows(speakers)), dtype=torch.int64, device=self.tables[0].device)
        self._replace_tables(lambda table: table.index_copy(0, rows, table[:1].expand(len(rows), -1)))

    def copy_rows(self, sources: Mapping[str, str]) -> None:
        """Give speakers the rows of others.

        Args:
            sources: For each speaker the one whose row is copied; "" for row 0.

        Raises:
            SpeakerError: A name is unknown, or row 0 would be overwritten.
        """
        self._speaker_rows(sources)
        rows, copied = self.rows_of(sources), self.rows_of(sources.values())
        self._replace_tables(lambda table: table.index_copy(0, rows, table[copied]))

    def stored_r(self, site: str, rows: Tensor) -> Tensor:
        """The unconstrained parameters of some rows at a site, shape (N, H); their gradient names the rows.

        Args:
            site: A site's name.
            rows: The rows, shape (N,), int64.
        """
        table = self._table(site)
        r: Tensor = functional.embedding(rows.to(table.device), table, sparse=table.sparse_gradient)
        if r.requires_grad:
            table.awaited = site
        return r

    def r(self, site: str, rows: Tensor) -> Tensor:
        """The parameters r of some rows at a site, shape (N, H); a subclass may compute them."""
        return self.stored_r(site, rows)

    def check_finite(self, rows: Tensor) -> None:
        """Refuse rows that hold NaN or infinity, or whose amplitudes do.

        Args:
            rows: The rows, shape (N,), int64.

        Raises:
            SpeakerError: A row is not finite; the message names the speaker and the site.
        """
        state = [(table.edition, table._version) for table in self.tables]
        if state != self._finite_in:
            self._finite_in, self._finite_rows = state, set()
        # Rows that were looked at since the last change are not looked at again: on a GPU a look is a wait.
        new = sorted({*rows.tolist()} - self._finite_rows)
        if not new:
            return
        finite = self.finite(torch.tensor(new, dtype=torch.int64))
        if not bool(finite.all()):
            row, site = divmod(int((~finite).flatten().nonzero()[0]), len(self.sites))
            raise not_finite(list(self._rows)[new[row]], self.sites[site].name)
        self._finite_rows.update(new)

    def finite(self, rows: Tensor) -> Tensor:
        """Whether r is finite, and its amplitudes are at most ``LARGEST_AMPLITUDE``, shape (N, sites), bool.

        Args:
            rows: The rows, shape (N,), int64.
        """
        rows = rows.to(self.tables[0].device)
        with torch.no_grad():
            parts = [table[rows] for table in self.tables]
            fine = [r.isfinite() & (self.amplitude(r).abs() <= LARGEST_AMPLITUDE) for r in parts]
            return torch.stack([each.all(1) for each in fine], dim=1)

    def xi(self, site: str, rows: Tensor) -> Tensor:
        """The amplitudes xi(r) of some rows at a site, shape (N, H)."""
        return self.amplitude(self.r(site, rows))

    def optimizer(self, name: str, **options: Any) -> RowOptimizer:
        """An optimizer that moves only the rows that took part: "sgd" or "adam".

        Args:
            name: The optimizer.
            options: The options of RowSGD (lr, momentum, weight_decay, in_turn, over_processes) or RowAdam (lr, betas,
                eps, weight_decay, in_turn, over_processes).

        Raises:
            ConfigError: The optimizer or an option does not exist.
        """
        if name not in OPTIMIZERS:
            raise ConfigError(f"no row-wise optimizer is called {name!r}; known: {', '.join(OPTIMIZERS)}")
        try:
            return OPTIMIZERS[name](self.parameters(), **options)
        except TypeError as error:
            raise ConfigError(f"optimizer {name!r} with options {sorted(options)}: {error}") from error

    def _table(self, site: str) -> RowTable:
        if site not in self._table_of:
            raise SiteError(f"site {site!r} is not in the bank; it has {', '.join(self._table_of)}")
        table: RowTable = self.tables[self._table_of[site]]
        return table

    def side_by_side(self) -> Tensor:
        """A copy of all rows with the sites' r side by side, shape (S + 1, W), W the sum of the sites' widths."""
        return torch.cat([table.detach() for table in self.tables], dim=1)

    def fill(self, r: Mapping[str, Tensor]) -> None:
        """Set rows 1 to S.

        Args:
            r: Each site's name -> shape (S, H), or (H,) for the same r in every row.
        """
        with torch.no_grad():
            for site, table in zip(self.sites, self.tables, strict=True):
                table[1:] = r[site.name]
                table.edition += 1

    def set_rows(self, states: Sequence[SpeakerState]) -> None:
        """Set the rows of some speakers, adding the speakers that are missing.

        Whether the states belong to these sites is not checked here: a bank's ``put`` does that.

        Raises:
            SpeakerError: A name cannot be used, or that of a missing speaker occurs twice; no row is set then.
        """
        self.add(state.speaker for state in states if state.speaker not in self._rows)
        with torch.no_grad():
            for state in states:
                row = self._rows[state.speaker]
                for site, table in zip(self.sites, self.tables, strict=True):
                    table[row] = state.r[site.name]
        for table in self.tables:
            table.edition += 1

    def _give_rows(self, names: list[str]) -> None:
        """Let speakers own the rows, in order."""
        self._rows = {name: row for row, name in enumerate(names)}
        owners = int.from_bytes(hashlib.sha256(json.dumps(names).encode()).digest()[:7])
        for table in self.tables:
            table.owners = owners

    def _rows_moved(self) -> None:
        """Rows have other owners now; for a subclass that remembers rows."""

    def _speaker_rows(self, speakers: Iterable[str]) -> set[int]:
        rows = {self.row(name) for name in speakers}
        if 0 in rows:
            raise SpeakerError("row 0 is the speaker-independent row and always exists; name a speaker")
        return rows

    def _replace_tables(self, change: Callable[[Tensor], Tensor]) -> None:
        # The parameter stays the same object, so that its holders see the new rows. The edition tells optimizers that
        # their state belongs to the old ones.
        for table in self.tables:
            table.data = change(table.data)
            table.grad = None
            table.edition += 1


def _names(state: object, rows: int) -> list[str]:
    """The speakers' names in a state dict's extra state.

    Raises:
        SpeakerError: They cannot be names, or are not as many as the rows.
    """
    try:
        names = json.loads(bytes(state.cpu().tolist())) if isinstance(state, Tensor) else None
    except (ValueError, TypeError):
        names = None
    if not isinstance(names, list) or len({str(name) for name in names}) != rows - 1:
        raise SpeakerError(f"the state dict does not name the speakers of its {rows - 1} rows; save it again")
    for name in names:
        check_speaker_name(name)
    return names
