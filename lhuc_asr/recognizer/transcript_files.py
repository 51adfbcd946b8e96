"""Where transcripts are written: the terminal, one file, or a folder with a file for each recording.

A file that is there is replaced if it holds transcripts of these recordings as this program writes them; if they have
other words, which may have been corrected by hand, the old file is kept beside it (``talk.txt~``, then
``talk.txt.~2~``). Any other file is refused before any work is done.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

from lhuc_asr.base.atomic import write_bytes
from lhuc_asr.base.destinations import Inputs, check_writable, is_folder, leads_to_stream, shown
from lhuc_asr.base.errors import OutputError
from lhuc_asr.recognizer.recordings import Recording
from lhuc_asr.recognizer.transcript import Transcript
from lhuc_asr.recognizer.transcript_formats import FORMATS, Format, is_written, recordings_in, write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TranscriptFiles:
    """Files that transcripts are written to.

    Attributes:
        form: Format of the files.
        by_name: File of each recording in a folder, by the recording's name; empty if there is one file for all.
        whole: File for all recordings; None for a folder.
        overwrite: Whether files are replaced whatever they hold.
    """

    form: Format
    by_name: dict[str, Path]
    whole: Path | None
    overwrite: bool

    @classmethod
    def at(
        cls,
        output: str,
        form: Format,
        named: Sequence[Recording],
        *,
        overwrite: bool,
        speaker_of: Mapping[str, str] | None = None,
    ) -> TranscriptFiles:
        """The files at a place that a user names.

        Args:
            output: A file; or a folder, which is there or whose name ends in ``/``. Several recordings in a format
                that holds one are always in a folder.
            form: Format of the files.
            named: The recordings.
            overwrite: Whether files are replaced whatever they hold.
            speaker_of: Sub-folder of each recording, by its name; None for no sub-folders.

        Raises:
            OutputError: The name cannot be a file's or folder's.
        """
        if not is_folder(output) and (FORMATS[form].several or len(named) == 1):
            return cls(form, {}, Path(output), overwrite)
        below = speaker_of or {}
        files = {each.name: Path(output) / below.get(each.name, "") / f"{each.file_name}.{form}" for each in named}
        return cls(form, files, None, overwrite)

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return list(self.by_name.values()) if self.whole is None else [self.whole]

    def check_places(self, inputs: Inputs) -> None:
        """Refuse files that may not be replaced whatever they hold, or cannot be written.

        Raises:
            OutputError: A file is one of the inputs, or cannot be written.
        """
        for path in self.paths:
            inputs.refuse(path)
            check_writable(path)

    def check_contents(self, named: Sequence[Recording], vocabulary: Collection[str]) -> None:
        """Refuse to replace files that are something else than transcripts of these recordings.

        Args:
            named: The recordings.
            vocabulary: Words that transcripts can have.

        Raises:
            OutputError: A file holds something else.
        """
        names = {recording.name for recording in named}
        for path in self.paths:
            if self.overwrite or leads_to_stream(path) or not path.exists() or path.stat().st_size == 0:
                continue
            if not is_written(path.read_text(encoding="utf-8", errors="replace"), self.form, names, vocabulary):
                raise OutputError(
                    f"{shown(path)}: exists and is not a transcript that this model made of these recordings; choose "
                    "another output, or --overwrite"
                )

    def done(self, named: Sequence[Recording]) -> set[str]:
        """Names of the recordings whose file exists; a device or a pipe keeps nothing.

        Raises:
            OutputError: The file for all recordings exists, but lacks one.
        """
        # In the other formats a recording without words leaves no trace.
        named_inside = FORMATS[self.form].wordless
        if self.whole is None:
            there = {name: path for name, path in self.by_name.items() if path.exists()}
            return {name for name, path in there.items() if not named_inside or path.stat().st_size}
        if leads_to_stream(self.whole) or not self.whole.exists():
            return set()
        if named_inside:
            written = recordings_in(self.whole.read_text(encoding="utf-8", errors="replace"), self.form)
            if lacking := [recording.title for recording in named if recording.name not in written]:
                raise OutputError(
                    f"{shown(self.whole)}: exists and lacks {len(lacking)} of {len(named)} recordings, such as "
                    f"{lacking[0]}; go without --skip-existing, or write to a folder"
                )
        return {recording.name for recording in named}

    def write(self, transcripts: Iterable[Transcript]) -> None:
        """Write transcripts; in a folder each as soon as it is given."""
        if self.whole is None:
            for transcript in transcripts:
                self._write(self.by_name[transcript.recording], [transcript])
        elif together := list(transcripts):
            self._write(self.whole, together)

    def _write(self, path: Path, transcripts: Sequence[Transcript]) -> None:
        content = write(transcripts, self.form).encode()
        if not self.overwrite and path.is_file() and not leads_to_stream(path):
            old = path.read_bytes()
            if old and old != content:
                kept = _free_beside(path, old)
                write_bytes(kept, old)
                logger.warning("%s: had other words; the old file is kept as %s", shown(path), shown(kept))
        write_bytes(path, content)


def _free_beside(path: Path, content: bytes) -> Path:
    """A name for an old file beside the new one: free, or that of a file with the same content."""
    names = chain([f"{path.name}~"], (f"{path.name}.~{number}~" for number in count(2)))
    places = (path.with_name(name) for name in names)
    return next(
        place for place in places if not os.path.lexists(place) or (place.is_file() and place.read_bytes() == content)
    )
