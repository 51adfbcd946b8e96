"""The parts of a recipe that describe its passes and the models that decode in them."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.method import MethodConfig
from lhuc_asr.adapt.methods import AnyMethod
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.adapt.targets import TargetsConfig
from lhuc_asr.base.config import StrictModel
from lhuc_asr.decode.search import AcousticScale, InsertionPenalty

# Names become those of folders, with others beside them in one name.
PassName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=100)]

# The rungs of the ladder of Gaussian aligners, in their order, by their names in ``hmm/``.
Rung = Literal["mono", "tri", "lda_mllt", "fmllr_sat"]
RUNGS: tuple[Rung, ...] = get_args(Rung)

# The speaker-independent network, and the pass that decodes with it.
SI = "si"

# A control of a pass: see ``adapt/controls.py``. ``others_mean_of_both`` is for passes on top of another's transforms,
# or vectors, alone: there ``others_mean`` keeps each speaker's own, and this one does not. ``without_rows`` is a
# network that was trained further, as often as an adaptively trained one, but without speakers' rows, and the same
# passes with it.
Control = Literal["others_mean", "others_mean_of_both", "another", "without_rows"]


class TuningConfig(StrictModel):
    """Scales and penalties to try on the held-out speakers, once for each network.

    Attributes:
        acoustic_scales: Factors on log-likelihoods.
        insertion_penalties: Costs added to each word.
    """

    acoustic_scales: tuple[AcousticScale, ...] = Field((0.1,), min_length=1)
    insertion_penalties: tuple[InsertionPenalty, ...] = Field((0.0,), min_length=1)


class CombineConfig(StrictModel):
    """A combination of the amplitudes of two passes, one for the speaker and one for the environment.

    Attributes:
        speaker: The pass with r_S.
        environment: The pass with r_E.
        alpha: Weight in alpha xi(r_S) + (1 - alpha) xi(r_E) (equation 10); None for the product of the two.
    """

    speaker: PassName
    environment: PassName
    alpha: float | None = Field(None, ge=0.0, le=1.0)

    @property
    def parts(self) -> tuple[str, str]:
        """The two passes."""
        return self.speaker, self.environment


class PassConfig(StrictModel):
    """A pass that adapts a network and decodes.

    Attributes:
        network: ``si``, or one of the recipe's ``networks``; the first pass of the network ``sat`` is ``sat_si``.
        data: Recordings that the pass adapts on.
        targets: Adaptation targets of the pass.
        method: Adaptation method; None for the recipe's ``lhuc``.
        own_search: Whether the pass is also decoded with a scale and a penalty that are tuned for it, as
            ``<pass>__own``. Targets from lattices flatten the scores, so that the network's scale may not suit them.
        combine: Two earlier passes of the same network whose amplitudes are combined, instead of adapting.
    """

    network: PassName = "si"
    data: DataConfig = DataConfig()
    targets: TargetsConfig = TargetsConfig()
    method: AnyMethod | None = None
    own_search: bool = False
    combine: CombineConfig | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> PassConfig:
        adapts = (self.data, self.targets, self.method) != (DataConfig(), TargetsConfig(), None)
        if self.combine is not None and adapts:
            raise ValueError("combine: nothing is adapted; leave out data, targets and method")
        return self


def check_mode(name: str, plan: PassConfig, method: MethodConfig) -> None:
    """Refuse a method that does not fit the pass's mode.

    Raises:
        ValueError: The parameters would have to go on with each recording and cannot, or their options need it.
    """
    incremental = plan.data.mode == "incremental"
    if incremental and not method.goes_on:
        raise ValueError(
            f"passes: {name!r}: the parameters of {method.kind} with these options do not go on with each recording; "
            "choose mode online, or lhuc, or moments without descent"
        )
    if not incremental and isinstance(method, MomentsConfig) and method.half_life is not None:
        raise ValueError(f"passes: {name!r}: half_life is only for data.mode incremental; leave it out")


def check_stack(
    name: str, plan: PassConfig, method: MethodConfig, below: PassConfig | None, transform: MethodConfig | None
) -> None:
    """Refuse a pass on top of another that cannot be below it.

    Args:
        name: Name of the pass above.
        plan: The pass above.
        method: Its method, which is on the other.
        below: The pass below; None where no earlier pass has that name.
        transform: Its method.

    Raises:
        ValueError: The two cannot be stacked.
    """
    if below is None or transform is None or not transform.transforms_features:
        raise ValueError(
            f"passes: {name!r} is on {method.on!r}, which is not an earlier pass that transforms features; put one "
            "before it, by fmllr, basis_fmllr, fdlr, vtln or ivector"
        )
    if transform.on is not None:
        raise ValueError(
            f"passes: {name!r} is on {method.on!r}, which is itself on another pass; a stack has two methods"
        )
    if method.needs_vectors and transform.needs_vectors:
        raise ValueError(f"passes: {name!r} is by {method.kind} on {transform.kind}; a speaker has one vector")
    if method.uses_gaussians:
        raise ValueError(
            f"passes: {name!r} is by {method.kind} on {transform.kind}; leave out on, and name {method.on!r} as the "
            "source of its targets"
        )
    if (below.network, below.data) != (plan.network, plan.data):
        raise ValueError(f"passes: {name!r} is on {method.on!r}; give both the same network and data")


def first_pass(network: str) -> str:
    """The pass that decodes with a network, without adaptation.

    Example:
        >>> first_pass("si"), first_pass("sat")
        ('si', 'sat_si')
    """
    return SI if network == SI else f"{network}_{SI}"


def reuse_name(name: str, whose: str) -> str:
    """Name of the pass that decodes again with the parameters of a pass.

    Example:
        >>> reuse_name("lhuc", "others_mean")
        'lhuc__others_mean'
    """
    return f"{name}__{whose}"
