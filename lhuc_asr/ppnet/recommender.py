"""Networks times seeds on one corpus, each trained, chosen on validation data and measured on the test.

    <folder>/data/                    train, valid and test, made once
    <folder>/vocabularies.json        fitted to the training part
    <folder>/<model>/<seed>/          ranker/ (what serves), metrics.jsonl, result.json
    <folder>/results.json             all figures; ``comparison.py`` makes the tables

A run that was killed goes on; what is finished is not done again while its options and its data are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from lhuc_asr.base.atomic import DamagedFileError, atomic_folder, read_json, write_json
from lhuc_asr.base.config import StrictModel
from lhuc_asr.base.errors import ExamplesError, ExperimentError
from lhuc_asr.base.runlog import Metrics, stopwatch
from lhuc_asr.ppnet.comparison import Results
from lhuc_asr.ppnet.examples import BLOCK, Examples
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.movielens import MovieLensConfig, write_movielens
from lhuc_asr.ppnet.ranker_folder import Ranker, save_ranker
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.synthetic import SyntheticConfig, write_synthetic
from lhuc_asr.ppnet.trainer import TrainerConfig, evaluate, train
from lhuc_asr.ppnet.vocabulary import Vocabularies

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 8192
SPLITS = ("train", "valid", "test")


class FilesConfig(StrictModel):
    """A corpus of one's own, in CSV or Parquet files that fit the schema.

    Attributes:
        kind: Tells this corpus from others in a recipe.
        train: Files to train on.
        valid: Files by which the best epoch is chosen.
        test: Files to measure on.
    """

    kind: Literal["files"] = "files"
    train: tuple[Path, ...] = Field(min_length=1)
    valid: tuple[Path, ...] = Field(min_length=1)
    test: tuple[Path, ...] = Field(min_length=1)


class RecommenderConfig(StrictModel):
    """A comparison of ranking networks.

    Attributes:
        name: Of the experiment; its folder is ``exp/<name>`` unless another is given.
        exp: Its folder.
        data: The corpus.
        examples: What its tables hold.
        models: Networks, by the names they have in the tables.
        baseline: The network that the others are compared with, seed by seed.
        trainer: How all of them are trained.
        seeds: Each draws a start and an order of the training data.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    exp: Path | None = None
    data: Annotated[FilesConfig | MovieLensConfig | SyntheticConfig, Field(discriminator="kind")]
    examples: Schema
    models: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], RankingConfig] = Field(min_length=1)
    baseline: str
    trainer: TrainerConfig = TrainerConfig()
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((1, 2, 3, 4, 5), min_length=1)

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.exp or Path("exp") / self.name

    @model_validator(mode="after")
    def _the_baseline_is_a_model(self) -> Self:
        if self.baseline not in self.models:
            raise ValueError(f"baseline: {self.baseline!r} is no model; there are {', '.join(self.models)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed that comes twice would count twice")
        return self


def run_recommender(config: RecommenderConfig, folder: Path, device: torch.device) -> Results:
    """Train and measure every network with every seed.

    Args:
        config: What to compare.
        folder: Where everything goes.
        device: Where the networks run.

    Raises:
        ConfigError: The schema lacks features that one of the networks needs.
        ExamplesError: The corpus is not what the schema says.
        ExperimentError: ``folder`` has files of another origin where this run's would go.
    """
    files = prepare(config, folder / "data")
    # Checked before hours of training: every file has the schema's columns, and the networks the features they need.
    readers = {split: Reader(paths, config.examples) for split, paths in files.items()}
    made_of = _hash([config.examples.model_dump(mode="json"), _fingerprint(files)])
    vocabularies = _vocabularies(folder, readers["train"], config.examples, made_of)
    with torch.device("meta"):  # every network can be made; no numbers yet
        for model in config.models.values():
            build(model, config.examples, vocabularies.rows, torch.Generator())
    results: dict[str, dict[int, Any]] = {name: {} for name in config.models}
    for name, model in config.models.items():
        for seed in config.seeds:
            key = _hash([made_of, model.model_dump(mode="json"), config.trainer.model_dump(mode="json"), seed])
            place = folder / name / str(seed)
            found = _finished(place / "result.json", key)
            if found is None:
                logger.info("%s, seed %d", name, seed)
                found = _train_one(config, model, vocabularies, files, seed, place, key, device)
            results[name][seed] = found
    write_json(folder / "results.json", {"baseline": config.baseline, "models": results})
    return Results.of(config.baseline, results)


