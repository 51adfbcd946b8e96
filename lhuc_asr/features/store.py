"""The features of a split in one memory-mapped array, with an index of its utterances.

``features.bin`` has float32 rows, one per frame, utterance after utterance in the order in which they were written.
``index.jsonl`` has the id, speaker, first row and number of frames of each utterance, ``store.json`` the number of
features per frame. Mean and variance are normalised per speaker when the store is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from lhuc_asr.base.atomic import atomic_folder, write_json, write_json_lines
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.documents import Count, DocumentKind, Name, Positive
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.features.cmvn import CmvnAccumulator


@dataclass(frozen=True, slots=True)
class StoredUtterance:
    """Rows of an utterance's frames: from ``first`` up to, not including, ``first + frames``."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    id: Name
    speaker: Name
    first: Count
    frames: Positive

    @property
    def rows(self) -> slice:
        """Rows in the array."""
        return slice(self.first, self.first + self.frames)


class _Store(StrictModel):
    """Content of ``store.json``."""

    dimension: Positive
    normalised: bool = True


_REMEDY = "delete the folder and run again"
_STORES = DocumentKind(_Store, "a feature store", FeatureError, _REMEDY)
_INDICES = DocumentKind(StoredUtterance, "a feature store's utterance", FeatureError, _REMEDY)


class FeatureTable:
    """Features of utterances in one array.

    Attributes:
        utterances: Id, speaker and rows of each utterance.
        array: Features of all frames, shape (N, D), float32.
        title: Name of the table in messages.
    """

    def __init__(self, utterances: Sequence[StoredUtterance], array: np.ndarray, title: str = "recordings") -> None:
        self.utterances = tuple(utterances)
        self.array = array
        self.title = title

    @property
    def frames(self) -> int:
        """Number of frames, N."""
        return len(self.array)

    @property
    def dimension(self) -> int:
        """Number of features per frame, D."""
        return int(self.array.shape[1])

    @cached_property
    def by_id(self) -> dict[str, StoredUtterance]:
        """The utterances by their ids."""
        return {utterance.id: utterance for utterance in self.utterances}

    @cached_property
    def speakers(self) -> dict[str, tuple[StoredUtterance, ...]]:
        """The utterances of each speaker; speakers sorted by name."""
        groups: dict[str, list[StoredUtterance]] = {}
        for utterance in self.utterances:
            groups.setdefault(utterance.speaker, []).append(utterance)
        return {speaker: tuple(groups[speaker]) for speaker in sorted(groups)}

    def __getitem__(self, utterance_id: str) -> np.ndarray:
        """The features of one utterance, shape (T, D)."""
        return np.asarray(self.array[self.by_id[utterance_id].rows])


