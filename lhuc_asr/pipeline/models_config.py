"""The part of a recipe that describes its acoustic models: features, rungs of Gaussian aligners, networks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.base.config import StrictModel
from lhuc_asr.features.filterbank import RecipeFeatures
from lhuc_asr.hmm.fmllr_sat_training import FmllrSatConfig
from lhuc_asr.hmm.lda_mllt_training import LdaMlltConfig
from lhuc_asr.hmm.monophone import MonophoneConfig
from lhuc_asr.hmm.triphone_training import TriphoneConfig
from lhuc_asr.nnet.dnn import DnnConfig
from lhuc_asr.nnet.layered_network import NetworkShape
from lhuc_asr.nnet.schedule import MaxEpochs
from lhuc_asr.nnet.trainer import TrainerConfig
from lhuc_asr.pipeline.network_config import AnyNetwork, NetworkConfig, origin
from lhuc_asr.pipeline.pass_config import PassName, Rung, reuse_name


class AlignmentFeatures(RecipeFeatures):
    """Kind of features of the Gaussian mixtures: MFCC with differences, if the recipe does not say otherwise."""

    kind: Literal["fbank", "mfcc"] = "mfcc"
    delta_order: int = Field(2, ge=0, le=2)


class ModelsConfig(StrictModel):
    """The acoustic models of a recipe.

    Attributes:
        alignment_features, features: Features of the Gaussian mixtures, and of the network. Without a ``sample_rate``
            they are at the lowest rate of the recordings; with one, recordings of lower rates are used with an empty
            upper band.
        normalised_by: Mean 0 and variance 1 of all features of a ``speaker``, or of those of a speaker in each
            ``environment``, which needs recordings that have one. A new speaker's recordings are taken for those of
            one environment.
        monophone, tri, lda_mllt, fmllr_sat: Options of the rungs.
        dnn, trainer: Shape of the networks that have none of their own, and how all are trained.
        aligners: Rungs of the ladder of Gaussian aligners; each starts from the alignment of the one before.
        realignments: Number of times that a network aligns the training data anew for the next network.
        realignment_epochs: Maximum number of training epochs of a network that only aligns.
        networks: Speaker-adaptively trained networks, networks with features, vectors of speakers or a shape of their
            own, and networks with sequence training, by name; a network is trained if a pass needs it.
    """

    alignment_features: AlignmentFeatures = AlignmentFeatures()
    features: RecipeFeatures = RecipeFeatures()
    normalised_by: Literal["speaker", "environment"] = "speaker"
    monophone: MonophoneConfig = MonophoneConfig()
    tri: TriphoneConfig = TriphoneConfig()
    lda_mllt: LdaMlltConfig = LdaMlltConfig()
    fmllr_sat: FmllrSatConfig = FmllrSatConfig()
    dnn: DnnConfig = DnnConfig()
    trainer: TrainerConfig = TrainerConfig()
    aligners: tuple[Rung, ...] = Field(("mono",), min_length=1)
    realignments: int = Field(1, ge=0, le=20)
    realignment_epochs: MaxEpochs = 5
    networks: dict[PassName, AnyNetwork] = Field({"sat": SatConfig()})

    def rung_features(self, network: str) -> Rung | None:
        """The rung whose features a network was trained on; None for the recipe's ``features``."""
        described = self._origin(network)
        return None if described is None else described.features

    def voices_of(self, network: str) -> str | None:
        """Name of the network whose i-vectors a network was trained with, mostly its own; None for one without."""
        described = self._origin(network)
        return None if described is None or described.ivector is None else self.origin_of(network)

    def origin_of(self, network: str) -> str | None:
        """The network whose features, vectors and shape a network has; None where they are those of ``si``."""
        return origin(self.networks, network.removesuffix(reuse_name("", "without_rows")))

    def shape_of(self, network: str) -> NetworkShape:
        """The shape of a network."""
        described = self._origin(network)
        return self.dnn if described is None or described.shape is None else described.shape

    def _origin(self, network: str) -> NetworkConfig | None:
        """What a network takes, if it is something else than what ``si`` takes."""
        name = self.origin_of(network)
        described = None if name is None else self.networks[name]
        return described if isinstance(described, NetworkConfig) else None
