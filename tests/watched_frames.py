"""Frames whose mini-batches a test sees, and may end a training at."""

from collections.abc import Callable

import torch

from lhuc_asr.nnet.frames import FrameSource
from lhuc_asr.nnet.loader import MiniBatch, ShuffledFrames

# Called with the number of the epoch, the number of the mini-batch in it, both from 0, and the mini-batch.
Watch = Callable[[int, int, MiniBatch], None]


def watched(source: FrameSource, watch: Watch) -> FrameSource:
    """A copy of a source that calls a function with each mini-batch before it is trained on."""
    epochs = [0]

    class Batches(ShuffledFrames):
        epoch = number = 0

        def __next__(self) -> MiniBatch:
            batch = super().__next__()
            watch(self.epoch, self.number, batch)
            self.number += 1
            return batch

    class Source(FrameSource):
        def shuffled(self, batch_size: int, generator: torch.Generator, *, whole: bool = True) -> ShuffledFrames:
            batches = Batches(self.blocks(generator), self.load, batch_size, generator)
            batches.epoch = epochs[0]
            epochs[0] += 1
            return batches

    return Source(source.features, source.targets, source.utterances, source.context, source.vectors)