class FeatureStore(FeatureTable):
    """The features of a split on disk, read through a memory map.

    Args:
        folder: Folder of the store.

    Raises:
        FeatureError: The folder is not a store, or its files do not match each other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        dimension = _STORES.read(folder / "store.json").dimension
        utterances, frames = [], 0
        for utterance in _INDICES.rows(folder / "index.jsonl"):
            if utterance.first != frames:
                raise FeatureError(
                    f"{folder}/index.jsonl: {utterance.id} begins at row {utterance.first}, expected {frames}; "
                    "delete the folder and run again"
                )
            utterances.append(utterance)
            frames += utterance.frames
        if len({utterance.id for utterance in utterances}) < len(utterances):
            raise FeatureError(f"{folder}/index.jsonl: an utterance occurs twice; delete the folder and run again")
        try:
            size = check_plain_file(folder / "features.bin")
        except OSError as error:
            raise FeatureError(f"{folder}: not a feature store ({error}); delete it and run again") from error
        if size != frames * dimension * 4:
            raise FeatureError(
                f"{folder}/features.bin: {size} bytes, expected {frames} frames x {dimension} x 4; "
                "delete the folder and run again"
            )
        array = np.memmap(folder / "features.bin", np.float32, "r", shape=(frames, dimension))
        super().__init__(utterances, array, str(folder))


def write_store(
    folder: Path,
    items: Iterable[tuple[str, str, np.ndarray]],
    dimension: int,
    *,
    normalise: bool = True,
    environments: Mapping[str, str] | None = None,
) -> FeatureStore:
    """Write a store, whole or not at all.

    Args:
        folder: Folder of the store; an existing one is replaced.
        items: Id, speaker and features (T, D) of each utterance; read once, so that it may be a generator.
        dimension: Number of features per frame, D.
        normalise: Whether the features of each speaker get mean 0 and variance 1.
        environments: Environment of each utterance, by its id, where those of a speaker are normalised in each of them
            separately; None for all together.

    Raises:
        FeatureError: The features of an utterance have another shape or are not finite, an id is repeated, or there
            are no utterances.
    """
    with atomic_folder(folder) as temporary:
        utterances: list[StoredUtterance] = []
        seen: set[str] = set()
        places = environments or {}
        statistics: dict[tuple[str, str], CmvnAccumulator] = {}
        first = 0
        with (temporary / "features.bin").open("wb") as file:
            for utterance_id, speaker, features in items:
                _check(utterance_id, features, dimension)
                if utterance_id in seen:
                    raise FeatureError(f"{utterance_id}: two utterances have this id; give each its own")
                seen.add(utterance_id)
                group = speaker, places.get(utterance_id, "")
                statistics.setdefault(group, CmvnAccumulator(dimension)).add(features)
                utterances.append(StoredUtterance(utterance_id, speaker, first, len(features)))
                first += len(features)
                file.write(np.ascontiguousarray(features, dtype=np.float32).tobytes())
        if not utterances:
            raise FeatureError(f"{folder}: no utterances to store")
        write_json_lines(temporary / "index.jsonl", map(asdict, utterances))
        write_json(temporary / "store.json", {"dimension": dimension, "normalised": normalise})
        if normalise:
            rows = np.memmap(temporary / "features.bin", np.float32, "r+", shape=(first, dimension))
            cmvn = {group: accumulator.estimate() for group, accumulator in statistics.items()}
            for utterance in utterances:
                group = utterance.speaker, places.get(utterance.id, "")
                rows[utterance.rows] = cmvn[group].apply(rows[utterance.rows])
            rows.flush()
    return FeatureStore(folder)


def gather(folder: Path, stores: Sequence[FeatureStore], order: Sequence[str]) -> FeatureStore:
    """Write utterances that lie in several stores into one, as they are, whole or not at all.

    Args:
        folder: Folder of the new store; an existing one is replaced.
        stores: The stores.
        order: Ids of the utterances, in the order of the new store.

    Raises:
        FeatureError: No store has an utterance, or the stores differ in their kind.
    """
    headers = {_STORES.read(store.folder / "store.json") for store in stores}
    place = {utterance.id: store for store in stores for utterance in store.utterances}
    if len(headers) != 1 or (missing := [each for each in order if each not in place]):
        what = "differ in their kind" if len(headers) != 1 else f"lack {missing[0]}"
        raise FeatureError(f"{folder}: the stores that it is made of {what}; {_REMEDY}")
    utterances, first = [], 0
    with atomic_folder(folder) as temporary:
        with (temporary / "features.bin").open("wb") as file:
            for name in order:
                utterance = place[name].by_id[name]
                utterances.append(replace(utterance, first=first))
                first += utterance.frames
                file.write(place[name][name].tobytes())
        write_json_lines(temporary / "index.jsonl", map(asdict, utterances))
        write_json(temporary / "store.json", headers.pop().model_dump())
    return FeatureStore(folder)


def blocks_of(utterances: Iterable[StoredUtterance], frames: int) -> Iterator[list[StoredUtterance]]:
    """Consecutive utterances in blocks of at least ``frames`` frames; the last block may be smaller."""
    block: list[StoredUtterance] = []
    size = 0
    for utterance in utterances:
        block.append(utterance)
        size += utterance.frames
        if size >= frames:
            yield block
            block, size = [], 0
    if block:
        yield block


def _check(utterance_id: str, features: np.ndarray, dimension: int) -> None:
    if features.ndim != 2 or features.shape[1] != dimension or len(features) == 0:
        raise FeatureError(f"{utterance_id}: features of shape {features.shape}, expected (T, {dimension})")
    if not np.isfinite(features).all():
        raise FeatureError(f"{utterance_id}: features are not finite; is the recording damaged?")
