"""A comparison of ranking networks on one corpus: each is trained with every seed and measured on the test split.

    <folder>/data/                    train, valid and test, where the corpus is made by the recipe
    <folder>/vocabularies.json        fitted to the training split
    <folder>/unseen.json              the share of categories that the vocabularies do not have, in the other splits
    <folder>/<model>/<seed>/          ranker/ (the folder that serves), metrics.jsonl, result.json
    <folder>/<model>/<seed>.training/ the state of a training, which goes when the network stands
    <folder>/stages/                  a record of each finished stage
    <folder>/results.json             all figures; ``comparison.py`` makes the tables

The corpus, the vocabularies and each trained network are stages (``base/stages.py``): a finished stage is skipped while
its options and the content of its data are the same, and the training of a network that was killed is resumed. A
network is trained beside the one that is there, which it replaces when it is whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import torch
from pydantic import Field, model_validator

from lhuc_asr.base.atomic import atomic_folder, read_json, write_json, write_json_lines
from lhuc_asr.base.config import Seed, StrictModel
from lhuc_asr.base.destinations import stranger_in
from lhuc_asr.base.errors import ExamplesError, ExperimentError
from lhuc_asr.base.local_path import LocalPath
from lhuc_asr.base.runlog import Metrics, stopwatch
from lhuc_asr.base.stages import Stages
from lhuc_asr.ppnet.comparison import Results
from lhuc_asr.ppnet.examples import BLOCK, Examples
from lhuc_asr.ppnet.model import RankingConfig, RankingNetwork, build
from lhuc_asr.ppnet.movielens import MovieLensConfig, write_movielens
from lhuc_asr.ppnet.ranker_folder import FILES, RANKER_JSON, Ranker, save_ranker
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.synthetic import SCALES_FILE, SPLITS, SyntheticUsersConfig, write_synthetic
from lhuc_asr.ppnet.table_files import Contents, listed
from lhuc_asr.ppnet.trainer import RankerTrainerConfig, evaluate, train
from lhuc_asr.ppnet.unseen import UnseenReport, report_unseen
from lhuc_asr.ppnet.vocabulary import Vocabularies

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 8192
RESULT_FILE, METRICS_FILE, RANKER_FOLDER = "result.json", "metrics.jsonl", "ranker"
# The record of the options and data that a network's folder is made with.
BEGUN_FILE, STATE_FILE = "begun.json", "state.safetensors"
# The files in the folder of a trained network; earlier versions kept the state there.
NETWORK_FILES = (
    *(BEGUN_FILE, METRICS_FILE, RESULT_FILE, STATE_FILE),
    *(f"{RANKER_FOLDER}/{name}" for name in (RANKER_JSON, *FILES)),
)
# Names in the experiment's folder that a network cannot have.
TAKEN = ("data", "stages")


class FilesConfig(StrictModel):
    """A corpus of the user's own, in CSV, TSV or Parquet files that fit the schema.

    Each path is a file, a folder, or a pattern (``table_files.py``).

    Attributes:
        kind: Name of this kind of corpus in a recipe.
        train: Paths of the training split.
        valid: Paths of the validation split, by which the best epoch is chosen.
        test: Paths of the test split.
    """

    kind: Literal["files"] = "files"
    train: tuple[LocalPath, ...] = Field(min_length=1)
    valid: tuple[LocalPath, ...] = Field(min_length=1)
    test: tuple[LocalPath, ...] = Field(min_length=1)


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
        taken = self.models.keys() & set(TAKEN)
        if taken:
            raise ValueError(f"models: {min(taken)!r} is the name of a folder of the experiment; choose another")
        return self


def run_recommender(config: RecommenderConfig, folder: Path, device: torch.device) -> Results:
    """Train and measure every network with every seed, or those that are left.

    Args:
        config: The comparison.
        folder: Folder of the experiment.
        device: Device of the networks.

    Raises:
        ConfigError: The schema lacks fields that one of the networks needs.
        ExamplesError: The corpus does not fit the schema, or a label of training is the same in every example.
        ExperimentError: ``folder`` has files of another origin where this run's would go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder, Metrics(folder / "metrics.jsonl"))
    paths = _corpus_stage(stages, config.data, folder / "data")
    # Checked before hours of training: every file has the schema's columns, and the networks the fields they need.
    readers = {split: Reader(places, config.examples) for split, places in paths.items()}
    contents = {split: Contents.of(file.path for file in reader.files) for split, reader in readers.items()}
    _warn_of_shared_files(contents)
    path = folder / "vocabularies.json"
    vocabularies = _vocabularies_stage(stages, config.examples, contents, readers["train"], path)
    data = _Data(contents, vocabularies)
    with torch.device("meta"):  # every network can be built; no numbers yet
        for model in config.models.values():
            build(model, config.examples, vocabularies.rows, torch.Generator())
    _unseen_stage(stages, config.examples, data, folder / "unseen.json")
    results = {
        name: {seed: _network_stage(stages, config, name, seed, data, folder, device) for seed in config.seeds}
        for name in config.models
    }
    write_json(folder / "results.json", {"baseline": config.baseline, "models": results})
    return Results.of(config.baseline, results)


