"""One speaker's frames in shuffled mini-batches, with what does not change between sweeps computed once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import AlignmentError
from lhuc_asr.features.context import splice_index
from lhuc_asr.nnet.acoustic_model import AcousticModel, ScaledNetwork

# Frames that go through the network at once while nothing is differentiated.
FRAMES_KEPT_AT_ONCE = 4_096


class Batch(NamedTuple):
    """Some of a speaker's frames, B of them; the last may be repetitions of weight 0 that fill it up.

    Attributes:
        psi: Activations of the lowest adapted layer before its amplitudes, shape (B, H).
        unadapted: Posteriors of the pdfs by the network with row 0, shape (B, K), or (B, 0) where nobody asked.
        pdfs: Candidates, shape (B, M), int64.
        posteriors: Theirs, shape (B, M).
        weights: Shape (B,).
    """

    psi: Tensor
    unadapted: Tensor
    pdfs: Tensor
    posteriors: Tensor
    weights: Tensor


class SpeakerBatches:
    """A speaker's mini-batches, shuffled by a generator of his own: they do not depend on who else adapts.

    Args:
        name: The speaker, for messages.
        frames: His data.
        model: The speaker-independent network.
        network: The same with amplitudes.
        row0: xi(r) of row 0 at each adapted layer, shapes (1, H): the unadapted network's, where its posteriors are
            wanted; None where they are not.
        seed: Of the order.

    Raises:
        AlignmentError: Targets or features that are not this network's.
    """

    def __init__(
        self,
        name: str,
        frames: SpeakerData,
        model: AcousticModel,
        network: ScaledNetwork,
        row0: list[Tensor] | None,
        seed: int,
    ) -> None:
        _check(name, frames, model)
        self.name = name
        self._seed, self._network, self._row0 = seed, network, row0
        self._context, self._device = model.context, network.device
        self._features = torch.from_numpy(np.ascontiguousarray(frames.features))
        self._pdfs = torch.from_numpy(frames.targets.pdf).long()
        self._posteriors = torch.from_numpy(frames.targets.posterior)
        self._weights = torch.from_numpy(frames.targets.weight)
        lengths = torch.tensor(frames.lengths, dtype=torch.int64)
        ends = torch.cumsum(lengths, 0)
        self._last = torch.repeat_interleave(ends - 1, lengths)
        self._first = torch.repeat_interleave(ends - lengths, lengths)
        # Frames that count for nothing need not pass through the network.
        self._useful = torch.nonzero(self._weights > 0).squeeze(1)
        self._order = torch.arange(len(self._useful))
        self._kept: tuple[Tensor, Tensor] | None = None
        self.weight = float(self._weights.sum(dtype=torch.float64))
        values = network.width + (model.pdf_count if row0 is not None else 0)
        self.bytes_to_keep = len(self._useful) * values * model.log_prior.element_size()

    def batches(self, size: int) -> int:
        """Mini-batches a sweep; the last may not be full."""
        return -(-len(self._useful) // size)

    def keep(self) -> None:
        """Compute psi of all frames now, and go on from there in every sweep."""
        parts = [self._compute(frames) for frames in self._useful.split(FRAMES_KEPT_AT_ONCE)]
        psi, unadapted = zip(*parts, strict=True)
        self._kept = torch.cat(psi), torch.cat(unadapted)

    def forget(self) -> None:
        """Give the memory of ``keep`` back."""
        self._kept = None

    def shuffle(self, sweep: int) -> None:
        """Another order, for the next sweep."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + sweep)
        self._order = torch.randperm(len(self._useful), generator=generator)

    def frames_in(self, step: int, size: int) -> int:
        """Frames of mini-batch ``step``."""
        return max(0, min(size, len(self._useful) - step * size))

    def batch(self, step: int, size: int, filled_to: int) -> Batch:
        """Mini-batch ``step`` of ``size`` frames, filled up with frames of weight 0 where it has fewer."""
        chosen = self._order[step * size : (step + 1) * size]
        missing = filled_to - len(chosen)
        frames = self._useful[chosen]
        weights = functional.pad(self._weights[frames], (0, missing))
        if missing:
            chosen = torch.cat([chosen, chosen[:1].expand(missing)])
            frames = self._useful[chosen]
        if self._kept is None:
            psi, unadapted = self._compute(frames)
        else:
            psi, unadapted = (kept[chosen.to(kept.device)] for kept in self._kept)
        targets = (self._pdfs[frames], self._posteriors[frames], weights)
        return Batch(psi, unadapted, *(tensor.to(self._device) for tensor in targets))

    def _compute(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        index = splice_index(frames, self._first[frames], self._last[frames], self._context)
        psi = self._network.psi(self._features[index].flatten(1).to(self._device))
        if self._row0 is None:
            return psi, psi.new_empty(len(psi), 0)
        with torch.no_grad():
            return psi, torch.softmax(self._network.logits(psi, self._row0), dim=1)


def _check(name: str, frames: SpeakerData, model: AcousticModel) -> None:
    dimension = frames.features.shape[1] if frames.features.ndim == 2 else 0
    if dimension != model.feature_dimension:
        raise AlignmentError(
            f"speaker {name!r}: features of shape {frames.features.shape}, but the network takes "
            f"{model.feature_dimension} a frame; compute them with the options that it was trained with"
        )
    pdf = frames.targets.pdf
    if pdf.size and pdf.max() >= model.pdf_count:
        frame = int(np.argmax(pdf.max(axis=1)))
        raise AlignmentError(
            f"speaker {name!r}: pdf {int(pdf.max())} in frame {frame}, but the network has pdfs 0 to "
            f"{model.pdf_count - 1}: the targets are of another tree; align or decode with this network's own"
        )
