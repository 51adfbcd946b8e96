"""A comparison of ranking models on one corpus: each is trained with every seed, or fitted, and measured on the test.

    <folder>/data/                    train, valid and test, where the corpus is made by the recipe
    <folder>/vocabularies.json        fitted to the training split
    <folder>/unseen.json              the share of categories that the vocabularies do not have, in the other splits
    <folder>/<model>/                 folders of ``model_stage.py``
    <folder>/by_user/<model>/         influence of each user on the test figures, a file for each seed
    <folder>/tensorboard/             event files of --tensorboard
    <folder>/stages/                  a record of each finished stage
    <folder>/results.json             all figures and comparisons; ``comparison.py`` makes the tables

The corpus, the vocabularies, each model and its influences are stages (``base/stages.py``): a finished stage is skipped
while its options and the content of its data are the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator

from lhuc_asr.base.atomic import atomic_folder, write_json
from lhuc_asr.base.config import Seed, StrictModel
from lhuc_asr.base.destinations import refuse_to_lose
from lhuc_asr.base.errors import ExamplesError
from lhuc_asr.base.experiment_folder import METRICS_FILE, TENSORBOARD, ExperimentName
from lhuc_asr.base.extras import extra
from lhuc_asr.base.followed_stages import FollowedStages
from lhuc_asr.base.local_path import LocalPath
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stages import Stages
from lhuc_asr.ppnet.comparison import PrimaryConfig, Results
from lhuc_asr.ppnet.examples import BLOCK
from lhuc_asr.ppnet.model import ModelConfig, RankingConfig, empty_model
from lhuc_asr.ppnet.model_stage import (
    EVALUATION_BATCH,
    RANKER_FOLDER,
    RankerData,
    RankerOptions,
    model_stages,
    stage_of,
)
from lhuc_asr.ppnet.movielens import MovieLensConfig, write_movielens
from lhuc_asr.ppnet.ranker_folder import load_ranker
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.run_folders import refuse_to_replace
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.synthetic import SCALES_FILE, SPLITS, SyntheticUsersConfig, write_synthetic
from lhuc_asr.ppnet.table_files import Contents, listed
from lhuc_asr.ppnet.trainer import RankerTrainerConfig, scored
from lhuc_asr.ppnet.unseen import UnseenReport, report_unseen
from lhuc_asr.ppnet.user_influence import UserInfluence
from lhuc_asr.ppnet.vocabulary import Vocabularies

with extra("rank"):
    import pyarrow as pa

logger = logging.getLogger(__name__)

BY_USER = "by_user"
# Names in the experiment's folder that a model cannot have.
TAKEN = ("data", "stages", TENSORBOARD, BY_USER)


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
    """A comparison of ranking models.

    Attributes:
        name: Name of the experiment.
        exp: Folder of the experiment; None for ``exp/<name>``.
        data: The corpus.
        examples: Schema of the corpus's tables.
        models: Configurations of the models, by their names in the tables.
        baseline: Name of the model that the others are compared with, seed by seed.
        rival: Name of another model that they are compared with, one without a network; None for no other.
        primary: The primary comparison, with the baseline and with the rival; None where no comparison is more
            important than the others.
        trainer: Options of training, the same for all networks.
        seeds: Seeds of the initial weights and of the order of the training data.
    """

    name: ExperimentName
    exp: LocalPath | None = None
    data: Annotated[FilesConfig | MovieLensConfig | SyntheticUsersConfig, Field(discriminator="kind")]
    examples: Schema
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=100)], ModelConfig] = Field(min_length=1)
    baseline: str
    rival: str | None = None
    primary: PrimaryConfig | None = None
    trainer: RankerTrainerConfig = RankerTrainerConfig()
    seeds: tuple[Seed, ...] = Field((1, 2, 3, 4, 5), min_length=1)

    def options(self, name: str) -> list[RankerOptions]:
        """Everything that a model depends on, for each seed; once where nothing is random."""
        model = self.models[name]
        seeds: tuple[int | None, ...] = self.seeds if isinstance(model, RankingConfig) else (None,)
        return [RankerOptions(self.examples, model, self.trainer, seed) for seed in seeds]

    @property
    def folder(self) -> Path:
        """Folder of the experiment."""
        return self.exp or Path("exp") / self.name

    @model_validator(mode="after")
    def _what_is_compared_is_there(self) -> Self:
        named = {"baseline": self.baseline, "rival": self.rival, "primary.model": self.primary and self.primary.model}
        for key, name in named.items():
            if name is not None and name not in self.models:
                raise ValueError(f"{key}: {name!r} is not one of the models: {', '.join(self.models)}")
        if self.rival == self.baseline:
            raise ValueError(f"rival: {self.rival!r} is the baseline; name another model, or leave it out")
        if self.primary is not None and self.primary.model == self.baseline:
            raise ValueError(f"primary.model: {self.baseline!r} is the baseline; name a model to compare with it")
        if self.primary is not None and self.primary.task not in self.examples.labels:
            raise ValueError(
                f"primary.task: {self.primary.task!r} is not one of the labels: {', '.join(self.examples.labels)}"
            )
        return self

    @model_validator(mode="after")
    def _runs_have_places_of_their_own(self) -> Self:
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
    first = ranks().is_first
    stages = Stages(folder, Metrics(folder / METRICS_FILE)) if first else FollowedStages(folder)
    paths = _corpus_stage(stages, config.data, folder / "data")
    # Checked before hours of training: every file has the schema's columns, and the networks the fields they need.
    readers = {split: Reader(places, config.examples) for split, places in paths.items()}
    contents = {split: Contents.of(file.path for file in reader.files) for split, reader in readers.items()}
    _warn_of_shared_files(contents)
    path = folder / "vocabularies.json"
    vocabularies = _vocabularies_stage(stages, config.examples, contents, readers["train"], path)
    data = RankerData(contents, vocabularies)
    for model in config.models.values():
        empty_model(model, config.examples, vocabularies.rows)
    _unseen_stage(stages, config.examples, data, folder / "unseen.json")
    runs = {name: model_stages(stages, name, config.options(name), data, folder, device) for name in config.models}
    influences = {
        name: [_influence_stage(stages, config, name, seed, data, folder, device) for seed in runs[name]]
        for name in config.models
    }
    results = Results(config.baseline, runs, influences, config.rival, config.primary)
    comparisons = [comparison.content() for comparison in results.comparisons()]
    if first:
        write_json(folder / "results.json", {"baseline": config.baseline, "models": runs, "comparisons": comparisons})
    return results


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
    refuse_to_replace(folder, record)
    refuse_to_lose(folder, [record.name, SCALES_FILE, *(f"{split}.parquet" for split in SPLITS)])
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


def _unseen_stage(stages: Stages, schema: Schema, data: RankerData, path: Path) -> None:
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


def _influence_stage(
    stages: Stages,
    config: RecommenderConfig,
    name: str,
    seed: int | str,
    data: RankerData,
    folder: Path,
    device: torch.device,
) -> UserInfluence:
    """The influence of each user on the figures of the test split."""
    stage, path = stage_of(name, seed), folder / BY_USER / name / f"{seed}.safetensors"

    def score(schema: Schema) -> None:
        model = load_ranker(folder / name / str(seed) / RANKER_FOLDER).network.to(device)
        examples = data.examples(schema)["test"].batches(EVALUATION_BATCH)
        UserInfluence.of(*scored(model, examples, device), schema.labels).save(path)
        data.contents["test"].check_unchanged()

    stages.run(f"{stage}, by user", score, options=config.examples, after=[stage], outputs=[path])
    return UserInfluence.load(path, config.examples.labels)
