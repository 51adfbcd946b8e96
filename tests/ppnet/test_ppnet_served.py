"""scoring.pt2 without this package, with its answers: served by docs/serve_ranker.py, and turned into ONNX."""

from __future__ import annotations

import ast
import csv
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.prediction import write_predictions
from lhuc_asr.ppnet.ranker_folder import Ranker, save_ranker
from lhuc_asr.ppnet.schema import Schema
from lhuc_asr.ppnet.scoring import scoring_inputs, trial_batch
from lhuc_asr.ppnet.vocabulary import Standard, Vocabularies

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = DOCS / "serve_ranker.py"
# Every kind of feature; hashed, shared with another, and with missing values.
SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "item", "kind": "id", "embedding": 4},
            {"name": "history", "kind": "sequence", "vocabulary_of": "item", "max_length": 2, "embedding": 4},
            {"name": "tags", "kind": "multi", "missing": {"value": "empty", "words": ["NA"]}},
            {"name": "age", "kind": "number", "missing": {"value": "mean", "words": ["-999"]}},
            {"name": "price", "kind": "number"},
            {"name": "shop", "kind": "category", "buckets": 5},
            {"name": "user_prior", "column": "user", "kind": "id", "group": "prior", "missing": "unseen"},
        ],
        "labels": ["click", "buy"],
        "user": "user_prior",
    }
)
VOCABULARIES = Vocabularies(
    {"item": {"a": 1, "b": 2, "7": 3}, "tags": {"x": 1, "y": 2}, "user_prior": {"u": 1, "v": 2}},
    {"shop": 5},
    {"age": Standard(30.0, 9.0), "price": Standard(2.0, 0.0)},
)
EXAMPLES: list[dict[str, Any]] = [
    {
        "item": "a",
        "history": ["b", "a", "7"],
        "tags": ["x", "y"],
        "age": 41,
        "price": 2.5,
        "shop": "corner",
        "user": "u",
    },
    {"item": 7, "history": [], "tags": "", "age": -999, "price": 2, "shop": "other", "user": "v"},
    {"item": "new", "history": "a|b", "tags": "y|NA", "age": None, "price": 1e3, "shop": "corner", "user": None},
    {"item": "b", "history": "", "tags": None, "age": -999.0, "price": "-1.5", "shop": "third", "user": "w"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker far from its neutral start."""
    network = build(RankingConfig(kind="ppnet", hidden_units=(8, 4)), SCHEMA, VOCABULARIES.rows, torch.Generator())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    folder = tmp_path_factory.mktemp("ranker") / "ranker"
    save_ranker(folder, Ranker(network.eval(), VOCABULARIES))
    return folder


@pytest.fixture(scope="module")
def post(folder: Path) -> Iterator[Callable[[Any], Any]]:
    """Sends a request to the script, which serves the folder."""
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        address = server.stdout.readline().strip()

        def send(examples: Any) -> Any:
            request = urllib.request.Request(address, json.dumps(examples).encode())
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)

        yield send
        server.terminate()


def cell(value: Any) -> str:
    """A value as a CSV file has it."""
    return "" if value is None else "|".join(value) if isinstance(value, list) else str(value)


def predicted(folder: Path, examples: list[dict[str, Any]], tmp_path: Path) -> np.ndarray:
    """What ``lhuc-asr ppnet predict`` writes, shape (B, tasks)."""
    from lhuc_asr.ppnet.ranker_folder import load_ranker

    with (tmp_path / "examples.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(examples[0])
        table.writerows([cell(value) for value in example.values()] for example in examples)
    write_predictions(load_ranker(folder), [tmp_path / "examples.csv"], tmp_path / "out.csv", torch.device("cpu"))
    return np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1, ndmin=2)


def test_the_script_answers_what_predict_writes(folder: Path, post, tmp_path: Path) -> None:
    expected = predicted(folder, EXAMPLES, tmp_path)
    assert np.ptp(expected, axis=0).min() > 0.01  # the examples differ
    answered = post(EXAMPLES)
    assert [list(answer) for answer in answered] == [["click", "buy"]] * len(EXAMPLES)
    assert np.abs(np.array([list(answer.values()) for answer in answered]) - expected).max() < 1e-5
    assert np.allclose(list(post(EXAMPLES[1:2])[0].values()), expected[1], atol=1e-5)
    assert post([]) == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"item": None}, "example 1, column 'item': is missing"),
        ({"item": 7.0}, "expected a category, text or an integer, found 7.0"),
        ({"history": ["a", ""]}, "found ''"),
        ({"history": 3}, "example 1, column 'history'"),
        ({"price": "dear"}, "example 1, column 'price'"),
        ({"price": 1e39}, "at most 1e+38"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(post, changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post([EXAMPLES[0] | changed])
    assert caught.value.code == 400
    assert complaint in json.load(caught.value)["error"]


def test_the_script_needs_torch_alone() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} - set(sys.stdlib_module_names) == {"torch"}


def test_the_page_makes_onnx_that_gives_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    [line] = re.findall(r"^```py\n(.*?)^```", (DOCS / "ppnet.md").read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scoring.pt2").write_bytes((folder / "scoring.pt2").read_bytes())
    made = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr
    session = runtime.InferenceSession("scoring.onnx")
    network = torch.export.load("scoring.pt2").module()
    for size in (1, 33):
        inputs = scoring_inputs(trial_batch(SCHEMA, VOCABULARIES.rows, size))
        given = zip(session.get_inputs(), tree_leaves(inputs), strict=True)
        [probabilities] = session.run(None, {place.name: tensor.numpy() for place, tensor in given})
        with torch.no_grad():
            assert np.abs(probabilities - network(*inputs).numpy()).max() < 1e-5
