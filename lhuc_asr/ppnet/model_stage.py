"""One model of a comparison as a stage: trained or fitted, measured on the validation and the test split, saved.

    <model>/<seed>/ranker/        the folder that serves; a linear model has no seed, and its folder is <model>/fitted/
    <model>/<seed>/metrics.jsonl  figures of each epoch; of a linear model, of each strength
    <model>/<seed>/result.json    figures of both splits
    <model>/<seed>.training/      the state of a training, which goes when the network stands

A network is trained beside the one that is there, which it replaces when it is whole. Training that was killed is
resumed; a fit is begun again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lhuc_asr.base.atomic import atomic_folder, read_json, write_json, write_json_lines
from lhuc_asr.base.destinations import refuse_to_lose
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import stopwatch
from lhuc_asr.base.stages import Stages
from lhuc_asr.ppnet.comparison import FITTED
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.linear import LinearConfig
from lhuc_asr.ppnet.linear_fit import chosen, fit
from lhuc_asr.ppnet.model import ModelConfig, RankingConfig, RankingNetwork, build
from lhuc_asr.ppnet.ranker_folder import FILES, RANKER_JSON, Ranker, save_ranker
from lhuc_asr.ppnet.ranking_model import RankingModel
from lhuc_asr.ppnet.run_folders import refuse_to_replace
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.table_files import Contents
from lhuc_asr.ppnet.trainer import RankerTrainerConfig, evaluate, monitored, train
from lhuc_asr.ppnet.vocabulary import Vocabularies

EVALUATION_BATCH = 8192
RESULT_FILE, METRICS_FILE, RANKER_FOLDER = "result.json", "metrics.jsonl", "ranker"
# The record of the options and data that a model's folder is made with.
BEGUN_FILE, STATE_FILE = "begun.json", "state.safetensors"
# The files in the folder of a finished model; earlier versions kept the state there.
MODEL_FILES = (
    *(BEGUN_FILE, METRICS_FILE, RESULT_FILE, STATE_FILE),
    *(f"{RANKER_FOLDER}/{name}" for name in (RANKER_JSON, *FILES)),
)


@dataclass(frozen=True)
class RankerData:
    """Files of each split, and the vocabularies of the training split.

    Attributes:
        contents: Files of each split, with their hashes.
        vocabularies: Vocabularies of the training split.
    """

    contents: Mapping[str, Contents]
    vocabularies: Vocabularies

    def examples(self, schema: Schema) -> dict[str, Examples]:
        """The examples of each split."""
        return {split: Examples(files.paths, schema, self.vocabularies) for split, files in self.contents.items()}

    def check_unchanged(self) -> None:
        """Refuse files that are not what they were when the run began.

        Raises:
            ExamplesError: A file has changed.
        """
        for files in self.contents.values():
            files.check_unchanged()


@dataclass(frozen=True)
class RankerOptions:
    """Everything that a finished model depends on, apart from the data and the vocabularies.

    Attributes:
        schema: Schema of the examples.
        model: Configuration of the model.
        trainer: Options of training; of a linear model only the monitored figure is used.
        seed: Seed of a network; None for a linear model.
    """

    schema: Schema
    model: ModelConfig
    trainer: RankerTrainerConfig
    seed: int | None


def model_stages(
    stages: Stages, name: str, options: Sequence[RankerOptions], data: RankerData, folder: Path, device: torch.device
) -> dict[int | str, dict[str, Any]]:
    """The figures of one model by seed; it is trained or fitted where that is not done yet.

    Args:
        stages: Stages of the experiment; "vocabularies" has been run.
        name: Name of the model.
        options: Options of the model, for each seed.
        data: Files and vocabularies.
        folder: Folder of the experiment.
        device: Device of training.

    Raises:
        ExperimentError: A folder has files of another origin where this run's would go.
    """
    return {
        seed: _stage(stages, name, seed, one, data, folder / name, device)
        for one in options
        for seed in [FITTED if one.seed is None else one.seed]
    }


def training_folder(place: Path) -> Path:
    """The folder in which a network is trained until it takes its place."""
    return place.with_name(f"{place.name}.training")


def stage_of(name: str, seed: int | str) -> str:
    """Name of the stage of a model with a seed, or of a fitted one."""
    return f"{name}, fitted" if seed == FITTED else f"{name}, seed {seed}"


def _stage(
    stages: Stages,
    name: str,
    seed: int | str,
    options: RankerOptions,
    data: RankerData,
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    stage, place = stage_of(name, seed), folder / str(seed)
    training = training_folder(place)

    def make_and_measure(options: RankerOptions) -> tuple[Path, ...]:
        examples = data.examples(options.schema)
        if ranks().is_first:
            refuse_to_replace(place, place / BEGUN_FILE)
            refuse_to_lose(place, MODEL_FILES)
            _begin(training, stages.key(stage))
        elif isinstance(options.model, RankingConfig):
            _train(options.model, options, data.vocabularies, examples, training, device)
        if not ranks().is_first:
            return ()
        model, result = _make_one(options, data.vocabularies, examples, training, device)
        data.check_unchanged()
        refuse_to_lose(place, MODEL_FILES)  # again, hours later
        with atomic_folder(place) as temporary:
            save_ranker(temporary / RANKER_FOLDER, Ranker(model.cpu(), data.vocabularies))
            for kept in (BEGUN_FILE, METRICS_FILE):
                shutil.copyfile(training / kept, temporary / kept)
            write_json(temporary / RESULT_FILE, result)
        return (place / RESULT_FILE,)  # so that a damaged file is made again

    outputs = [place / RESULT_FILE, place / RANKER_FOLDER / RANKER_JSON]
    stages.run(stage, make_and_measure, options=options, after=["vocabularies"], outputs=outputs, together=True)
    if ranks().is_first:
        shutil.rmtree(training, ignore_errors=True)
    result: dict[str, Any] = read_json(place / RESULT_FILE)
    return result


def _make_one(
    options: RankerOptions,
    vocabularies: Vocabularies,
    examples: Mapping[str, Examples],
    folder: Path,
    device: torch.device,
) -> tuple[RankingModel, dict[str, Any]]:
    """Train or fit a model in ``folder``, and measure it."""
    model: RankingModel
    more: dict[str, Any] = {}
    with stopwatch() as watch:
        if isinstance(options.model, RankingConfig):
            model = _train(options.model, options, vocabularies, examples, folder, device)
        else:
            model, more["strengths"] = _fit(options.model, options, vocabularies, examples, folder)
    result = {
        split: {
            label: asdict(figures)
            for label, figures in evaluate(model.to(device), examples[split].batches(EVALUATION_BATCH), device).items()
        }
        for split in ("valid", "test")
    }
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return model, result | more | {"parameters": parameters, "seconds": round(watch.seconds, 1)}


def _train(
    config: RankingConfig,
    options: RankerOptions,
    vocabularies: Vocabularies,
    examples: Mapping[str, Examples],
    folder: Path,
    device: torch.device,
) -> RankingNetwork:
    """A network, trained further from its saved state where there is one."""
    seed = options.seed or 0
    return train(
        build(config, options.schema, vocabularies.rows, torch.Generator().manual_seed(seed)),
        lambda epoch: examples["train"].batches(options.trainer.batch_size, (seed, epoch)),
        lambda: examples["valid"].batches(EVALUATION_BATCH),
        options.trainer,
        folder / STATE_FILE,
        seed,
        device,
        lambda epochs: write_json_lines(folder / METRICS_FILE, epochs) if ranks().is_first else None,
    )


def _fit(
    config: LinearConfig,
    options: RankerOptions,
    vocabularies: Vocabularies,
    examples: Mapping[str, Examples],
    folder: Path,
) -> tuple[RankingModel, dict[str, float]]:
    """A linear model, and the strengths that were chosen."""
    model, figures = fit(
        config,
        options.schema,
        vocabularies.rows,
        lambda: examples["train"].batches(EVALUATION_BATCH),
        lambda: examples["valid"].batches(EVALUATION_BATCH),
        lambda metrics: monitored(metrics, options.trainer),
    )
    write_json_lines(folder / METRICS_FILE, [{"stage": "strength", **row} for row in figures])
    return model, chosen(figures)


def _begin(folder: Path, key: str) -> None:
    """Make the folder of a training, or keep that of a training with the same options and data that was killed."""
    begun = folder / BEGUN_FILE
    if not begun.exists() or read_json(begun) != key:
        refuse_to_replace(folder, begun)
        with atomic_folder(folder) as temporary:
            write_json(temporary / begun.name, key)
    for left in folder.iterdir():  # by a run that was killed while it wrote
        if left.name not in (BEGUN_FILE, STATE_FILE, METRICS_FILE):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
