"""One speaker's frames: in shuffled mini-batches, where what every sweep shares can be kept, or in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lhuc_asr.adapt.movable import Movable
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.features.context import utterance_bounds
from lhuc_asr.lhuc.objective import CandidateTargets
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.augment import mask_bands

# Number of frames that go through the network at once when psi is computed for all frames.
FRAMES_KEPT_AT_ONCE = 4_096
# The same where the activations of a layer are collected: 1,024 x 2,048 units x 4 bytes = 8 MB per layer.
FRAMES_AT_ONCE = 1_024


class Batch(NamedTuple):
    """B of one speaker's frames; the last ones may be repetitions of weight 0.

    Attributes:
        psi: The part of the frames' computation that is the same for every speaker, shape (B, width).
        targets: Targets of the frames; their reference is the unadapted output, shape (B, K), or (B, 0) if it is not
            needed.
    """

    psi: Tensor
    targets: CandidateTargets


class SpeakerBatches:
    """One speaker's mini-batches, shuffled by a generator of their own, so that they do not depend on other speakers.

    Args:
        name: The speaker's name, for messages.
        data: The speaker's data.
        model: The network.
        movable: The speakers' numbers in the network.
        reference: Whether the unadapted output is needed.
        seed: Seeds the order of the frames, and the masks.
        band_mask: Limit of the number of features that are masked in each frame; see ``mask_bands``. The unadapted
            output is that of the frame without the mask.

    Attributes:
        name: The speaker's name.
        weight: Sum of the frames' weights.
        bytes_to_keep: Memory that ``keep`` takes, in bytes.

    Raises:
        AlignmentError: The targets or features do not fit the network.
    """

    def __init__(
        self,
        name: str,
        data: SpeakerData,
        model: AcousticModel,
        movable: Movable,
        reference: bool,
        seed: int,
        band_mask: int = 0,
    ) -> None:
        data.check_fits(name, model)
        self.name = name
        self._seed, self._movable, self._reference = seed, movable, reference
        self._splicing, self._device = model.splicing, movable.device
        self._features = torch.from_numpy(np.ascontiguousarray(data.features))
        targets = data.targets.tensors()
        self._first, self._last = utterance_bounds(data.lengths)
        # Frames of weight 0 need not pass through the network. From here on, frames are numbered without them.
        self._useful = torch.nonzero(targets.weights > 0).squeeze(1)
        self._targets = targets.select(self._useful)
        self._order = torch.arange(len(self._useful))
        self._band_mask, self._generator = band_mask, torch.Generator()
        self._kept: tuple[Tensor, Tensor] | None = None
        self.weight = float(targets.weights.sum(dtype=torch.float64))
        values = movable.width + (model.pdf_count if reference else 0)
        self.bytes_to_keep = len(self._useful) * values * model.log_prior.element_size()

    def batches(self, size: int) -> int:
        """Number of mini-batches in a sweep; the last may not be full."""
        return -(-len(self._useful) // size)

    def keep(self) -> None:
        """Compute psi and the unadapted output for all frames, and keep them until ``forget``."""
        parts = [self._compute(frames) for frames in self._useful.split(FRAMES_KEPT_AT_ONCE)]
        psi, reference = zip(*parts, strict=True)
        self._kept = torch.cat(psi), torch.cat(reference)

    def forget(self) -> None:
        """Free the memory that ``keep`` took."""
        self._kept = None

    def shuffle(self, sweep: int) -> None:
        """Draw the frame order of a sweep."""
        self._generator.manual_seed(self._seed * 1_000_003 + sweep)
        self._order = torch.randperm(len(self._useful), generator=self._generator)

    def frames_in(self, step: int, size: int) -> int:
        """Number of frames in mini-batch ``step``."""
        return max(0, min(size, len(self._useful) - step * size))

    def batch(self, step: int, size: int, filled_to: int) -> Batch:
        """Mini-batch ``step``.

        Args:
            step: Number of the mini-batch in the sweep, from 0.
            size: Number of frames in a full mini-batch.
            filled_to: Number of frames in the result; a smaller mini-batch is padded with repetitions of weight 0.
        """
        chosen = self._order[step * size : (step + 1) * size]
        targets = self._targets.select(chosen).fill(filled_to).to(self._device)
        if self._kept is None:
            psi, reference = self._compute(self._useful[chosen])
        else:
            psi, reference = (kept[chosen.to(kept.device)] for kept in self._kept)
        # Filled up last: masks, which are drawn for the frames together, do not depend on who else is in the batch.
        psi, reference = (_filled(each, filled_to) for each in (psi, reference))
        return Batch(psi, replace(targets, reference=reference))

    def _compute(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Psi of frames, and their unadapted output: shapes (B, width) and (B, K) or (B, 0)."""
        spliced = self._splicing.of(self._features, frames, self._first[frames], self._last[frames])
        heard = self._masked(spliced) if self._band_mask else spliced
        psi = self._movable.psi(heard.to(self._device))
        if not self._reference:
            return psi, psi.new_empty(len(psi), 0)
        clean = self._movable.psi(spliced.to(self._device)) if self._band_mask else psi
        return psi, torch.softmax(self._movable.unadapted(clean), dim=1)

    def _masked(self, spliced: Tensor) -> Tensor:
        """Spliced frames with a random band masked in each."""
        # Masks are drawn from torch's own generator, which is seeded by the speaker's and then restored.
        seed = int(torch.randint(2**62, (), generator=self._generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return mask_bands(spliced, self._splicing, self._band_mask)


def _filled(rows: Tensor, count: int) -> Tensor:
    """Rows (B, W), and repetitions of the first, shape (count, W)."""
    return rows if len(rows) == count else torch.cat([rows, rows[:1].expand(count - len(rows), -1)])


def weighted_blocks(name: str, data: SpeakerData, model: AcousticModel) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of a speaker's frames whose weight is not 0, in order.

    Yields:
        Numbers of B frames, shape (B,), and their inputs, shape (B, w D + R), on the network's device.

    Raises:
        AlignmentError: The targets or features do not fit the network.
    """
    data.check_fits(name, model)
    features = torch.from_numpy(np.ascontiguousarray(data.features))
    first, last = utterance_bounds(data.lengths)
    for rows in torch.from_numpy(np.flatnonzero(data.targets.weight)).split(FRAMES_AT_ONCE):
        yield rows, model.splicing.of(features, rows, first[rows], last[rows]).to(model.log_prior.device)
