"""Gaussian mixtures as an acoustic model that passes decode with and methods adapt, like a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lhuc_asr.adapt.speaker_data import AlignmentModel
from lhuc_asr.base.errors import SiteError
from lhuc_asr.features.context import Context
from lhuc_asr.hmm.gmm import DiagonalGmm
from lhuc_asr.nnet.acoustic_model import AcousticModel, ScaledNetwork


class GaussianModel(AcousticModel):
    """Gaussian mixtures; they take single frames, and have no hidden layers.

    Args:
        gmm: The mixtures.

    Attributes:
        gmm: The mixtures.
    """

    def __init__(self, gmm: DiagonalGmm) -> None:
        super().__init__()
        self.gmm = gmm
        self.feature_dimension = gmm.dimension
        self.pdf_count = gmm.pdf_count
        self.context = Context.both(0)
        # Buffers, so that the identity of the model, which speakers' files hold, is that of its Gaussians.
        for name in ("pdf", "weight", "mean", "variance"):
            self.register_buffer(name, getattr(gmm, name))
        self.register_buffer("log_prior", torch.zeros(gmm.pdf_count))

    def forward(self, features: Tensor) -> Tensor:
        """Log p(x | pdf) of frames (B, D), shape (B, K)."""
        return self.log_likelihoods(features)

    def log_likelihoods(self, spliced: Tensor) -> Tensor:
        """Log p(x | pdf) of frames (B, D), shape (B, K), float32; likelihoods need no priors."""
        return self.gmm.log_likelihoods(spliced)

    def hidden_layers(self) -> Mapping[str, nn.Module]:
        """None: there is nothing to scale."""
        return {}

    def scaled(self, sites: Sequence[str], precision: torch.dtype | None = None) -> ScaledNetwork:
        """Always refused.

        Raises:
            SiteError: Gaussian mixtures have no hidden units.
        """
        raise SiteError("Gaussian mixtures have no hidden units to scale; adapt a network, or adapt by fmllr")


class SpeakerAdaptiveGaussians(GaussianModel):
    """Gaussian mixtures of unadapted features, which decode first passes, with their twin for adapted features.

    Args:
        unadapted: The mixtures of unadapted features.
        adapted: The same Gaussians in features that speakers' transforms have moved.

    Attributes:
        adapted: The model of adapted features.
    """

    def __init__(self, unadapted: DiagonalGmm, adapted: DiagonalGmm) -> None:
        super().__init__(unadapted)
        self.adapted = GaussianModel(adapted)


def gaussian_model(mixtures: AlignmentModel) -> GaussianModel:
    """The Gaussian mixtures of the last rung as a model that decodes, ready to score.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    unadapted, adapted = mixtures.gmms
    trained_with_transforms = mixtures.unadapted is not None
    model = SpeakerAdaptiveGaussians(unadapted, adapted) if trained_with_transforms else GaussianModel(adapted)
    return model.eval()