@dataclass(frozen=True)
class _Data:
    """Files of each split, and the vocabularies of the training split."""

    contents: Mapping[str, Contents]
    vocabularies: Vocabularies

    def examples(self, schema: Schema) -> dict[str, Examples]:
        return {split: Examples(files.paths, schema, self.vocabularies) for split, files in self.contents.items()}

    def check_unchanged(self) -> None:
        for files in self.contents.values():
            files.check_unchanged()


def _corpus_stage(
    stages: Stages, data: FilesConfig | MovieLensConfig | SyntheticUsersConfig, folder: Path
) -> Mapping[str, tuple[Path, ...]]:
    """The files of each split, made in ``folder`` where the corpus has to be made first."""
    if isinstance(data, FilesConfig):
        return {"train": data.train, "valid": data.valid, "test": data.test}
    files: Mapping[str, tuple[Path, ...]] = {split: (folder / f"{split}.parquet",) for split in SPLITS}
    outputs = [path for paths in files.values() for path in paths]
    sources = Contents.of(data.paths() if isinstance(data, MovieLensConfig) else ())
    stages.run("corpus", lambda _: _make_corpus(folder, data, sources), options=(data, sources.hashes), outputs=outputs)
    return files


def _make_corpus(folder: Path, data: MovieLensConfig | SyntheticUsersConfig, sources: Contents) -> None:
    """Make the files of the splits."""
    record = folder / "corpus.json"
    _refuse_to_replace(folder, record)
    _refuse_to_lose(folder, [record.name, SCALES_FILE, *(f"{split}.parquet" for split in SPLITS)])
    with atomic_folder(folder) as temporary:
        if isinstance(data, MovieLensConfig):
            write_movielens(data, temporary)
        else:
            write_synthetic(data, temporary)
        write_json(temporary / record.name, data.model_dump(mode="json"))
        sources.check_unchanged()


def _warn_of_shared_files(contents: Mapping[str, Contents]) -> None:
    """Warn of files that are in training and in another split: its figures tell nothing of new examples."""
    for split in contents.keys() - {"train"}:
        shared = [
            path
            for path, digest in zip(contents[split].paths, contents[split].hashes, strict=True)
            if digest in contents["train"].hashes
        ]
        if shared:
            logger.warning(
                "%s: the network is trained on these files too, and its figures would be too good: %s; give others",
                split, listed(shared),
            )  # fmt: skip


def _with_both_labels(blocks: Iterable[pa.Table], labels: Iterable[str]) -> Iterator[pa.Table]:
    """The blocks of training data, checked at their end: from labels that are all equal nothing is learned."""
    values: dict[str, set[float]] = {label: set() for label in labels}
    for block in blocks:
        for label, there in values.items():
            there.update(block.column(label).unique().to_pylist())
        yield block
    for label, there in values.items():
        if len(there) == 1:
            raise ExamplesError(
                f"label {label!r}: it is {there.pop():g} in every example of training, from which nothing is learned; "
                "is it the right column? Give examples of both labels, or leave the label out"
            )


def _vocabularies_stage(
    stages: Stages, schema: Schema, contents: Mapping[str, Contents], training: Reader, path: Path
) -> Vocabularies:
    """The vocabularies of the training split; if a file of any split changes, this and all later stages run again."""

    def fit(options: tuple[Schema, Mapping[str, tuple[str, ...]]]) -> None:
        vocabularies = Vocabularies.fit(_with_both_labels(training.blocks(BLOCK), options[0].labels), options[0])
        contents["train"].check_unchanged()
        vocabularies.save(path)

    hashes = {split: files.hashes for split, files in contents.items()}
    stages.run("vocabularies", fit, options=(schema, hashes), outputs=[path])
    return Vocabularies.load(path, schema)


