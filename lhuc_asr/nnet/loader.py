"""A stateful loader: shuffled mini-batches that go on where they were.

An epoch is a list of blocks of utterances. Each is read whole, and its frames are shuffled. ``state`` says where an
epoch is: after ``restore``, on a new loader of the same frames and seed, the mini-batches that follow are the same to
the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from lhuc_asr.features.context import Splicing
from lhuc_asr.features.store import StoredUtterance


@dataclass(frozen=True)
class Block:
    """Frames of some utterances in memory.

    Attributes:
        splicing: How frames are spliced.
        features: All frames, one utterance after the other, shape (N, D + R), float32.
        targets: Pdf of each frame, shape (N,), int64; negative for frames that are left out.
        bounds: First and last row of each frame's utterance in ``features``, shapes (N,).
        rows: Row of each frame in the array of all features, shape (N,).
    """

    splicing: Splicing
    features: torch.Tensor
    targets: torch.Tensor
    bounds: tuple[torch.Tensor, torch.Tensor]
    rows: torch.Tensor

    @property
    def with_targets(self) -> torch.Tensor:
        """Numbers of the frames that have a target, in order."""
        return torch.nonzero(self.targets >= 0).squeeze(1)

    def of(self, frames: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Some of the frames, or all.

        Args:
            frames: Numbers of the frames, shape (B,); None for all.

        Returns:
            Spliced features (B, w D + R), targets (B,), and rows of the frames in the array of all features (B,).
        """
        chosen = torch.arange(len(self.targets)) if frames is None else frames
        first, last = self.bounds
        spliced = self.splicing.of(self.features, chosen, first[chosen], last[chosen])
        return spliced, self.targets[chosen], self.rows[chosen]


@dataclass(frozen=True)
class MiniBatch:
    """Frames that a step is taken with; they are spliced when they are needed.

    Attributes:
        frames: Numbers of the frames in their block, shape (B,).
        block: The block.
    """

    frames: torch.Tensor
    block: Block

    def __len__(self) -> int:
        """Number of frames, B."""
        return len(self.frames)

    def of(self, frames: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Some of the frames, or all; see ``Block.of``."""
        return self.block.of(self.frames if frames is None else frames)


class ShuffledFrames(Iterator[MiniBatch]):
    """The mini-batches of one epoch.

    Args:
        blocks: Utterances of each block, in the order in which they are read.
        load: Reads a block.
        batch_size: Number of frames in a mini-batch, B; the last of a block may have fewer.
        generator: Generator of the order of a block's frames.
        ahead: Whether a block is read by a thread while the one before it is trained on.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[StoredUtterance]],
        load: Callable[[Sequence[StoredUtterance]], Block],
        batch_size: int,
        generator: torch.Generator,
        ahead: bool = False,
    ) -> None:
        self._blocks, self._load, self._batch_size, self._generator = blocks, load, batch_size, generator
        self._number = 0  # of the next block
        self._before = generator.get_state()
        self._batches: list[MiniBatch] = []  # of the block before, those that are left, in reverse
        self._taken = 0
        self._reader = ThreadPoolExecutor(1, "blocks") if ahead else None
        self._ahead: tuple[int, Future[Block]] | None = None

    @property
    def between_blocks(self) -> bool:
        """Whether the next mini-batch is the first of a block, so that a state is quick to restore."""
        return not self._batches

    @property
    def _kind(self) -> list[int]:
        """Numbers that the loader of a state has in common with this one."""
        return [len(self._blocks), self._batch_size]

    def __next__(self) -> MiniBatch:
        while not self._batches:
            if self._number == len(self._blocks):
                raise StopIteration
            self._begin_block()
        self._taken += 1
        return self._batches.pop()

    def state(self) -> dict[str, torch.Tensor]:
        """Where the epoch is, as tensors."""
        if self.between_blocks:
            place, generator = (self._number, 0), self._generator.get_state()
        else:
            place, generator = (self._number - 1, self._taken), self._before
        return {"place": torch.tensor((*place, *self._kind)), "generator": generator.clone()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go to where another loader of the same frames, batch size and seed was.

        Raises:
            KeyError, RuntimeError, ValueError: It is not the state of such a loader.
        """
        number, taken, *kind = state["place"].tolist()
        if kind != self._kind or not 0 <= number <= len(self._blocks) or (taken and number == len(self._blocks)):
            raise RuntimeError(f"block {number} of {kind} blocks and frames in a mini-batch, expected {self._kind}")
        self._generator.set_state(state["generator"].clone())
        self._number, self._batches, self._taken = number, [], 0
        if taken:
            self._begin_block()
            if not 0 < taken < len(self._batches):
                raise RuntimeError(f"mini-batch {taken} of {len(self._batches)}")
            del self._batches[len(self._batches) - taken :]
            self._taken = taken

    def _begin_block(self) -> None:
        self._before = self._generator.get_state()
        block = self._read(self._number)
        frames = block.with_targets
        frames = frames[torch.randperm(len(frames), generator=self._generator)]
        batches = frames.split(self._batch_size) if len(frames) else ()
        self._batches = [MiniBatch(batch, block) for batch in reversed(batches)]
        self._number, self._taken = self._number + 1, 0

    def _read(self, number: int) -> Block:
        """Read a block; the next one begins to be read."""
        if self._reader is None:
            return self._load(self._blocks[number])
        ahead, self._ahead = self._ahead, None
        # Nothing was read ahead before the first block, and after ``restore``.
        block = ahead[1].result() if ahead and ahead[0] == number else self._load(self._blocks[number])
        if number + 1 < len(self._blocks):
            self._ahead = number + 1, self._reader.submit(self._load, self._blocks[number + 1])
        return block
