"""Reading and writing Kaldi data directories: wav.scp, segments, text, utt2spk, utt2env.

A wav.scp may contain a shell command in place of a file ("sox a.wav -t wav - |"). Such an entry is refused and
never run: data is not code. In segments an end of -1 is the recording's, and a fifth column is the number of a channel,
from 0, as for Kaldi's extract-segments.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.recording import TOLERANCE_SECONDS
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.local_path import InputFolder
from lhuc_asr.corpus.reading import Reading, Skip, gather, measure
from lhuc_asr.corpus.two_places import TwoPlaces
from lhuc_asr.corpus.validate import unsafe_name
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.tags import spoken_words
from lhuc_asr.lang.text import normalise_name

FILES = frozenset({"wav.scp", "segments", "text", "utt2spk", "spk2utt", "utt2env"})
# A line for the shell, which runs the commands of a wav.scp.
CONVERSION = 'mkdir wav; while read -r id command; do sh -c "${command%|}" < /dev/null > "wav/$id.wav"; done < wav.scp'


class KaldiSource(TwoPlaces):
    """Two Kaldi data directories.

    Attributes:
        train: Data directory to train on.
        test: Data directory to test on.
    """

    kind: Literal["kaldi"] = "kaldi"
    train: InputFolder
    test: InputFolder
    names_environments: ClassVar[bool] = True

    def read_place(self, place: Path, own_tags: Collection[str]) -> Reading:
        """Read a data directory."""
        return read_kaldi_dir(place, own_tags)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a table: the place for messages, and the text after the id."""

    place: str
    value: str


