"""The configuration of an experiment: a recipe's config.yaml, checked before anything runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, get_args

from pydantic import Field, model_validator

from lhuc_asr.adapt.adaptation_sets import DataConfig
from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.fmllr import FmllrConfig
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.method import MethodConfig
from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.base.config import Seed
from lhuc_asr.base.experiment_folder import ExperimentName
from lhuc_asr.base.local_path import LocalPath
from lhuc_asr.corpus.noise import NoiseConfig
from lhuc_asr.corpus.source import TEST
from lhuc_asr.corpus.sources import AnySource
from lhuc_asr.decode.lattice_search import LatticeConfig
from lhuc_asr.decode.search import SearchConfig
from lhuc_asr.hmm.fmllr import FmllrEstimation
from lhuc_asr.hmm.training import MixtureConfig
from lhuc_asr.lang.language_model import LanguageModelConfig
from lhuc_asr.lang.lexicon_source import LexiconConfig
from lhuc_asr.pipeline.cluster_config import ExecutorName, RayConfig, ShardsConfig
from lhuc_asr.pipeline.models_config import ModelsConfig
from lhuc_asr.pipeline.network_config import check_network
from lhuc_asr.pipeline.output_config import OutputConfig, check_rescored
from lhuc_asr.pipeline.pass_config import (
    RUNGS,
    SI,
    CombineConfig,
    Control,
    PassConfig,
    PassName,
    Rung,
    TuningConfig,
    check_mode,
    check_stack,
    first_pass,
    reuse_name,
)

# Beyond these it is not speech any more, and a speed of 0.01 makes a hundred times the data.
Speed = Annotated[float, Field(ge=0.25, le=4.0)]


class ExperimentConfig(ModelsConfig):
    """A recipe: everything that an experiment depends on. Its models are described by ``ModelsConfig``.

    Attributes:
        name: Name of the experiment's folder below ``exp/``.
        exp: The folder itself; None for ``exp/<name>``.
        seed: Seed of every random choice.
        seeds: Seeds to repeat the whole experiment with, each in a folder of its own, ``seed1`` and so on; None for
            ``seed`` alone.
        workers: Number of processor cores that a run uses: for processes of features and search, threads of the
            network, and folds side by side, which share them. With 1 everything runs in the calling process.
        device: Where the network runs: ``cpu``, ``cuda``.
        executor: Where work that divides is done: ``local``, in processes of this machine, or ``ray``, on a cluster.
        ray: The cluster, for ``executor: ray``.
        shards: Where training frames are written in shards, for networks to be trained from; None for training from
            the memory maps of the experiment.
        corpus: Recordings and transcripts.
        hours: Hours of training speech, chosen by the seed; None for all.
        folds: Number of folds; above 1, cross-validation over all speakers, each decoded by a model that has not seen
            them.
        heldout_speakers: Number of training speakers who are kept back for newbob and for tuning.
        max_skipped: Maximum fraction of bad recordings, which are skipped with a warning; above it the run stops.
        noise: Noises that are added to every recording; None for the recordings as they are.
        speeds: Speeds at which training recordings are used, multiples of 0.01; 1.0 is one of them.
        lexicon, lm: Pronunciations, and the n-gram model.
        transition_scale: Factor on the transition costs in the decoding graph.
        search, tuning, lattice: Options of decoding.
        first_passes: Rungs of the ladder, and networks, that decode without adaptation even if no pass adapts them.
        lhuc: Adaptation method of passes that do not name one.
        passes: Passes that adapt, by name, in their order; the first passes come before them.
        controls: Controls that are made of each of these passes.
        outputs: Other words that are taken from the lattices of passes and controls, by name: ``<pass>__<name>``.
        primary: The pass whose comparison with the unadapted network, over the first test set, is the recipe's primary
            one; None for the first that does not adapt on reference transcripts.
    """

    name: ExperimentName
    exp: LocalPath | None = None
    seed: Seed = 1
    seeds: tuple[Seed, ...] | None = Field(None, min_length=2)
    workers: int = Field(2, ge=1, le=1000)
    device: str = "cpu"
    executor: ExecutorName = "local"
    ray: RayConfig | None = None
    shards: ShardsConfig | None = None
    corpus: AnySource
    hours: float | None = Field(None, gt=0.0, le=1e6)
    folds: int = Field(1, ge=1, le=1000)
    heldout_speakers: int = Field(8, ge=1, le=1_000_000)
    max_skipped: float = Field(0.05, ge=0.0, le=1.0)
    noise: NoiseConfig | None = None
    speeds: tuple[Speed, ...] = Field((1.0,), min_length=1)
    lexicon: LexiconConfig = LexiconConfig()
    lm: LanguageModelConfig = LanguageModelConfig()
    transition_scale: float = Field(0.1, ge=0.0, le=100.0)
    search: SearchConfig = SearchConfig()
    tuning: TuningConfig = TuningConfig()
    lattice: LatticeConfig = LatticeConfig()
    first_passes: tuple[PassName, ...] = ()
    lhuc: LhucConfig = LhucConfig()
    passes: dict[PassName, PassConfig] = Field({"lhuc": PassConfig()}, min_length=1)
    controls: tuple[Control, ...] = ("others_mean", "another", "without_rows")
    outputs: dict[PassName, OutputConfig] = Field({})
    primary: PassName | None = None

    @model_validator(mode="after")
    def _fits(self) -> ExperimentConfig:
        if any(speed != round(speed, 2) for speed in self.speeds):
            raise ValueError(f"speeds {self.speeds}: expected positive multiples of 0.01")
        if 1.0 not in self.speeds or len(set(self.speeds)) != len(self.speeds):
            raise ValueError(f"speeds {self.speeds}: expected 1.0 among them, and each only once")
        for name in ("seeds", "controls"):
            values = getattr(self, name) or ()
            if len(set(values)) != len(values):
                raise ValueError(f"{name} {values}: expected each only once")
        if self.folds > 1 and self.corpus.has_own_test_speakers:
            raise ValueError(f"folds: the {self.corpus.kind} corpus has unseen test speakers of its own; leave it at 1")
        speakers = self.corpus.training_speakers
        if speakers is not None and speakers <= self.heldout_speakers:
            raise ValueError(
                f"heldout_speakers: {self.heldout_speakers} of {speakers} training speakers are kept back, so none is "
                "left to train on; lower heldout_speakers or add speakers"
            )
        if self.executor == "ray" and self.ray is None:
            raise ValueError(
                "executor: ray needs a store that all machines of the cluster reach, as in ray.store=s3://bucket/experiment"
            )
        if self.hours is not None and not self.corpus.chooses_hours:
            raise ValueError(f"hours: the {self.corpus.kind} corpus is always trained on as a whole; leave it out")
        if self.aligners != tuple(rung for rung in RUNGS if rung in self.aligners) or self.aligners[0] != RUNGS[0]:
            raise ValueError(f"aligners {self.aligners}: expected {RUNGS[0]}, then any of {RUNGS[1:]} in this order")
        if taken := sorted(self.outputs.keys() & {"own", *get_args(Control)}):
            raise ValueError(f"outputs: {taken[0]!r} is the name of a pass that is decoded again; choose another")
        if self.lm.arpa is None:  # the order of a file is not known yet
            check_rescored(self.outputs, self.lm)
        if self.normalised_by == "environment" and self.known_environments == ():
            raise ValueError(
                "normalised_by: environment, but the recordings have no environments; make some with noise:, or leave "
                "it out"
            )
        self._check_blocks()
        for name in self.networks:
            if name.endswith(reuse_name("", "without_rows")):
                raise ValueError(f"networks: {name!r} has the name of a control; choose another")
            if re.fullmatch(rf"{SI}|first\d+", name) or name in RUNGS:  # am/first1 is the network that aligns
                raise ValueError(f"networks: {name!r} is an experiment's own model; choose another name")
            check_network(name, self.networks, self.aligners)
        models = (SI, *self.networks, *self.aligners)
        if unknown := [name for name in self.first_passes if name not in models]:
            raise ValueError(f"first_passes: {', '.join(unknown)}: no such model; models: {', '.join(models)}")
        firsts = {first_pass(model) for model in models}
        known = set(firsts)
        for name, plan in self.passes.items():
            if name in firsts:
                raise ValueError(f"passes: {name!r} is the name of a pass without adaptation; choose another")
            if plan.network not in models:
                raise ValueError(f"passes: {name!r} has the network {plan.network!r}; networks: {', '.join(models)}")
            if plan.combine is not None:
                self._check_combined(name, plan, plan.combine, known)
            elif self.source_of(plan) not in known:
                raise ValueError(
                    f"passes: {name!r} adapts on {self.source_of(plan)!r}; passes before it: {', '.join(sorted(known))}"
                )
            self._check_layers(name, plan)
            self._check_features(name, plan, known)
            self._check_environments(name, plan.data)
            known.add(name)
        self._check_reused(firsts)
        if self.primary is not None and not self.is_result(self.primary):
            results = ", ".join(filter(self.is_result, self.passes)) or "none"
            raise ValueError(f"primary: {self.primary!r} is not a pass without reference transcripts; those: {results}")
        return self

    def _check_blocks(self) -> None:
        """Refuse transforms in blocks that the features cannot be cut into."""
        of_ladder = self.lda_mllt.dimension if "lda_mllt" in self.aligners else self.alignment_features.dimension
        estimated: list[tuple[str, FmllrEstimation | FmllrConfig | FdlrConfig, int]] = []
        if "fmllr_sat" in self.aligners:
            estimated.append(("fmllr_sat.fmllr", self.fmllr_sat.fmllr, of_ladder))
        for name, plan in self.passes.items():
            method = self.method_of(plan)
            if isinstance(method, FmllrConfig | FdlrConfig):
                on_ladder = plan.network in self.aligners or self.rung_features(plan.network)
                estimated.append((f"passes: {name!r}", method, of_ladder if on_ladder else self.features.dimension))
        for name, options, dimension in estimated:
            if "block" in options.min_counts and dimension % options.blocks:
                raise ValueError(
                    f"{name}: {dimension} features cannot be cut into {options.blocks} equal blocks; give blocks a "
                    f"number that divides {dimension}"
                )

    def _check_layers(self, name: str, plan: PassConfig) -> None:
        """Refuse amplitudes at layers that the network does not have."""
        highest = max((self.method_of(plan).amplitude_layers or (0,)), default=0)
        layers = self.shape_of(plan.network).site_count
        if plan.combine is None and highest >= layers:
            raise ValueError(
                f"passes: {name!r} adapts the layer {highest}, but the network {plan.network!r} has {layers} hidden "
                "layers, counted from 0; correct one of the two"
            )

    def _check_features(self, name: str, plan: PassConfig, known: set[str]) -> None:
        """Refuse fMLLR without the Gaussians that it needs, Gaussians by other methods, and targets of other pdfs."""
        method, last = self.method_of(plan), self.aligners[-1]
        gaussian, on = plan.network in self.aligners, self.rung_features(plan.network)
        if plan.combine is None and method.uses_gaussians:
            if last not in (plan.network, on):
                raise ValueError(
                    f"passes: {name!r} adapts {plan.network!r} by fmllr, which is for the Gaussians of the last rung, "
                    f"{last}, and for networks on its features; give it network: {last}, or one of networks with "
                    f"features: {last}"
                )
        elif gaussian:
            raise ValueError(f"passes: {name!r} adapts the Gaussians of {plan.network!r} by {method.kind}; use fmllr")
        if method.needs_filterbanks and plan.combine is None and not self.on_filterbanks(plan):
            raise ValueError(
                f"passes: {name!r} is by {method.kind}, which needs a network on features of kind fbank with "
                "delta_order 0, as they are; choose another method or other features"
            )
        if method.needs_vectors and plan.combine is None and self.voices_of(plan.network) is None:
            raise ValueError(
                f"passes: {name!r} is by {method.kind}, but the network {plan.network!r} does not take vectors of "
                "speakers; name one that does, by networks: {NAME: {ivector: {}}}"
            )
        check_mode(name, plan, method)
        if method.on is not None:
            below = self.passes.get(method.on) if method.on in known else None
            check_stack(name, plan, method, below, None if below is None else self.method_of(below))
        source = self.source_of(plan)
        decoder = self.passes[source].network if source in self.passes else None
        rungs = [rung for rung in self.aligners[:-1] if rung == decoder or first_pass(rung) == source]
        if plan.combine is None and rungs:
            raise ValueError(
                f"passes: {name!r} has targets of {source!r}, whose pdfs are those of the rung {rungs[0]}; give it a "
                f"source with those of {last}"
            )

    def on_filterbanks(self, plan: PassConfig) -> bool:
        """Whether a pass adapts to log mel filterbanks without differences, which nothing has moved."""
        unmoved = self.rung_features(plan.network) is None and self.method_of(plan).on is None
        return unmoved and self.features.kind == "fbank" and self.features.delta_order == 0

    def _check_reused(self, firsts: Collection[str]) -> None:
        """Refuse two passes of one name, among those without adaptation, the table's, their controls and outputs."""
        again = [reuse_name(name, whose) for name in self.passes for whose in (*self.controls, "own")]
        names = [*firsts, *self.passes, *again]
        for output, options in self.outputs.items():
            if unknown := [name for name in options.passes or () if name not in names]:
                raise ValueError(f"outputs: {output!r} is of {unknown[0]!r}; passes: {', '.join(names)}")
        names += [reuse_name(name, output) for name in names for output in self.outputs]
        for name, count in Counter(names).items():
            if count > 1:
                where = "passes" if name in self.passes else "outputs"
                owner = name.rpartition("__")[0]
                raise ValueError(f"{where}: {name!r} is the name of {owner!r} decoded again; choose another name")

    def _check_combined(self, name: str, plan: PassConfig, combine: CombineConfig, known: set[str]) -> None:
        for part in combine.parts:
            if part not in known or part not in self.passes:
                adapted = ", ".join(sorted(known & self.passes.keys())) or "none"
                raise ValueError(f"passes: {name!r} combines {part!r}; passes that adapt before it: {adapted}")
            if self.passes[part].network != plan.network:
                raise ValueError(f"passes: {name!r} is of the network {plan.network}, but combines {part!r} of another")
            if not self.estimates_amplitudes(part):
                raise ValueError(
                    f"passes: {name!r} combines {part!r}, which does not estimate amplitudes; give it another method"
                )
        if self._layers(combine.speaker) != self._layers(combine.environment):
            raise ValueError(
                f"passes: {name!r} combines {combine.speaker!r} and {combine.environment!r}, which have amplitudes at "
                "different layers; give their methods the same"
            )

    def estimates_amplitudes(self, name: str) -> bool:
        """Whether the speakers of a pass are amplitudes, which can be combined and looked at unit by unit."""
        plan = self.passes[name]
        method = self.method_of(plan)
        return plan.combine is not None or (method.on is None and issubclass(method.speakers, Amplitudes))

    def _layers(self, name: str) -> set[int]:
        """The hidden layers at which a pass has amplitudes."""
        plan = self.passes[name]
        if plan.combine is not None:
            return self._layers(plan.combine.speaker)
        layers = self.method_of(plan).amplitude_layers
        return set(range(self.shape_of(plan.network).site_count) if layers is None else layers)

    @property
    def cluster(self) -> RayConfig | None:
        """The cluster that work is divided among; None for this machine alone."""
        return self.ray if self.executor == "ray" else None

    @property
    def known_environments(self) -> tuple[str, ...] | None:
        """Names of the recordings' environments; None where they are known only when the corpus has been read."""
        return self.noise.environments if self.noise is not None else self.corpus.environments

    def _check_environments(self, name: str, data: DataConfig) -> None:
        """Refuse environments that the recordings do not have, if that is known before the corpus is read."""
        known = self.known_environments
        if known is None:
            return
        unknown = sorted(set(data.environments or ()) - set(known))
        if unknown or (data.unit is not None and not known):
            raise ValueError(
                f"passes: {name!r} asks for the environments {', '.join(unknown) or 'of the corpus'}; "
                f"noise: makes these: {', '.join(known) or 'none'}"
            )

    @property
    def decoding_rungs(self) -> tuple[Rung, ...]:
        """The rungs of the ladder that passes decode with."""
        return tuple(rung for rung in self.aligners if rung in self.decoding_models)

    @property
    def decoding_models(self) -> set[str]:
        """Names of the models that passes decode with; controls are left out."""
        sources = {plan.targets.source for plan in self.passes.values()}
        heard = (model for model in (*self.networks, *self.aligners) if first_pass(model) in sources)
        return {*self.first_passes, *(plan.network for plan in self.passes.values()), *heard}

    @property
    def test_sets(self) -> tuple[str, ...]:
        """Names of the test sets; a fold of a cross-validation has one."""
        return self.corpus.test_sets if self.folds == 1 else (TEST,)

    @property
    def max_unaligned(self) -> float:
        """Share of the utterances that may fail to align with the last rung, and with what is trained on it."""
        last: MixtureConfig = self.monophone if self.aligners[-1] == "mono" else getattr(self, self.aligners[-1])
        return last.max_unaligned

    @property
    def all_networks(self) -> tuple[str, ...]:
        """Names of all networks that the recipe describes, and of their controls."""
        controls = (self.network_without_rows(name) for name in self.networks)
        return (SI, *self.networks, *filter(None, controls))

    def network_without_rows(self, name: str) -> str | None:
        """The control of a network that is trained on from another: as many epochs without rows; None for others.

        Training a network from random weights without rows is training ``si``.
        """
        trained = self.networks.get(name)
        if "without_rows" not in self.controls or not isinstance(trained, SatConfig) or trained.start is None:
            return None
        return reuse_name(name, "without_rows")

    def is_result(self, name: str) -> bool:
        """Whether a pass of that name adapts without reference transcripts, in any pass that it builds on."""
        plan = self.passes.get(name)
        if plan is None:
            return False
        if plan.combine is not None:
            return all(self.is_result(part) for part in plan.combine.parts)
        source = self.source_of(plan)
        return plan.targets.unsupervised and (source not in self.passes or self.is_result(source))

    def source_of(self, plan: PassConfig) -> str:
        """Name of the earlier pass that the targets of a pass are made from."""
        return plan.targets.source or first_pass(plan.network)

    def method_of(self, plan: PassConfig) -> MethodConfig:
        """Options of a pass's adaptation method."""
        return plan.method or self.lhuc

    @property
    def folder(self) -> Path:
        """The experiment's folder: ``exp``, or ``exp/<name>`` with the hours, folds and seeds in its name."""
        if self.exp is not None:
            return self.exp
        suffix = (f"_{self.hours:g}h" if self.hours else "") + (f"_folds{self.folds}" if self.folds > 1 else "")
        repeated = f"_seeds{len(self.seeds)}" if self.seeds else ""
        return Path("exp") / f"{self.name}{suffix}{repeated}"
