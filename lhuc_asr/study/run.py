"""Series and looks on a finished experiment (``lhuc-asr benchmark``), each with a table and a figure.

The passes of a series are stages of the experiment, in its folders: a finished pass is not run again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lhuc_asr.base.atomic import atomic_folder, write_json, write_text
from lhuc_asr.base.config import dump_config, parse_config
from lhuc_asr.base.destinations import refuse_to_lose
from lhuc_asr.base.device import checked_device
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.base.experiment_folder import CONFIG_FILE, RUN_FILE, ExperimentFolder, run_record
from lhuc_asr.base.tensors import number_count
from lhuc_asr.corpus.source import TEST
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import ADAPTATION_FILE, ADAPTATIONS, WER_FILE
from lhuc_asr.pipeline.experiment import (
    AlignedExperiment,
    at_corpus_rate,
    fold_configs,
    opened,
    read_config,
    refuse_seeds,
)
from lhuc_asr.pipeline.inputs import check_files
from lhuc_asr.pipeline.network_config import AnyNetwork
from lhuc_asr.pipeline.pass_config import PassConfig, first_pass, reuse_name
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.results import made_passes
from lhuc_asr.pipeline.run import make_passes
from lhuc_asr.score.formats import FORMATS, check_formats
from lhuc_asr.score.series import TABLES, Point, write_rows, write_series
from lhuc_asr.score.significance import compare
from lhuc_asr.score.wer import WerReport, read_wer
from lhuc_asr.study.look import Look, LookKind
from lhuc_asr.study.looks import LOOKS
from lhuc_asr.study.series import SERIES, Series, Variant, base_pass, variants_of

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.yaml"
# All series and looks, by name.
KNOWN: dict[str, Series | LookKind] = {**SERIES, **LOOKS}


def run_benchmark(
    folder: Path, names: Sequence[str] | None, base: str | None = None, formats: Sequence[str] = ()
) -> dict[str, Path]:
    """Make series and looks; passes that are finished are not made again.

    Args:
        folder: Folder of an experiment that ``lhuc-asr run`` has begun; missing stages are made.
        names: Names of series and looks; None for all that the recipe has a pass for, with a warning for the others.
        base: The pass that series vary and that looks show; None for the recipe's first suitable pass.
        formats: Formats of the figures beside PNG, from ``FORMATS``.

    Returns:
        The folder of each, ``benchmark/<name>/``, or ``benchmark/<name>-<base>/`` if the base is given, with
        ``table.jsonl``, ``table.csv``, a figure for each test split, ``recipe.yaml`` and ``run.json``.

    Raises:
        ExperimentError: The folder is not an experiment's, a given name is not a series' or a look's, or the folder
            of an earlier one has files that no benchmark made.
        ConfigError: The recipe has no suitable base, or a pass or network of the recipe has a name that a series needs.
        ScoreError: Figures have no such format.
    """
    check_formats(formats)
    unknown = [name for name in names or () if name not in KNOWN]
    if unknown:
        raise ExperimentError(f"no series or look is named {', '.join(unknown)}; choose from {', '.join(KNOWN)}")
    config = read_finished(folder)
    # An error in any of them is raised before the first of them runs.
    bases = {}
    for name in KNOWN if names is None else names:
        try:
            bases[name] = suitable_base(config, name, base)
        except ConfigError as error:
            if names is not None:
                raise
            logger.warning("%s is left out: %s", name, error)
    places = {name: place_of(folder, name, base) for name in bases}
    for place in places.values():
        _refuse_to_lose(place, config)
    return {
        name: (_run_series if name in SERIES else _run_look)(config, name, own_base, places[name], formats)
        for name, own_base in bases.items()
    }


def read_finished(folder: Path) -> ExperimentConfig:
    """The recipe of an experiment that ``lhuc-asr run`` has begun.

    Raises:
        ExperimentError: The folder is not an experiment's, or has one for each of several seeds.
        ConfigError: A file that the recipe names is missing.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ExperimentError(
            f"{path}: no such file; expected the folder of an experiment: lhuc-asr run RECIPE makes one"
        )
    config = read_config(path).model_copy(update={"exp": folder})
    refuse_seeds(config, folder)
    checked_device(config.device, "device=")
    check_files(config)
    return config


