"""Folders of recordings with a text file beside each, a folder for each speaker, as for the Montreal Forced Aligner.

<root>/<speaker>/.../<name>.wav        (or another format of recordings)
<root>/<speaker>/.../<name>.txt        (or .lab): the words of the recording, in one line or several
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.fingerprint import files_below
from lhuc_asr.base.local_path import InputFolder
from lhuc_asr.corpus.reading import Reading, Skip, gather, measure
from lhuc_asr.corpus.two_places import TwoPlaces
from lhuc_asr.lang.lines import read_lines
from lhuc_asr.lang.tags import spoken_words

AUDIO_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".sph", ".aiff", ".aif")
TEXT_ENDINGS = (".txt", ".lab")


class FolderSource(TwoPlaces):
    """Two folders of recordings with texts, a folder for each speaker.

    Attributes:
        train: Folder to train on.
        test: Folder to test on.
    """

    kind: Literal["folder"] = "folder"
    train: InputFolder
    test: InputFolder

    def read_place(self, place: Path, own_tags: Collection[str]) -> Reading:
        """Read a folder of speakers' folders."""
        return read_folder(place, own_tags)


def read_folder(root: Path, own_tags: Collection[str] = ()) -> Reading:
    """Read a folder; the id of an utterance is its path, with hyphens between the names of folders.

    Args:
        root: The folder.
        own_tags: Tags that the user's lexicon lists, as in ``tags.spoken_words``.

    Raises:
        CorpusError: A recording is in no speaker's folder, two recordings or two texts differ in their ending only, or
            a text has an unknown tag.
    """
    root = root.absolute()
    audio, texts = (_by_stem(root, endings) for endings in (AUDIO_ENDINGS, TEXT_ENDINGS))
    if not audio:
        raise CorpusError(f"{root}: no recording; expected {root.name}/SPEAKER/NAME.wav, with the words in NAME.txt")
    return gather(measure(_items(root, audio, texts, own_tags)))


def _by_stem(root: Path, endings: tuple[str, ...]) -> dict[Path, Path]:
    """Files below a folder by their paths without ending."""
    files: dict[Path, Path] = {}
    for path in files_below(root):
        if path.suffix.lower() in endings:
            stem = path.with_suffix("")
            if stem in files:
                raise CorpusError(f"{path}: duplicates {files[stem].name}; keep one of them")
            files[stem] = path
    return files


def _items(
    root: Path, audio: dict[Path, Path], texts: dict[Path, Path], own_tags: Collection[str]
) -> Iterator[Utterance | Skip]:
    """Utterances of unknown length, and skips where a text is missing."""
    for stem, path in audio.items():
        speaker, *below = stem.relative_to(root).parts
        if not below:
            raise CorpusError(f"{path}: is in no speaker's folder; move it to {root.name}/SPEAKER/{path.name}")
        id = "-".join((speaker, *below))
        if stem not in texts:
            yield Skip(id, f"{path}: no transcript in {stem.name}.txt", path)
            continue
        words = (spoken_words(line, f"{texts[stem]}:{number}", own_tags) for number, line in read_lines(texts[stem]))
        yield Utterance(id, speaker, "", path, 0.0, 0.0, " ".join(word for line in words for word in line))