def _unseen_stage(stages: Stages, schema: Schema, data: _Data, path: Path) -> None:
    """Read the splits that are not trained on, for their faults and for categories that training does not have."""

    def count(schema: Schema) -> None:
        splits = {split: examples for split, examples in data.examples(schema).items() if split != "train"}
        for examples in splits.values():
            for _ in examples.batches(EVALUATION_BATCH):
                pass
        UnseenReport(splits={split: examples.coverage for split, examples in splits.items()}).save(path)

    stages.run("unseen", count, options=schema, after=["vocabularies"], outputs=[path])
    for split, coverage in UnseenReport.load(path).splits.items():
        report_unseen(coverage, schema, data.vocabularies, split)


@dataclass(frozen=True)
class RankerOptions:
    """Everything that a trained network depends on, apart from the data and the vocabularies."""

    schema: Schema
    model: RankingConfig
    trainer: RankerTrainerConfig
    seed: int


def _network_stage(
    stages: Stages, config: RecommenderConfig, name: str, seed: int, data: _Data, folder: Path, device: torch.device
) -> dict[str, Any]:
    """The figures of one network with one seed; it is trained where that is not done yet."""
    stage, place, training = f"{name}, seed {seed}", folder / name / str(seed), folder / name / f"{seed}.training"

    def train_and_measure(options: RankerOptions) -> tuple[Path, ...]:
        _refuse_to_replace(place, place / BEGUN_FILE)
        _refuse_to_lose(place, NETWORK_FILES)
        _begin(training, stages.key(stage))
        examples = data.examples(options.schema)
        network, result = _train_one(options, data.vocabularies, examples, training, device)
        data.check_unchanged()
        _refuse_to_lose(place, NETWORK_FILES)  # again, hours later
        with atomic_folder(place) as temporary:
            save_ranker(temporary / RANKER_FOLDER, Ranker(network.cpu(), data.vocabularies))
            for kept in (BEGUN_FILE, METRICS_FILE):
                shutil.copyfile(training / kept, temporary / kept)
            write_json(temporary / RESULT_FILE, result)
        return (place / RESULT_FILE,)  # so that a damaged file is made again

    stages.run(
        stage,
        train_and_measure,
        options=RankerOptions(config.examples, config.models[name], config.trainer, seed),
        after=["vocabularies"],
        outputs=[place / RESULT_FILE, place / RANKER_FOLDER / RANKER_JSON],
    )
    shutil.rmtree(training, ignore_errors=True)
    result: dict[str, Any] = read_json(place / RESULT_FILE)
    return result


def _train_one(
    options: RankerOptions,
    vocabularies: Vocabularies,
    examples: Mapping[str, Examples],
    folder: Path,
    device: torch.device,
) -> tuple[RankingNetwork, dict[str, Any]]:
    """Train a network in ``folder``, resumed from its saved state where there is one, and measure it."""
    with stopwatch() as watch:
        network = train(
            build(options.model, options.schema, vocabularies.rows, torch.Generator().manual_seed(options.seed)),
            lambda epoch: examples["train"].batches(options.trainer.batch_size, (options.seed, epoch)),
            lambda: examples["valid"].batches(EVALUATION_BATCH),
            options.trainer,
            folder / STATE_FILE,
            options.seed,
            device,
            lambda epochs: write_json_lines(folder / METRICS_FILE, epochs),
        )
    result: dict[str, Any] = {
        split: {
            label: asdict(figures)
            for label, figures in evaluate(network, examples[split].batches(EVALUATION_BATCH), device).items()
        }
        for split in ("valid", "test")
    }
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return network, result | {"parameters": parameters, "seconds": round(watch.seconds, 1)}


def _begin(folder: Path, key: str) -> None:
    """Make the folder of a training, or keep that of a training with the same options and data that was killed."""
    begun = folder / BEGUN_FILE
    if not begun.exists() or read_json(begun) != key:
        _refuse_to_replace(folder, begun)
        with atomic_folder(folder) as temporary:
            write_json(temporary / begun.name, key)
    for left in folder.iterdir():  # by a run that was killed while it wrote
        if left.name not in (BEGUN_FILE, STATE_FILE, METRICS_FILE):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _refuse_to_replace(folder: Path, record: Path) -> None:
    """Refuse to lose files that a run did not make: the folders of a run hold their record from the first."""
    if folder.exists() and not record.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: holds files that no run made; choose another folder with exp=DIR")


def _refuse_to_lose(folder: Path, known: Iterable[str]) -> None:
    """Refuse to replace a folder of a run in which somebody keeps files of their own, such as predictions."""
    if stranger := stranger_in(folder, known):
        raise ExperimentError(f"{stranger}: no run made this file, and it would be lost; move it elsewhere")