def read_kaldi_dir(folder: Path, own_tags: Collection[str] = ()) -> Reading:
    """Read a data directory.

    An utterance is a line of ``segments`` if that file exists, else a line of ``wav.scp``. Relative paths are
    looked up in the working directory, as in Kaldi, then in ``folder``. Transcripts (``text``) and environments
    (``utt2env``) are optional. Ids match across tables whatever their Unicode form is.

    Args:
        folder: The data directory.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        CorpusError: A file is missing or malformed, an id is repeated, an entry is a shell command, an utterance has
            no speaker, or a transcript has an unknown tag; the message names the file and the line.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder; expected a Kaldi data directory (wav.scp, utt2spk, text)")
    recordings = {id: _recording(entry, folder) for id, entry in _read_table(folder / "wav.scp").items()}
    speakers = _read_table(folder / "utt2spk")
    texts = _read_table(folder / "text", optional=True)
    environments = _read_table(folder / "utt2env", optional=True)

    def utterance(id: str, audio: Path, segment: _Segment, place: str) -> Utterance:
        if id not in speakers:
            raise CorpusError(f"{place}: utterance {id} is not in {folder / 'utt2spk'}; add a line '{id} SPEAKER'")
        environment = _one_word(environments[id]) if id in environments else ""
        text = " ".join(spoken_words(texts[id].value, texts[id].place, own_tags)) if id in texts else ""
        speaker = _one_word(speakers[id])
        return Utterance(id, speaker, environment, audio, segment.start, segment.seconds, text, segment.channel)

    items: list[Utterance | Skip]
    if (folder / "segments").exists():
        items = []
        for id, entry in _read_table(folder / "segments").items():
            recording, segment = _segment(entry, recordings)
            cut = utterance(id, recordings[recording], segment, entry.place)
            items.append(cut if segment.seconds else _to_the_end(cut))
    else:
        place = str(folder / "wav.scp")
        whole = (utterance(id, audio, _Segment(0.0, 0.0, None), place) for id, audio in recordings.items())
        items = list(measure(whole))
    known = {item.id for item in items}
    orphans = {id: entry for table in (environments, texts, speakers) for id, entry in table.items() if id not in known}
    items += [Skip(id, f"{entry.place}: no recording or segment of that id") for id, entry in orphans.items()]
    return gather(items)


def write_kaldi_dir(folder: Path, utterances: Iterable[Utterance]) -> None:
    """Write a data directory, whole or not at all.

    Kaldi expects tables that are sorted by utterance and by speaker at once. An id that does not begin with its
    speaker is therefore written with the speaker before it: ``fash-an251-fash-b``. ``segments`` is written if an
    utterance is not a whole recording, ``text`` and ``utt2env`` if one has a transcript or an environment.

    Args:
        folder: A new folder, or a data directory to replace, which has no files but those written here.
        utterances: In any order.

    Raises:
        AudioError: A recording cannot be opened.
        CorpusError: There are no utterances, two get the same id, a name or path cannot be written to a table, or
            ``folder`` has other files.
    """
    table = _by_kaldi_id(utterances)
    if foreign := sorted(path.name for path in folder.glob("*") if path.name not in FILES):
        raise CorpusError(f"{folder}: holds {foreign[0]}, which is not ours to replace; choose a new folder")
    tables = {
        "utt2spk": {id: u.speaker for id, u in table.items()},
        "spk2utt": _spk2utt(table),
        "text": {id: u.text for id, u in table.items() if u.text},
        "utt2env": {id: u.environment for id, u in table.items() if u.environment},
        **_recording_tables(table),
    }
    with atomic_folder(folder) as temporary:
        for name, rows in tables.items():
            if rows:
                lines = "".join(f"{id} {value}\n" for id, value in sorted(rows.items()))
                (temporary / name).write_text(lines, encoding="utf-8")


def _read_table(path: Path, *, optional: bool = False) -> dict[str, Entry]:
    """Lines of ``id rest``."""
    if optional and not path.exists():
        return {}
    table: dict[str, Entry] = {}
    for number, line in read_lines(path):
        place = f"{path}:{number}"
        name, *rest = line.split(maxsplit=1)
        id = normalise_name(name)
        if id in table:
            raise CorpusError(f"{place}: {id} appears twice, first at {table[id].place}")
        table[id] = Entry(place, rest[0] if rest else "")
    return table


def _one_word(entry: Entry) -> str:
    if len(entry.value.split()) != 1:
        raise CorpusError(f"{entry.place}: expected an id and one name, found {quoted(entry.value)} after the id")
    return normalise_name(entry.value)


def _recording(entry: Entry, folder: Path) -> Path:
    """The file that a line of wav.scp names."""
    if entry.value.endswith("|") or entry.value.startswith("|"):
        raise CorpusError(
            f"{entry.place}: {quoted(entry.value)} is a shell command, and commands in data are never run; if you "
            f"trust the file, convert its recordings: {CONVERSION}, and name the new files in wav.scp"
        )
    if entry.value in ("", "-"):
        raise CorpusError(f"{entry.place}: expected a recording's path after the id, found {quoted(entry.value)}")
    path = Path(entry.value)
    # Unlike the method of a path, the function does not mind a name that is too long.
    return (path if os.path.exists(path) else folder / path).absolute()


@dataclass(frozen=True, slots=True)
class _Segment:
    """Part of a recording.

    Attributes:
        start: Its beginning, seconds.
        seconds: Its length; 0 for all that is left of the recording.
        channel: Number of its channel, from 1; None for the mean of all.
    """

    start: float
    seconds: float
    channel: int | None


def _segment(entry: Entry, recordings: Mapping[str, Path]) -> tuple[str, _Segment]:
    """A line of segments: the id of the recording, and the part."""
    try:
        recording, begin, finish, *channels = entry.value.split()
        start, end = float(begin), float(finish)
        channel = int(channels[0]) + 1 if channels else None
    except ValueError as error:
        raise CorpusError(
            f"{entry.place}: expected 'UTTERANCE RECORDING START END [CHANNEL]' (seconds, the channel from 0), found "
            f"{quoted(entry.value)} after the id"
        ) from error
    recording = normalise_name(recording)
    if recording not in recordings:
        raise CorpusError(f"{entry.place}: recording {recording} is not in wav.scp")
    if len(channels) > 1 or (channel is not None and channel < 1):
        raise CorpusError(f"{entry.place}: expected one channel, from 0, found {' '.join(channels)}")
    if end == -1.0 and math.isfinite(start) and start >= 0.0:
        return recording, _Segment(start, 0.0, channel)
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise CorpusError(f"{entry.place}: expected 0 <= start < end, or -1 as the end, found {begin} and {finish}")
    return recording, _Segment(start, end - start, channel)


def _to_the_end(utterance: Utterance) -> Utterance | Skip:
    """An utterance that lasts until its recording ends."""
    try:
        seconds = probe(utterance.audio).seconds
    except AudioError as error:
        return Skip(utterance.id, str(error), utterance.audio)
    if seconds <= utterance.start:
        reason = f"{utterance.audio}: {seconds:g} s long, and the segment starts at {utterance.start:g} s"
        return Skip(utterance.id, reason, utterance.audio)
    return replace(utterance, seconds=seconds - utterance.start)


def _by_kaldi_id(utterances: Iterable[Utterance]) -> dict[str, Utterance]:
    table: dict[str, Utterance] = {}
    for utterance in utterances:
        for name in filter(None, (utterance.id, utterance.speaker, utterance.environment)):
            if reason := unsafe_name(name):
                raise CorpusError(f"{utterance.audio}: {name!r} cannot stand in a Kaldi table: {reason}; rename it")
        begins = utterance.id.startswith(utterance.speaker)
        id = utterance.id if begins else f"{utterance.speaker}-{utterance.id}"
        if id in table:
            raise CorpusError(f"{table[id].audio} and {utterance.audio}: both would get the id {id}")
        table[id] = utterance
    if not table:
        raise CorpusError("a Kaldi data directory needs at least one utterance")
    return dict(sorted(table.items()))


def _spk2utt(table: Mapping[str, Utterance]) -> dict[str, str]:
    ids: dict[str, list[str]] = {}
    for id, utterance in table.items():
        ids.setdefault(utterance.speaker, []).append(id)
    return {speaker: " ".join(spoken) for speaker, spoken in ids.items()}


def _recording_tables(table: Mapping[str, Utterance]) -> dict[str, dict[str, str]]:
    """wav.scp; and segments, where an utterance is not its whole recording."""
    for utterance in table.values():
        path = str(utterance.audio.absolute())
        if path.endswith("|") or path != " ".join(path.split()):
            raise CorpusError(f"{path}: a path with such spaces or a bar at its end cannot stand in wav.scp")
    if all(_is_whole(utterance) for utterance in table.values()):
        return {"wav.scp": {id: str(u.audio.absolute()) for id, u in table.items()}}
    recordings: dict[Path, str] = {}
    for id, utterance in table.items():
        recordings.setdefault(utterance.audio.absolute(), id)  # a recording takes its first utterance's id
    segments = dict(_segment_lines(table, recordings))
    return {"wav.scp": {id: str(path) for path, id in recordings.items()}, "segments": segments}


def _segment_lines(table: Mapping[str, Utterance], recordings: Mapping[Path, str]) -> Iterator[tuple[str, str]]:
    for id, utterance in table.items():
        end = utterance.start + utterance.seconds
        channel = "" if utterance.channel is None else f" {utterance.channel - 1}"
        yield id, f"{recordings[utterance.audio.absolute()]} {utterance.start:.6f} {end:.6f}{channel}"


def _is_whole(utterance: Utterance) -> bool:
    whole = utterance.start == 0 and utterance.channel is None
    return whole and abs(probe(utterance.audio).seconds - utterance.seconds) < TOLERANCE_SECONDS
