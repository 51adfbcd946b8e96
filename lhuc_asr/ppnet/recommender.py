"""A comparison of ranking networks on one corpus: each is trained with every seed and measured on the test split.

    <folder>/data/                    train, valid and test, where the corpus is made by the recipe
    <folder>/vocabularies.json        fitted to the training split
    <folder>/<model>/<seed>/          ranker/ (the folder that serves), metrics.jsonl, result.json
    <folder>/stages/                  a record of each finished stage
    <folder>/results.json             all figures; ``comparison.py`` makes the tables

The corpus, the vocabularies and each trained network are stages (``base/stages.py``): a finished stage is skipped while
its options and its data are the same, and the training of a network that was killed is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from lhuc_asr.base.atomic import atomic_folder, read_json, write_json
from lhuc_asr.base.config import Seed, StrictModel
from lhuc_asr.base.errors import ExperimentError
from lhuc_asr.base.fingerprint import fingerprint
from lhuc_asr.base.local_path import InputFile, LocalPath
from lhuc_asr.base.runlog import Metrics, stopwatch
from lhuc_asr.base.stages import Stages
from lhuc_asr.ppnet.comparison import Results
from lhuc_asr.ppnet.examples import BLOCK, Examples
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.movielens import MovieLensConfig, write_movielens
from lhuc_asr.ppnet.ranker_folder import RANKER_JSON, Ranker, save_ranker
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.synthetic import SPLITS, SyntheticUsersConfig, write_synthetic
from lhuc_asr.ppnet.trainer import RankerTrainerConfig, evaluate, train
from lhuc_asr.ppnet.vocabulary import Vocabularies

EVALUATION_BATCH = 8192
RESULT_FILE = "result.json"


class FilesConfig(StrictModel):
    """A corpus of the user's own, in CSV or Parquet files that fit the schema.

    Attributes:
        kind: Name of this kind of corpus in a recipe.
        train: Files of the training split.
        valid: Files of the validation split, by which the best epoch is chosen.
        test: Files of the test split.
    """

    kind: Literal["files"] = "files"
    train: tuple[InputFile, ...] = Field(min_length=1)
    valid: tuple[InputFile, ...] = Field(min_length=1)
    test: tuple[InputFile, ...] = Field(min_length=1)


class RecommenderConfig(StrictModel):
    """A comparison of ranking networks.

    Attributes:
        name: Name of the experiment.
        exp: Folder of the experiment; None for ``exp/<name>``.
        data: The corpus.
        examples: Schema of the corpus's tables.
        models: Configurations of the networks, by their names in the tables.
        baseline: Name of the network that the others are compared with, seed by seed.
        trainer: Options of training, the same for all networks.
        seeds: Seeds of the initial weights and of the order of the training data.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)
    exp: LocalPath | None = None
    data: Annotated[FilesConfig | MovieLensConfig | SyntheticUsersConfig, Field(discriminator="kind")]
    examples: Schema
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=100)], RankingConfig] = Field(min_length=1)
    baseline: str
    trainer: RankerTrainerConfig = RankerTrainerConfig()
    seeds: tuple[Seed, ...] = Field((1, 2, 3, 4, 5), min_length=1)

    @property
    def folder(self) -> Path:
        """Folder of the experiment."""
        return self.exp or Path("exp") / self.name

    @model_validator(mode="after")
    def _the_baseline_is_a_model(self) -> Self:
        if self.baseline not in self.models:
            raise ValueError(f"baseline: {self.baseline!r} is not one of the models: {', '.join(self.models)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice, its results would count twice; give different seeds")
        return self


