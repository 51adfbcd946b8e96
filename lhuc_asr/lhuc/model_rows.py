"""Rows of speakers that belong to a model: how they leave it and come back, in files, archives and other banks.

On another model a row's numbers mean nothing. So each state names its model, and what comes in is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import nn

from lhuc_asr.base.errors import SpeakerError
from lhuc_asr.lhuc.archive import SpeakerArchive
from lhuc_asr.lhuc.identity import hash_like, hashes_like, model_hash, sites_in
from lhuc_asr.lhuc.rows import SpeakerRows
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT, SpeakerState, speaker_path


class ModelRows(SpeakerRows):
    """The rows of many speakers at some sites of a model; a bank, which has the model, is one.

    Attributes:
        parts: Globs over the names of parameters and buffers, such as ``encoder.**``: where the speakers are loaded,
            only these have to be the same, and the rest may differ, as a new head does. All that the sites depend on
            must be among them. () for the whole model, as at first.
    """

    parts: Sequence[str] = ()
    # In a tuple: a module that is an attribute of a module becomes its child, and its weights the rows'.
    _model: tuple[nn.Module]
    _archive: SpeakerArchive | None = None

    @property
    def model(self) -> nn.Module:
        """The model that the rows belong to."""
        return self._model[0]

    # Speakers leave through ``states`` and come in through ``put``. Folders, archives and other banks use these.

    def state(self, speaker: str) -> SpeakerState:
        """A copy of one speaker's row; of row 0 for "".

        Raises:
            SpeakerError: The bank does not know the speaker, or the row is not finite.
        """
        return next(self.states([speaker]))

    def states(self, speakers: Iterable[str] | None = None) -> Iterator[SpeakerState]:
        """Copies of the rows of some speakers; unless some are named, of row 0 and all speakers.

        Raises:
            SpeakerError: The bank does not know a speaker, or a row is not finite.
        """
        model = model_hash(self.model, self.parts)
        for speaker in (SPEAKER_INDEPENDENT, *self.speakers) if speakers is None else speakers:
            row = self.row(speaker)
            r = {site.name: table.detach()[row].clone() for site, table in zip(self.sites, self.tables, strict=True)}
            yield SpeakerState(speaker, self.amplitude.name, model, self.sites, r)

    def put(self, *states: SpeakerState) -> None:
        """Set the rows of some speakers, all or none, adding the speakers that the bank does not have.

        One speaker's file is put into the bank with ``bank.put(SpeakerState.load(path))``.

        Raises:
            ModelMismatchError: A state belongs to another model, other sites or another amplitude function.
            SpeakerError: A name cannot be used, or that of a new speaker occurs twice.
        """
        self._put(states, hashes_like((state.model for state in states), self.model, self.parts))

    def _put(self, states: Sequence[SpeakerState], here: Mapping[str, str]) -> None:
        kinds = {(state.sites, state.model) for state in states}
        sites = {(there, stored): sites_in(self.model, there, stored, here[stored]) for there, stored in kinds}
        placed = [state.at(sites[state.sites, state.model]) for state in states]
        for state in placed:
            state.check_fits(self.sites, self.amplitude.name, here[state.model])
        self.set_rows(placed)

    def merge(self, other: ModelRows) -> None:
        """Add the speakers of another bank; row 0 stays as it is.

        Raises:
            ModelMismatchError: The other bank has another model, other sites or another amplitude function.
            SpeakerError: A speaker is in both banks; no speaker is added then.
        """
        both = sorted(set(self.speakers) & set(other.speakers))
        states = list(other.states(other.speakers))
        if both:
            raise SpeakerError(f"speakers {both[:5]} are in both banks; drop them from one: bank.drop([...])")
        self.put(*states)

    def save(self, folder: Path | str) -> None:
        """Write ``<speaker>.safetensors`` for each speaker, and ``speaker-independent.safetensors`` for row 0.

        Raises:
            SpeakerError: A row is not finite; nothing is written then.
        """
        for state in list(self.states()):
            state.save(speaker_path(folder, state.speaker))

    def open_archive(self, path: Path | str) -> SpeakerArchive:
        """Open an archive, from which ``fetch`` reads speakers; row 0 becomes the archive's, if it has one.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: The archive belongs to another model, other sites or another amplitude function.
        """
        archive = SpeakerArchive(path)
        here = hash_like(archive.model, self.model, self.parts)
        archive.sites = sites_in(self.model, archive.sites, archive.model, here)
        archive.check_fits(self.sites, self.amplitude.name, here)
        if SPEAKER_INDEPENDENT in archive:
            self.set_rows([archive.state(SPEAKER_INDEPENDENT)])
        self._archive = archive
        return archive

    def fetch(self, speakers: Iterable[str]) -> None:
        """Read speakers of the opened archive into the bank; speakers that the bank has stay as they are.

        Raises:
            SpeakerError: No archive is open, or a speaker is neither in it nor in the bank; none is read then.
            CheckpointError: A row is damaged; none is read then.
        """
        if self._archive is None:
            raise SpeakerError("no archive is open; bank.open_archive(path) first")
        missing = dict.fromkeys(speaker for speaker in speakers if speaker not in self._rows)
        # Not ``put``: the archive was checked as a whole when it was opened, and hashing a large model takes seconds.
        self.set_rows(list(self._archive.states(missing)))
