"""The parts of a recipe that describe its networks beside ``si``: other features, vectors of speakers, other shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.base.config import ChosenByKeys, StrictModel
from lhuc_asr.decode.lattice_search import LatticeConfig, check_beams
from lhuc_asr.decode.word_lattice import WordLatticeConfig
from lhuc_asr.hmm.ivector import ExtractorConfig
from lhuc_asr.hmm.ubm import BackgroundConfig
from lhuc_asr.lang.kneser_ney import HIGHEST_ORDER
from lhuc_asr.nnet.sequence_trainer import SequenceConfig
from lhuc_asr.nnet.shapes import AnyShape
from lhuc_asr.pipeline.pass_config import SI, Rung


class VoicesConfig(StrictModel):
    """The i-vectors that a network is trained with.

    Attributes:
        background: Options of the background model.
        extractor: Options of the i-vector extractor, and of the weight of frames in a vector.
        utterances: Number of a training speaker's utterances that share a vector, chosen by the seed; None for all.
            With fewer, the network sees more different vectors, each of as little speech as a new speaker's first
            recordings.
        dropout: Share of these groups of training utterances, chosen by the seed, that get the vector of nobody in the
            training of the network. Without any, the network never sees the vector that its first pass, live
            recognition and methods on features alone have.
    """

    background: BackgroundConfig = BackgroundConfig()
    extractor: ExtractorConfig = ExtractorConfig()
    utterances: int | None = Field(4, ge=1, le=1_000_000)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)


class NetworkConfig(StrictModel):
    """A speaker-independent network that differs from ``si`` in what it takes, or in its shape.

    Attributes:
        features: The rung of the ladder whose features it takes; None for the recipe's ``features``. A network on those
            of ``fmllr_sat`` is trained on features that the training speakers' transforms have moved; passes adapt it
            to test speakers by ``fmllr``.
        ivector: The vectors of speakers that it takes beside the features; passes give it those of test speakers by
            ``ivector``. None for none.
        shape: Its shape; None for the recipe's ``dnn``.
    """

    features: Literal["lda_mllt", "fmllr_sat"] | None = None
    ivector: VoicesConfig | None = None
    shape: AnyShape | None = None

    @model_validator(mode="before")
    @classmethod
    def _starts_no_training(cls, tree: object) -> object:
        if isinstance(tree, dict) and "sequence" in tree:
            own = ", ".join(sorted(tree.keys() & cls.model_fields.keys()))
            raise ValueError(
                f"sequence: the network goes on from another, whose {own} it has; give {own} to a network of its own, "
                "and name that one as start here"
            )
        return tree

    @model_validator(mode="after")
    def _differs(self) -> Self:
        if (self.features, self.ivector, self.shape) == (None, None, None):
            raise ValueError(f"this network is {SI}; give it features of a rung, ivector: {{}}, or a shape")
        return self


class SequenceNetworkConfig(StrictModel):
    """A network that is trained on from another by a sequence objective, on lattices of the training recordings.

    Attributes:
        sequence: Options of the training.
        start: Name of the network that training goes on from, ``si`` or one with features, vectors or a shape of its
            own. It makes the lattices, and aligns the references.
        lm_order: Order of the language model of the lattices, a weak one, so that they have the words that sound alike
            (Vesely et al. 2013: a unigram).
        lattice, word_lattice: Options of the lattices.
        max_without_lattice: Maximum fraction of a split's recordings that may be left out for want of a lattice.
    """

    sequence: SequenceConfig
    start: str = SI
    lm_order: int = Field(1, ge=1, le=HIGHEST_ORDER)
    lattice: LatticeConfig = LatticeConfig()
    word_lattice: WordLatticeConfig = WordLatticeConfig()
    max_without_lattice: float = Field(0.05, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _beams_fit(self) -> Self:
        check_beams(self.lattice, self.word_lattice)
        return self


# A speaker-adaptively trained network, unless it has a key of another class.
AnyNetwork = Annotated[
    SatConfig | NetworkConfig | SequenceNetworkConfig,
    ChosenByKeys({"sat": SatConfig, "own": NetworkConfig, "sequence": SequenceNetworkConfig}, "sat"),
]


def origin(networks: Mapping[str, AnyNetwork], name: str) -> str | None:
    """The network of ``networks`` whose features, vectors and shape one has; None where they are those of ``si``.

    Args:
        networks: The recipe's networks.
        name: Name of a network: ``si``, one of these, or one that is not the recipe's at all.
    """
    trained = networks.get(name)
    if isinstance(trained, NetworkConfig):
        return name
    if trained is None:
        return None
    other = trained.start if isinstance(trained, SequenceNetworkConfig) else trained.like or trained.start
    return None if other in (None, SI) else origin(networks, other)


def check_network(name: str, networks: Mapping[str, AnyNetwork], aligners: tuple[Rung, ...]) -> None:
    """Refuse a network on features that the ladder does not make, or one that goes on from nothing.

    Args:
        name: Name of the network.
        networks: The recipe's networks.
        aligners: The recipe's rungs.

    Raises:
        ValueError: The network is one of these.
    """
    network = networks[name]
    if isinstance(network, NetworkConfig):
        if network.features not in (None, *aligners):
            raise ValueError(f"networks: {name!r} needs the rung {network.features}; add it to aligners")
        return
    others = [other for other, each in networks.items() if isinstance(each, NetworkConfig)]
    if network.start not in (None, SI, *others):
        raise ValueError(
            f"networks: {name!r} starts from {network.start!r}; a network that is trained on from another starts from "
            f"one of {', '.join((SI, *others))}"
        )
    if isinstance(network, SequenceNetworkConfig):
        return
    if network.like not in (None, *others):
        raise ValueError(
            f"networks: {name!r} is like {network.like!r}; a speaker-adaptively trained network is like one with "
            f"features, vectors or a shape of its own ({', '.join(others) or 'there is none'}); without like it has "
            "the recipe's own"
        )