def prepare(config: RecommenderConfig, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split, made where the corpus has to be made first.

    Args:
        config: Whose corpus it is.
        folder: Where a corpus is made.

    Raises:
        ExperimentError: There is something else.
    """
    data = config.data
    if isinstance(data, FilesConfig):
        return {"train": data.train, "valid": data.valid, "test": data.test}
    record, made_by = folder / "corpus.json", data.model_dump(mode="json")
    if not record.exists() or read_json(record) != made_by:
        logger.info("making the corpus %s", data.kind)
        _refuse_to_replace(folder, record)
        with atomic_folder(folder) as temporary:
            if isinstance(data, MovieLensConfig):
                write_movielens(data, temporary)
            else:
                write_synthetic(data, temporary)
            write_json(temporary / record.name, made_by)
    return {split: (folder / f"{split}.parquet",) for split in SPLITS}


def _vocabularies(folder: Path, reader: Reader, schema: Schema, made_of: str) -> Vocabularies:
    path, record = folder / "vocabularies.json", folder / "vocabularies.key.json"
    if not (record.exists() and path.exists() and read_json(record) == made_of):
        record.unlink(missing_ok=True)
        Vocabularies.fit(reader.blocks(BLOCK), schema).save(path)
        write_json(record, made_of)
    return Vocabularies.load(path, schema)


def _train_one(
    config: RecommenderConfig,
    model: RankingConfig,
    vocabularies: Vocabularies,
    files: dict[str, tuple[Path, ...]],
    seed: int,
    folder: Path,
    key: str,
    device: torch.device,
) -> dict[str, Any]:
    """One network with one seed; its result is written last."""
    _clear_unless_begun(folder, key)
    examples = {split: Examples(paths, config.examples, vocabularies) for split, paths in files.items()}
    metrics = Metrics(folder / "metrics.jsonl")
    state = folder / "state.safetensors"
    with stopwatch() as watch:
        network = train(
            build(model, config.examples, vocabularies.rows, torch.Generator().manual_seed(seed)),
            lambda epoch: examples["train"].batches(config.trainer.batch_size, (seed, epoch)),
            lambda: examples["valid"].batches(EVALUATION_BATCH),
            config.trainer,
            state,
            seed,
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
    save_ranker(folder / "ranker", Ranker(network.cpu(), vocabularies))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    result |= {"parameters": parameters, "seconds": round(watch.seconds, 1)}
    write_json(folder / "result.json", {"key": key, "result": result})
    state.unlink()
    return result


def _clear_unless_begun(folder: Path, key: str) -> None:
    """Start afresh, unless what was begun here has the same options."""
    begun = folder / "begun.json"
    if not begun.exists() or read_json(begun) != key:
        _refuse_to_replace(folder, begun)
        with atomic_folder(folder) as temporary:
            write_json(temporary / begun.name, key)


def _refuse_to_replace(folder: Path, record: Path) -> None:
    """Files are not to be lost that no run made: its folders hold their record from the first."""
    if folder.exists() and not record.exists() and any(folder.iterdir()):
        raise ExperimentError(f"{folder}: holds files that no run made; choose another folder with exp=DIR")


def _finished(path: Path, key: str) -> dict[str, Any] | None:
    try:
        record = read_json(path)
        return dict(record["result"]) if record["key"] == key else None
    except (OSError, DamagedFileError, KeyError, TypeError):
        return None


def _fingerprint(files: dict[str, tuple[Path, ...]]) -> list[Any]:
    """Names, sizes and times of change; contents are not read."""
    try:
        states = {split: [(str(path), path.stat()) for path in paths] for split, paths in files.items()}
    except OSError as error:
        raise ExamplesError(f"{error.filename}: cannot be read ({error.strerror})") from error
    return [[split, path, state.st_size, state.st_mtime_ns] for split, found in states.items() for path, state in found]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
