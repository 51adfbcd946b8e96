"""Fitting of linear models, with the strength that is best on the validation split, task by task.

    log odds    w_c = log (n1_c + m p) / (n0_c + m (1 - p)) - b,    b = log p / (1 - p)

n1_c and n0_c are a category's examples of label 1 and 0 in training, p the share of label 1, m the prior counts: a
category without examples has weight 0. Logistic regression is scikit-learn's, by L-BFGS; it minimises

    |w|^2 / 2 + C sum over examples of log loss                                 without a penalty on b

A fit has nothing random in it. Log odds are counted batch by batch. For logistic regression the training split is in
memory, 12 bytes for each entry of an example, and twice that while it is gathered.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.linear import LinearConfig, LinearModel, LogisticConfig, LogOddsConfig, examples_of
from lhuc_asr.ppnet.metrics import TaskMetrics
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.trainer import evaluate

with extra("rank"):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

logger = logging.getLogger(__name__)

# Of L-BFGS: the gradient of the mean loss at which it ends, and the number of steps.
TOLERANCE, STEPS = 1e-6, 2000

Batches = Callable[[], Iterable[Batch]]


def fit(
    config: LinearConfig,
    schema: Schema,
    rows: Mapping[str, int],
    training: Batches,
    validation: Batches,
    monitor: Callable[[Mapping[str, TaskMetrics]], float],
) -> tuple[LinearModel, list[dict[str, Any]]]:
    """Fit a linear model with each strength, and keep the best of each task.

    Args:
        config: Configuration of the model.
        schema: Schema of the examples.
        rows: Number of rows of each table of categories, row 0 included, by the name of the field that owns it.
        training: Makes the batches of the training split.
        validation: Makes those of the validation split.
        monitor: The validation figure of a task that strengths are compared by; larger is better.

    Returns:
        The model, and the figures of every strength and task as JSON values.

    Raises:
        ConfigError: The model does not fit the schema.
        ScoreError: The validation split does not define the monitored figure.
    """
    best = LinearModel(config, schema, rows).eval()
    values = dict.fromkeys(schema.labels, -math.inf)
    figures: list[dict[str, Any]] = []
    for strength, model in _solutions(config, LinearModel(config, schema, rows), training):
        metrics = evaluate(model, validation(), torch.device("cpu"))
        for task, label in enumerate(schema.labels):
            value = monitor({label: metrics[label]})
            figures.append({"task": label, "strength": strength, "value": value})
            if value > values[label]:
                values[label] = value
                _copy_task(model, best, task)
    for label in schema.labels:
        _report(label, [row for row in figures if row["task"] == label])
    return best, figures


def chosen(figures: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The best strength of each task, from the figures of ``fit``; of equal ones the first."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in figures:
        if row["task"] not in best or row["value"] > best[row["task"]]["value"]:
            best[row["task"]] = row
    return {task: row["strength"] for task, row in best.items()}


def _copy_task(source: LinearModel, target: LinearModel, task: int) -> None:
    with torch.no_grad():
        target.bias[task] = source.bias[task]
        for old, new in zip(target.weights, source.weights, strict=True):
            old[:, task] = new[:, task]


def _report(label: str, figures: list[dict[str, Any]]) -> None:
    """Log the chosen strength; one at the end of the candidates may not be the best that there is."""
    strengths, best = sorted(row["strength"] for row in figures), chosen(figures)[label]
    logger.info("%s: strength %g of %s", label, best, ", ".join(f"{strength:g}" for strength in strengths))
    if len(strengths) > 1 and best in (strengths[0], strengths[-1]):
        logger.warning("%s: the best strength, %g, is the last candidate on its side; give more", label, best)


def _solutions(config: LinearConfig, model: LinearModel, training: Batches) -> Iterator[tuple[float, LinearModel]]:
    """The model with each strength, in turn."""
    if isinstance(config, LogOddsConfig):
        return _log_odds(config, model, training)
    return _logistic(config, model, training)


def _log_odds(config: LogOddsConfig, model: LinearModel, training: Batches) -> Iterator[tuple[float, LinearModel]]:
    """The model with each number of prior counts."""
    share, counts = _counts(model, training)
    base = torch.logit(share)
    for prior in config.prior_counts:
        with torch.no_grad():
            model.bias.copy_(base)
            for weights, (ones, totals) in zip(model.weights, counts, strict=True):
                zeros = totals[:, None] - ones
                weights.copy_(torch.log((ones + prior * share) / (zeros + prior * (1 - share))) - base)
        yield prior, model


def _counts(model: LinearModel, training: Batches) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Share of label 1, shape (tasks,); and of each term, ones by row and task, and examples by row."""
    tasks = len(model.schema.labels)
    sizes = [len(weights) for weights in model.weights]
    counts = [(torch.zeros(n, tasks).double(), torch.zeros(n).double()) for n in sizes]
    ones, examples = torch.zeros(tasks).double(), 0
    for batch in training():
        labels = batch.labels.double()
        ones += labels.sum(0)
        examples += len(labels)
        for term, (positives, totals) in zip(model.terms, counts, strict=True):
            entries = term.entries(batch, model.rows)
            shares = entries.values.double()
            positives.index_add_(0, entries.rows, labels[entries.examples] * shares[:, None])
            totals.index_add_(0, entries.rows, shares)
    return ones / examples, counts


def _logistic(config: LogisticConfig, model: LinearModel, training: Batches) -> Iterator[tuple[float, LinearModel]]:
    """The model with each C, from the strongest penalty on: each fit starts from the one before."""
    inputs, labels = design_matrix(model, training)
    solvers = [LogisticRegression(tol=TOLERANCE, max_iter=STEPS, warm_start=True) for _ in model.schema.labels]
    widths = np.cumsum([len(weights) for weights in model.weights])[:-1]
    for c in sorted(config.c):
        for task, solver in enumerate(solvers):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # said below
                solver.set_params(C=c).fit(inputs, labels[:, task])
            if solver.n_iter_[0] >= STEPS:
                logger.warning("%s, C %g: not converged in %d steps", model.schema.labels[task], c, STEPS)
            with torch.no_grad():
                model.bias[task] = float(solver.intercept_[0])
                for weights, part in zip(model.weights, np.split(solver.coef_[0], widths), strict=True):
                    weights[:, task] = torch.from_numpy(part)
        yield c, model


def design_matrix(model: LinearModel, training: Batches) -> tuple[sparse.csr_matrix, np.ndarray]:
    """All entries of the training split, shape (N, weights of all terms), and the labels, shape (N, tasks)."""
    columns, blocks, labels = sum(len(weights) for weights in model.weights), [], []
    for batch in training():
        first, examples, places, values = 0, [], [], []
        for term, weights in zip(model.terms, model.weights, strict=True):
            entries = term.entries(batch, model.rows)
            examples.append(entries.examples)
            places.append(entries.rows + first)
            values.append(entries.values)
            first += len(weights)
        where = (torch.cat(examples).numpy(), torch.cat(places).numpy())
        shape = (examples_of(batch), columns)
        blocks.append(sparse.csr_matrix((torch.cat(values).double().numpy(), where), shape=shape))
        labels.append(batch.labels.numpy())
    return sparse.vstack(blocks, format="csr"), np.concatenate(labels)
