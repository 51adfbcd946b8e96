"""Cut manifests of Lhotse, read without the library: a JSON object for each cut on a line, plain or compressed.

Every supervision of a cut is an utterance. Cuts of other kinds than ``MonoCut`` and ``MultiCut`` (mixtures, padding),
and recordings that are transformed when they are read, are refused: their sound is in no file. So are recordings that
come from a shell command, because data is not code, or from an address.

Source: https://lhotse.readthedocs.io, written to the manifests of Lhotse 1.33.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.documents import first_mistake
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.local_path import InputFile
from lhuc_asr.corpus.reading import Reading, gather
from lhuc_asr.corpus.two_places import TwoPlaces
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words
from lhuc_asr.lang.text import normalise_name

KINDS = ("MonoCut", "MultiCut")
SAVE_AUDIO = "save the audio with CutSet.save_audios, and write the manifest that it returns"


class LhotseSource(TwoPlaces):
    """Two cut manifests of Lhotse.

    Attributes:
        train: Manifest to train on, such as ``cuts_train.jsonl.gz``.
        test: Manifest to test on.
    """

    kind: Literal["lhotse"] = "lhotse"
    train: InputFile
    test: InputFile

    def read_place(self, place: Path, own_tags: Collection[str]) -> Reading:
        """Read a manifest of cuts."""
        return read_cuts(place, own_tags)


class _Foreign(BaseModel):
    """A part of a manifest, which may have more keys than are read here."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class AudioSource(_Foreign):
    """Where some channels of a recording are."""

    type: str
    channels: list[int] = Field(min_length=1)
    source: str


class Recording(_Foreign):
    """A recording, which may be in several files."""

    id: str
    sources: list[AudioSource] = Field(min_length=1)
    transforms: list[Any] | None = None


class _Supervision(_Foreign):
    id: str
    start: float
    duration: float = Field(gt=0.0)
    channel: int | list[int] = 0
    text: str | None = None
    speaker: str | None = None


class Cut(_Foreign):
    """A part of a recording, with what is said in it."""

    id: str
    type: str
    start: float = Field(0.0, ge=0.0)
    duration: float = Field(math.inf, gt=0.0)
    supervisions: list[_Supervision] = []
    recording: Recording | None = None


def read_cuts(path: Path, own_tags: Collection[str] = ()) -> Reading:
    """Read a manifest of cuts.

    Relative paths of recordings are looked up in the working directory, as by Lhotse, then in the manifest's folder.

    Args:
        path: The manifest, JSON lines, plain or compressed.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        CorpusError: A line is not a cut, is a cut of another kind, has a recording that is in no file, or a supervision
            without a speaker or with an unknown tag; the message names the line.
    """
    lines = read_lines(path)
    return gather(utterance for number, line in lines for utterance in _utterances(path, number, line, own_tags))


def _utterances(path: Path, number: int, line: str, own_tags: Collection[str]) -> Iterator[Utterance]:
    place = f"{path}:{number}"
    cut = parse_cut(place, line)
    if cut.recording is None or cut.recording.transforms:
        what = "no recording" if cut.recording is None else "a recording that is transformed when it is read"
        raise CorpusError(f"{place}: the cut {cut.id} has {what}; {SAVE_AUDIO}")
    name = cut.recording.id
    return spoken_in(cut, cut.recording, lambda source: _file_of(place, name, source, path), place, own_tags)


def parse_cut(place: str, line: str) -> Cut:
    """A line of a manifest.

    Args:
        place: File and number of the line, for messages.
        line: The line.

    Raises:
        CorpusError: The line is not a cut of one recording.
    """
    try:
        cut = Cut.model_validate_json(line)
    except ValidationError as error:
        mistake = first_mistake(error)
        raise CorpusError(f"{place}: not a cut of Lhotse ({mistake}); write it with CutSet.to_file") from error
    if cut.type not in KINDS:
        raise CorpusError(f"{place}: the cut {cut.id} is a {cut.type}, expected {' or '.join(KINDS)}; {SAVE_AUDIO}")
    return cut


def spoken_in(
    cut: Cut, recording: Recording, locate: Callable[[AudioSource], Path], place: str, own_tags: Collection[str]
) -> Iterator[Utterance]:
    """An utterance for each supervision of a cut.

    Args:
        cut: The cut.
        recording: Its recording.
        locate: Returns the file of a source of this recording.
        place: File and number of the cut's line, for messages.
        own_tags: As in ``read_cuts``.

    Raises:
        CorpusError: As from ``read_cuts``.
    """
    for supervision in cut.supervisions:
        if not supervision.speaker:
            raise CorpusError(f"{place}: the supervision {supervision.id} has no speaker; give it one")
        source, channel = _channel(place, recording, supervision.channel)
        # A supervision may begin before its cut does.
        start = max(cut.start + supervision.start, 0.0)
        yield Utterance(
            id=normalise_name(supervision.id),
            speaker=normalise_name(supervision.speaker),
            environment="",
            audio=locate(source),
            start=start,
            seconds=cut.start + supervision.start + supervision.duration - start,
            text=" ".join(spoken_words(supervision.text or "", place, own_tags)),
            channel=channel,
        )


def _channel(place: str, recording: Recording, channel: int | list[int]) -> tuple[AudioSource, int | None]:
    """Source of a channel of a recording, and the channel's number in it, from 1; None for the mean of all."""
    wanted = {channel} if isinstance(channel, int) else set(channel)
    source = next((source for source in recording.sources if wanted <= set(source.channels)), None)
    if source is None:
        raise CorpusError(
            f"{place}: the recording {recording.id} has no file with the channel "
            f"{', '.join(map(str, sorted(wanted)))}; correct the supervision's channel"
        )
    if wanted == set(source.channels):
        return source, None
    if len(wanted) > 1:
        raise CorpusError(f"{place}: channels {sorted(wanted)} of {source.channels}; choose one, or all of them")
    return source, source.channels.index(*wanted) + 1


def _file_of(place: str, recording: str, source: AudioSource, manifest: Path) -> Path:
    """The file of a recording's source."""
    if source.type != "file":
        raise CorpusError(
            f"{place}: the recording {recording} comes from a {source.type}, expected a file: commands in data are "
            f"never run, and nothing is fetched; {SAVE_AUDIO}"
        )
    path = Path(source.source)
    # Unlike the method of a path, the function does not mind a name that is too long.
    return (path if os.path.exists(path) else manifest.absolute().parent / path).absolute()
