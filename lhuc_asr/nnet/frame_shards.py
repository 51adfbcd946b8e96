"""Training frames in shards: Lhotse Shar with the features of cuts, and the pdfs of their frames.

An epoch takes the shards in random order, and shuffles the frames of some at a time, so that files are read as they
lie, and what is in memory does not depend on how large the corpus is. The shards are in a folder, or in storage that
speaks S3. What is read there is checked against the hashes of what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import ConfigDict

from lhuc_asr.base.atomic import sha256_of
from lhuc_asr.base.documents import DocumentKind, Name
from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.object_store import ObjectStore, StoreError
from lhuc_asr.base.shar import array_in, read_field
from lhuc_asr.features.store import StoredUtterance
from lhuc_asr.nnet.frames import BLOCK_FRAMES, FrameSource
from lhuc_asr.nnet.loader import Block, ShuffledFrames

# Fields of the shards.
FEATURES, PDFS = "features", "pdfs"


@dataclass(frozen=True)
class FrameShard:
    """A shard.

    Attributes:
        utterances: Ids of its utterances.
        files: Key of the file of each field in the store.
        sha256: Hash of each of these files, hexadecimal.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    utterances: tuple[Name, ...]
    files: Mapping[str, str]
    sha256: Mapping[str, str]

    def __post_init__(self) -> None:
        if not {FEATURES, PDFS} <= self.files.keys() & self.sha256.keys():
            raise ValueError(f"expected files and hashes of {FEATURES} and {PDFS}")


_SHARDS = DocumentKind(FrameShard, "a shard of training frames", FeatureError, "delete the file and run again")


def read_index(path: Path) -> list[FrameShard]:
    """The shards that a file of JSON lines names.

    Raises:
        FeatureError: The file is missing, or is not such a file.
    """
    return list(_SHARDS.rows(path))


@dataclass(frozen=True, kw_only=True)
class ShardedFrames(FrameSource):
    """Frames of whole shards, which an epoch reads from there; what else is asked is answered from the memory map.

    Attributes:
        store: Where the shards are.
        index: The file that names them.
        shards: The shards: together they have the utterances.
    """

    store: ObjectStore
    index: Path
    shards: Sequence[FrameShard]

    @cached_property
    def _shard_of(self) -> dict[str, int]:
        """Number of the shard of each utterance, by its id."""
        return {name: number for number, shard in enumerate(self.shards) for name in shard.utterances}

    @cached_property
    def _by_id(self) -> dict[str, StoredUtterance]:
        ours = {utterance.id: utterance for utterance in self.utterances}
        if ours.keys() != self._shard_of.keys():
            raise self._unfit(f"{len(self._shard_of)} utterances are not the {len(ours)} that are trained on")
        return ours

    def shuffled(self, batch_size: int, generator: torch.Generator, *, whole: bool = True) -> ShuffledFrames:
        """The mini-batches of one epoch; see ``FrameSource``.

        Raises:
            FeatureError: The shards are of other utterances.
        """
        return ShuffledFrames(self.blocks(generator), self.load_shards, batch_size, generator, ahead=whole)

    def blocks(self, generator: torch.Generator) -> list[list[StoredUtterance]]:
        """The utterances of some shards each, in random order."""
        blocks: list[list[StoredUtterance]] = []
        size = BLOCK_FRAMES
        for number in torch.randperm(len(self.shards), generator=generator).tolist():
            if size >= BLOCK_FRAMES:
                blocks.append([])
                size = 0
            theirs = [self._by_id[name] for name in self.shards[number].utterances]
            blocks[-1] += theirs
            size += sum(utterance.frames for utterance in theirs)
        return blocks

    def load_shards(self, utterances: Sequence[StoredUtterance]) -> Block:
        """Read a block of whole shards.

        Raises:
            StoreError: The store cannot be read.
            FeatureError: A shard is not what was written.
        """
        features: dict[str, np.ndarray] = {}
        pdfs: dict[str, np.ndarray] = {}
        for number in dict.fromkeys(self._shard_of[utterance.id] for utterance in utterances):
            features |= self._read(self.shards[number], FEATURES, np.float32)
            pdfs |= self._read(self.shards[number], PDFS, np.int32)
        for each in utterances:
            shape = each.frames, self.features.shape[1]
            if features[each.id].shape != shape or pdfs[each.id].shape != shape[:1]:
                raise self._unfit(f"{each.id}: features and pdfs are not of {each.frames} frames")
        return self.block(utterances, [features[u.id] for u in utterances], [pdfs[u.id] for u in utterances])

    def _read(self, shard: FrameShard, field: str, kind: type[np.generic]) -> dict[str, np.ndarray]:
        """The arrays of a shard's field, by utterance."""
        key, arrays = shard.files[field], {}
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self.store.reading(key))
            except StoreError as error:
                message = f"{error}; run again, or if the shards are gone, delete {self.index}: a run writes them"
                raise StoreError(message) from error
            if sha256_of(path) != shard.sha256[field]:
                raise self._unfit(f"{self.store.url}: {key} is not what was written")
            for name, datum in read_field(path, FeatureError):
                where = f"{self.store.url}: {key}: {name}"
                array = None if datum is None else array_in(datum, where, FeatureError)
                if array is None or array.dtype != kind:
                    raise self._unfit(f"{where}: not an array of {kind.__name__}")
                arrays[name] = array
        if arrays.keys() != set(shard.utterances):
            raise self._unfit(f"{self.store.url}: {key} has other utterances than it was written with")
        return arrays

    def _unfit(self, why: str) -> FeatureError:
        return FeatureError(f"{self.index}: {why}; delete this file and run again, which writes the shards anew")