def run_recommender(config: RecommenderConfig, folder: Path, device: torch.device) -> Results:
    """Train and measure every network with every seed, or those that are left.

    Args:
        config: The comparison.
        folder: Folder of the experiment.
        device: Device of the networks.

    Raises:
        ConfigError: The schema lacks fields that one of the networks needs.
        ExamplesError: The corpus does not fit the schema.
        ExperimentError: ``folder`` has files of another origin where this run's would go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder, Metrics(folder / "metrics.jsonl"))
    files = _corpus_stage(stages, config.data, folder / "data")
    # Checked before hours of training: every file has the schema's columns, and the networks the fields they need.
    readers = {split: Reader(paths, config.examples) for split, paths in files.items()}
    vocabularies = _vocabularies_stage(stages, config.examples, files, readers["train"], folder / "vocabularies.json")
    with torch.device("meta"):  # every network can be built; no numbers yet
        for model in config.models.values():
            build(model, config.examples, vocabularies.rows, torch.Generator())
    results = {
        name: {
            seed: _network_stage(stages, config, name, seed, vocabularies, files, folder, device)
            for seed in config.seeds
        }
        for name in config.models
    }
    write_json(folder / "results.json", {"baseline": config.baseline, "models": results})
    return Results.of(config.baseline, results)


def _corpus_stage(
    stages: Stages, data: FilesConfig | MovieLensConfig | SyntheticUsersConfig, folder: Path
) -> Mapping[str, tuple[Path, ...]]:
    """The files of each split, made in ``folder`` where the corpus has to be made first."""
    if isinstance(data, FilesConfig):
        return {"train": data.train, "valid": data.valid, "test": data.test}
    files: Mapping[str, tuple[Path, ...]] = {split: (folder / f"{split}.parquet",) for split in SPLITS}
    outputs = [path for paths in files.values() for path in paths]
    stages.run("corpus", partial(_make_corpus, folder), options=data, outputs=outputs)
    return files


def _make_corpus(folder: Path, data: MovieLensConfig | SyntheticUsersConfig) -> Sequence[Path]:
    """Make the files of the splits; returns the files that they are made from."""
    record = folder / "corpus.json"
    _refuse_to_replace(folder, record)
    with atomic_folder(folder) as temporary:
        if isinstance(data, MovieLensConfig):
            write_movielens(data, temporary)
        else:
            write_synthetic(data, temporary)
        write_json(temporary / record.name, data.model_dump(mode="json"))
    return data.paths() if isinstance(data, MovieLensConfig) else ()


def _vocabularies_stage(
    stages: Stages, schema: Schema, files: Mapping[str, tuple[Path, ...]], training: Reader, path: Path
) -> Vocabularies:
    """The vocabularies of the training split; if a file of any split changes, this and all later stages run again."""
    fingerprints = {split: fingerprint(paths) for split, paths in files.items()}
    stages.run(
        "vocabularies",
        lambda options: Vocabularies.fit(training.blocks(BLOCK), options[0]).save(path),
        options=(schema, fingerprints),
        outputs=[path],
    )
    return Vocabularies.load(path, schema)


@dataclass(frozen=True)
class RankerOptions:
    """Everything that a trained network depends on, apart from the data and the vocabularies."""

    schema: Schema
    model: RankingConfig
    trainer: RankerTrainerConfig
    seed: int


def _network_stage(
    stages: Stages,
    config: RecommenderConfig,
    name: str,
    seed: int,
    vocabularies: Vocabularies,
    files: Mapping[str, tuple[Path, ...]],
    folder: Path,
    device: torch.device,
) -> dict[str, Any]:
    """The figures of one network with one seed; it is trained where that is not done yet."""
    stage, place = f"{name}, seed {seed}", folder / name / str(seed)
    state = place / "state.safetensors"

    def train_and_measure(options: RankerOptions) -> Sequence[Path]:
        _clear_unless_begun(place, stages.key(stage))
        examples = {split: Examples(paths, options.schema, vocabularies) for split, paths in files.items()}
        write_json(place / RESULT_FILE, _train_one(options, vocabularies, examples, state, device))
        return (place / RESULT_FILE,)  # so that a damaged file is made again

    stages.run(
        stage,
        train_and_measure,
        options=RankerOptions(config.examples, config.models[name], config.trainer, seed),
        after=["vocabularies"],
        outputs=[place / RESULT_FILE, place / "ranker" / RANKER_JSON],
    )
    state.unlink(missing_ok=True)
    result: dict[str, Any] = read_json(place / RESULT_FILE)
    return result


def _train_one(
    options: RankerOptions,
    vocabularies: Vocabularies,
    examples: dict[str, Examples],
    state: Path,
    device: torch.device,
) -> dict[str, Any]:
    """Train a network, resumed from its saved state where there is one, write its ranker, and measure it."""
    metrics = Metrics(state.parent / "metrics.jsonl")
    with stopwatch() as watch:
        network = train(
            build(options.model, options.schema, vocabularies.rows, torch.Generator().manual_seed(options.seed)),
            lambda epoch: examples["train"].batches(options.trainer.batch_size, (options.seed, epoch)),
            lambda: examples["valid"].batches(EVALUATION_BATCH),
            options.trainer,
            state,
            options.seed,
            device,
            lambda figures: metrics.write("epoch", **figures),
        )
    result: dict[str, Any] = {
        split: {
            label: asdict(figures)
            for label, figures in evaluate(network, examples[split].batches(EVALUATION_BATCH), device).items()
        }
        for split in ("valid", "test")
    }
    save_ranker(state.parent / "ranker", Ranker(network.cpu(), vocabularies))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return result | {"parameters": parameters, "seconds": round(watch.seconds, 1)}


def _clear_unless_begun(folder: Path, key: str) -> None:
    """Empty the folder, unless the run that began in it has the same options and data."""
    begun = folder / "begun.json"
    if not begun.exists() or read_json(begun) != key:
        _refuse_to_replace(folder, begun)
        with atomic_folder(folder) as temporary:
            write_json(temporary / begun.name, key)


def _refuse_to_replace(folder: Path, record: Path) -> None:
    """Refuse to lose files that a run did not make: the folders of a run hold their record from the first."""
    if folder.exists() and not record.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: holds files that no run made; choose another folder with exp=DIR")