def suitable_base(config: ExperimentConfig, name: str, base: str | None) -> str:
    """The pass that a series varies or a look shows, by default the recipe's first that suits it.

    Raises:
        ConfigError: The recipe has no such pass, or the given one does not suit.
    """
    return base_pass(config, base) if name in SERIES else pass_to_look_at(config, base, LOOKS[name])


def place_of(folder: Path, name: str, base: str | None) -> Path:
    """The folder of a series or a look, for a base that was given or not."""
    return folder / "benchmark" / (name if base is None else f"{name}-{base}")


def recipe_of(config: ExperimentConfig, name: str, base: str) -> ExperimentConfig:
    """The experiment's recipe with the passes and networks alone that a series or a look needs.

    Raises:
        ConfigError: A pass or network of the recipe has a name that the series needs.
    """
    if name in LOOKS:
        return with_passes(config, config.networks, config.passes if LOOKS[name].of_all else _needed(config, base))
    variants, passes = variants_of(config, name, base), _needed(config, base)
    for variant in variants:
        if variant.plan is not None:
            passes |= _needed(config, variant.name) or {variant.name: variant.plan}
    trained = {own.network: own.options for own in (variant.trained for variant in variants) if own is not None}
    return with_passes(config, config.networks | trained, passes)


def finished_points(config: ExperimentConfig, name: str, base: str, split: str) -> list[Point]:
    """The points of a series over a test set, if all of its passes are finished; else none.

    Args:
        config: The recipe of an experiment, in its folder.
        name: Name of the series.
        base: The pass that it varies.
        split: Name of the test set.
    """
    try:
        variants = variants_of(config, name, base_pass(config, base))
    except ConfigError:  # the pass is not one that a series can start from
        return []
    folder = ExperimentFolder(config.folder)
    controls = [reuse_name(variant.name, "others_mean") for variant in variants if variant.plan is not None]
    names = [*(variant.name for variant in variants), *controls]
    if not all((folder.decode(split, each) / WER_FILE).exists() for each in names):
        return []
    folds = [ExperimentFolder(fold.folder) for fold in fold_configs(config)]
    return _points(folder, folds, split, variants, first_pass(config.passes[base].network), config.seed)


def _refuse_to_lose(place: Path, config: ExperimentConfig) -> None:
    """Refuse to replace a folder in which somebody keeps files of their own."""
    figures = [f"{split}.{format}" for split in {TEST, *config.corpus.test_sets} for format in FORMATS]
    refuse_to_lose(place, [*TABLES, RECIPE_FILE, RUN_FILE, *figures])


def _run_series(config: ExperimentConfig, name: str, base: str, place: Path, formats: Sequence[str]) -> Path:
    """Make the passes of a series, their table and their figures."""
    kind, variants = SERIES[name], variants_of(config, name, base)
    logger.info("series %s: %d variants of the pass %s", name, len(variants), base)
    extended = recipe_of(config, name, base)
    with opened(extended, record=False) as folder:
        splits = make_passes(extended)
        before = first_pass(config.passes[base].network)
        folds = [ExperimentFolder(fold.folder) for fold in fold_configs(extended)]
        points = [point for split in splits for point in _points(folder, folds, split, variants, before, config.seed)]
        with _written(place, extended) as temporary:
            write_series(temporary, kind.title, kind.axis, kind.paper, points, kind.joined, formats)
    return place


def with_passes(
    config: ExperimentConfig, networks: Mapping[str, AnyNetwork], passes: Mapping[str, PassConfig]
) -> ExperimentConfig:
    """The recipe with other networks and passes; of their controls, with those that tables and figures show."""
    primary = config.primary if config.primary in passes else None
    changes = {"networks": networks, "passes": passes, "controls": ("others_mean",), "primary": primary}
    tree = {**config.model_dump(), **changes}
    return parse_config(ExperimentConfig, tree, str(config.folder / CONFIG_FILE))


