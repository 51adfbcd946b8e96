"""Feature discriminative linear regression, fDLR: an affine map of each speaker's features, learned by the network.

    y_t = A^s x_t + b^s

One map is shared by all frames that the network sees at once (Seide, Li, Chen and Yu 2011, "Feature engineering in
context-dependent deep neural networks for conversational speech transcription"). It lowers the cross-entropy of the
speaker's frames through the frozen network, where fMLLR's raises the likelihood of Gaussian mixtures; so it needs none
of them, and suits any features. A and b begin at the identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lhuc_asr.adapt.descent import Descent, DescentConfig
from lhuc_asr.adapt.method import MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.movable import warn_diverged
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.adapt.transformed import TransformedSpeakers
from lhuc_asr.base.config import LearningRate
from lhuc_asr.hmm.fmllr import FmllrEstimation, Form, MinCounts, warn_of_few_frames
from lhuc_asr.hmm.speaker_transforms import SpeakerTransforms, damaged
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.row_optim import OPTIMIZERS, RowTable
from lhuc_asr.nnet.acoustic_model import AcousticModel


class FdlrConfig(DescentConfig, MethodConfig):
    """Options of fDLR: those of the descent, and the form of the maps.

    Attributes:
        kind: Name of the method.
        min_counts: Frames, weighted, that a speaker must have for each form of A: "full", "block" for equal blocks on
            its diagonal, "diagonal", "offset" for b alone. A speaker gets the richest form that they have enough for,
            and the identity where they have too few for any.
        blocks: Number of blocks of the form "block".
    """

    speakers: ClassVar[type[ReadableSpeakers]] = TransformedSpeakers
    transforms_features: ClassVar[bool] = True

    kind: Literal["fdlr"] = "fdlr"
    learning_rate: LearningRate = 0.001
    min_counts: MinCounts = Field(default={"full": 1.0})
    blocks: int = Field(2, ge=1, le=10_000)

    def make(self, folder: Path | None) -> Fdlr:
        """The method with these options."""
        return Fdlr(self)


class Fdlr:
    """fDLR as an adaptation method.

    Args:
        config: Options of the method.
    """

    def __init__(self, config: FdlrConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> TransformedSpeakers:
        """Estimate the maps of all speakers together.

        A speaker with too few frames for any form, or whose map becomes infinite or not a number, stays unadapted; a
        warning names them.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seeds the order of each speaker's frames, which does not depend on the other speakers.

        Raises:
            AlignmentError: A speaker's targets or features do not fit the network.
            TransformError: The features cannot be cut into the options' blocks.
        """
        forms = FmllrEstimation(min_counts=self.config.min_counts, blocks=self.config.blocks)
        counts = {name: float(data.targets.weight.sum(dtype=float)) for name, data in speakers.items()}
        form_of = {name: forms.form(count) for name, count in counts.items()}
        maps = FeatureMaps(model, form_of, forms, self.config.bfloat16)
        enough = {name: data for name, data in speakers.items() if form_of[name] is not None}
        with frozen(model):
            Descent(self.config).move(maps, model, enough, seed)
        warn_of_few_frames(list(counts), list(counts.values()), min(forms.min_counts.values()))
        return TransformedSpeakers(model, maps.transforms())


class FeatureMaps:
    """Affine maps of the features that a network takes, one a speaker; a ``Movable``.

    A row of the table has what a map adds to the identity, D x (D + 1) numbers; those that its form leaves out take no
    part.

    Args:
        model: The network, frozen.
        forms: Form of each speaker's A; None for the identity.
        options: The forms' options.
        bfloat16: Whether the network's matrix products are in bfloat16; those of the maps are not, which differ from
            the identity by less than it resolves.

    Raises:
        TransformError: The features cannot be cut into the options' blocks.
    """

    def __init__(
        self, model: AcousticModel, forms: Mapping[str, Form | None], options: FmllrEstimation, bfloat16: bool = False
    ) -> None:
        self._model, self._names, self._bfloat16 = model, tuple(forms), bfloat16
        self._row = {name: row for row, name in enumerate(forms, start=1)}
        self.device, dimension = model.log_prior.device, model.feature_dimension
        self._splicing = model.splicing
        self.width = self._splicing.width
        masks = {form: options.mask(form, dimension) for form in {None, *forms.values()}}
        # Row 0 is the identity.
        self._mask = torch.stack([masks[form] for form in (None, *forms.values())]).flatten(1).to(self.device)
        self._table = RowTable(torch.zeros_like(self._mask))
        self._identity = torch.eye(dimension, dimension + 1, device=self.device)

    def psi(self, spliced: Tensor) -> Tensor:
        """The spliced features themselves; see ``Movable``."""
        return spliced

    def logits(self, psi: Tensor, speakers: Sequence[str]) -> Tensor:
        """Logits of mapped features; see ``Movable``."""
        maps = self._identity + self._added(speakers).view(-1, *self._identity.shape)
        windows, vectors = psi.split([self._splicing.window, self._splicing.vector], dim=1)
        frames = windows.reshape(len(maps), -1, len(self._identity))  # (N, frames and their context, D)
        moved = torch.baddbmm(maps[:, None, :, -1], frames, maps[:, :, :-1].mT)
        return self._network(torch.cat([moved.view(windows.shape), vectors], dim=1))

    def unadapted(self, psi: Tensor) -> Tensor:
        """Logits of the features as they are; see ``Movable``."""
        with torch.no_grad():
            return self._network(psi)

    def optimizer(self, name: str, learning_rate: float) -> torch.optim.Optimizer:
        """An optimizer of the maps; see ``Movable``."""
        return OPTIMIZERS[name]([self._table], lr=learning_rate)

    def distance(self, speakers: Sequence[str]) -> Tensor:
        """Square of the distance of each map from the identity, shape (N,)."""
        return self._added(speakers).square().sum(1)

    def put_back_diverged(self, speakers: Sequence[str]) -> None:
        """Set maps that are not finite, singular, or beyond sense back to the identity; see ``Movable``."""
        matrices = self.transforms().matrices
        fine = matrices.flatten(1).isfinite().all(1)
        fine &= ~damaged(torch.where(fine[:, None, None], matrices, 0.0))
        diverged = [name for name, good in zip(self._names, fine.tolist(), strict=True) if not good]
        warn_diverged(diverged, len(speakers))
        with torch.no_grad():
            self._table[[self._row[name] for name in diverged]] = 0.0

    def transforms(self) -> SpeakerTransforms:
        """The maps as transforms of the features."""
        added = self._table.detach()[1:].view(-1, *self._identity.shape)
        return SpeakerTransforms(self._names, (self._identity + added).double().cpu())

    def _network(self, spliced: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            logits: Tensor = self._model(spliced)
        return logits.float()

    def _added(self, speakers: Sequence[str]) -> Tensor:
        """What the speakers' maps add to the identity, shape (N, D (D + 1))."""
        rows = torch.tensor([self._row[name] for name in speakers], device=self.device)
        return functional.embedding(rows, self._table, sparse=True) * self._mask[rows]
