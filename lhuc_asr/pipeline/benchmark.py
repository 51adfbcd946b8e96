"""Experiments on a finished recipe: series of passes beside its own, each with a table and a figure.

A series' passes are stages like all others, in the same folders: what is there is not made again, whoever made it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lhuc_asr.adapt.sat import SatConfig
from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.pipeline.analyses import ANALYSES, Analysis, Look
from lhuc_asr.pipeline.experiment import CONFIG_FILE, Layout, opened, run_record
from lhuc_asr.pipeline.experiments import EXPERIMENTS, Experiment, Variant, base_pass, series, unadapted
from lhuc_asr.pipeline.passes import WER_FILE, tuned_as
from lhuc_asr.pipeline.recipe import ExperimentConfig, PassConfig, first_pass
from lhuc_asr.pipeline.run import check_device, fold_layouts, make_passes
from lhuc_asr.score.series import Point, write_rows, write_series
from lhuc_asr.score.significance import compare
from lhuc_asr.score.wer import read_wer

logger = logging.getLogger(__name__)

# All experiments, by name.
KNOWN: dict[str, Experiment | Analysis] = {**EXPERIMENTS, **ANALYSES}


def run_benchmark(folder: Path, names: Sequence[str], base: str | None = None) -> dict[str, Path]:
    """Make experiments, or what is left of them.

    Args:
        folder: Of an experiment that ``lhuc-asr run`` has finished, or not: what is missing is made.
        names: Of experiments.
        base: The pass that series start from, and that is looked at; None: for each the recipe's first that fits.

    Returns:
        The folder of each, ``benchmark/<experiment>/``: ``table.jsonl``, ``table.csv``, a figure for each test split,
        and ``run.json``.

    Raises:
        ExperimentError: There is no experiment in the folder, or none of that name.
        ConfigError: The recipe has no pass to start from.
    """
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        raise ExperimentError(f"no experiment {', '.join(unknown)}; there are {', '.join(KNOWN)}")
    path = folder / CONFIG_FILE
    if not path.exists():
        raise ExperimentError(
            f"{path}: no such file; expected the folder of an experiment: lhuc-asr run RECIPE makes one"
        )
    config = load_config(ExperimentConfig, path).model_copy(update={"exp": folder})
    check_device(config)
    # Told before the first of them runs.
    starts = {name: (base_pass if name in EXPERIMENTS else looked_at)(config, base) for name in names}
    return {name: (_run_series if name in EXPERIMENTS else _look)(config, name, starts[name]) for name in names}


def _run_series(config: ExperimentConfig, name: str, base: str) -> Path:
    experiment, variants = EXPERIMENTS[name], series(config, name, base)
    logger.info("experiment %s: %d passes from %s", name, len(variants), base)
    passes: dict[str, PassConfig] = {}
    own: dict[str, SatConfig] = {}
    for known in (base, *(variant.name for variant in variants)):
        passes |= _needed(config, known)
    reference = unadapted(config, base)
    for variant in (reference, *variants):
        if variant.plan is not None:
            passes[variant.name] = variant.plan
            if variant.trained is not None:
                own[variant.plan.network] = variant.trained
    extended = ExperimentConfig.model_validate(
        {**config.model_dump(), "networks": config.networks | own, "passes": passes}
    )
    with opened(extended, record=False) as layout:
        splits = make_passes(extended, layout)
        first = first_pass(config.passes[base].network)
        against = {v.name: reference.name if tuned_as(extended, v.name) == base else first for v in variants}
        points = [point for split in splits for point in _points(layout, split, variants, against, config.seed)]
        folder = layout.folder / "benchmark" / name
        write_series(folder, experiment.title, experiment.axis, experiment.paper, points)
        write_json(folder / "run.json", run_record(extended.seed))
    return folder


def looked_at(config: ExperimentConfig, name: str | None) -> str:
    """The pass that is looked at: the one that is named, or the recipe's first.

    Raises:
        ConfigError: It is none of the recipe's passes that adapt.
    """
    if name is not None and name not in config.passes:
        raise ConfigError(f"{name!r} is no pass of the recipe that adapts; there are {', '.join(config.passes)}")
    return name or next(iter(config.passes))


def _needed(config: ExperimentConfig, name: str) -> dict[str, PassConfig]:
    """A pass and those that it adapts on; the recipe's others may not be there, and need not be made."""
    plan = config.passes.get(name)
    return {} if plan is None else _needed(config, config.source_of(plan)) | {name: plan}


def _look(config: ExperimentConfig, name: str, base: str) -> Path:
    """An experiment that makes no pass but the one that it looks at."""
    plain = ExperimentConfig.model_validate({**config.model_dump(), "passes": _needed(config, base)})
    with opened(plain, record=False) as layout:
        splits = make_passes(plain, layout)
        folder = layout.folder / "benchmark" / name
        looks = [Look(plain, layout, fold_layouts(plain, layout), s, base, folder / f"{s}.png") for s in splits]
        rows = [row for at in looks for row in ANALYSES[name].look(at)]
        if not rows:
            raise ExperimentError(f"{name}: nothing to look at in {', '.join(splits)}; the log says why")
        write_rows(folder, rows)
        write_json(folder / "run.json", run_record(plain.seed))
    return folder


def _points(
    layout: Layout, split: str, variants: Sequence[Variant], against: Mapping[str, str], seed: int
) -> list[Point]:
    """Each pass beside the one without adaptation that was searched as it was."""
    found = []
    for variant in variants:
        names = against[variant.name], variant.name
        before, after = (read_wer(layout.decode(split, name) / WER_FILE) for name in names)
        comparison = compare(before, after, np.random.default_rng(seed))
        found.append(Point.of(split, variant.name, variant.curve, variant.label, after, names[0], comparison, seed))
    return found