def pass_to_look_at(config: ExperimentConfig, name: str | None, kind: LookKind) -> str:
    """The pass of a look: the named one, or the first of the recipe that is possible.

    Raises:
        ConfigError: The named pass is not a pass of the recipe that adapts, or the look needs amplitudes that the pass,
            or every pass, does not estimate.
    """
    if name is not None and name not in config.passes:
        raise ConfigError(f"{name!r} is not a pass of the recipe that adapts; choose from {', '.join(config.passes)}")
    possible = [known for known in config.passes if not kind.of_amplitudes or config.estimates_amplitudes(known)]
    if name is None and possible:
        return possible[0]
    if name not in possible:
        fault = "no pass of the recipe estimates" if name is None else f"{name!r} does not estimate"
        raise ConfigError(f"{fault} amplitudes; passes that do: {', '.join(possible) or 'none, add one to the recipe'}")
    return name


def _needed(config: ExperimentConfig, name: str) -> dict[str, PassConfig]:
    """A pass of the recipe, and those that it depends on; the other passes are left out."""
    plan = config.passes.get(name)
    if plan is None:
        return {}
    before = [config.source_of(plan)] if plan.combine is None else list(plan.combine.parts)
    needed: dict[str, PassConfig] = {}
    for other in before:
        needed |= _needed(config, other)
    return needed | {name: plan}


def _run_look(config: ExperimentConfig, name: str, base: str, place: Path, formats: Sequence[str]) -> Path:
    """Make the table and the figures of a look, and the pass if it is not finished."""
    plain = recipe_of(config, name, base)
    with opened(plain, record=False) as folder:
        splits, plans = make_passes(plain), passes_of(plain)
        folds = [AlignedExperiment.of(at_corpus_rate(fold)) for fold in fold_configs(plain)]
        with _written(place, plain) as temporary:
            looks = [
                Look(
                    folder=folder,
                    folds=folds,
                    split=split,
                    plan=plans[base],
                    passes=made_passes(plain, split, plans),
                    max_unaligned=plain.monophone.max_unaligned,
                    figure=temporary / f"{split}.png",
                    formats=formats,
                )
                for split in splits
            ]
            rows = [row for look in looks for row in LOOKS[name].look(look)]
            if not rows:
                tables = ", ".join(splits)
                raise ExperimentError(f"{name}: the table of {tables} would be empty; the log gives the reason")
            write_rows(temporary, rows)
    return place


@contextmanager
def _written(place: Path, config: ExperimentConfig) -> Iterator[Path]:
    """A folder for tables and figures, which takes the place of the earlier ones whole.

    ``recipe.yaml`` has the options that they were made with: the experiment may be run again with others.
    """
    with atomic_folder(place) as temporary:
        yield temporary
        write_text(temporary / RECIPE_FILE, dump_config(config))
        write_json(temporary / RUN_FILE, run_record(config.seed))


def _points(
    folder: ExperimentFolder,
    folds: Sequence[ExperimentFolder],
    split: str,
    variants: Sequence[Variant],
    before: str,
    seed: int,
) -> list[Point]:
    """Each variant compared with the unadapted network, and with its control where there is one."""

    def report(name: str) -> WerReport:
        return read_wer(folder.decode(split, name) / WER_FILE)

    points = []
    for variant in variants:
        after, others, cost = report(variant.name), None, _adaptation_cost(folds, split, variant.name)
        comparison = compare(report(before), after, np.random.default_rng(seed))
        control = reuse_name(variant.name, "others_mean")
        if variant.plan is not None and len(after.speakers) > 1:
            others = compare(report(control), after, np.random.default_rng(seed))
        points.append(
            Point.of(split, variant.name, variant.curve, variant.label, after, before, comparison, others, seed, *cost)
        )
    return points


def _adaptation_cost(folds: Sequence[ExperimentFolder], split: str, name: str) -> tuple[int | None, float | None]:
    """How many numbers of a speaker a pass keeps, and seconds of adaptation a speaker; None for a first pass."""
    files = [file for fold in folds if (file := next(fold.speakers(split, name).glob("*.safetensors"), None))]
    records = [fold.decode(split, name) / ADAPTATION_FILE for fold in folds]
    # A pass of an earlier version has no record.
    costs = [ADAPTATIONS.read(path) for path in records if path.exists()]
    sets = sum(cost.sets for cost in costs)
    numbers = number_count(files[0]) if files else None
    return numbers, sum(cost.seconds for cost in costs) / sets if sets else None
