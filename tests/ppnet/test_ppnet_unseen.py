"""Ids that the vocabulary does not have: counted, shown with what it has, and warned about in every verb."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.cli.main import app
from lhuc_asr.ppnet.examples import Examples
from lhuc_asr.ppnet.model import RankingConfig, build
from lhuc_asr.ppnet.ranker_folder import Ranker, save_ranker
from lhuc_asr.ppnet.reader import Reader
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.unseen import Coverage, UnseenReport
from lhuc_asr.ppnet.vocabulary import Vocabularies

# The command line sends the package's log to standard error.
pytestmark = pytest.mark.usefixtures("package_log")

SCHEMA = Schema.model_validate(
    {
        "features": [
            {"name": "item", "kind": "id"},
            {"name": "tags", "kind": "multi"},
            {"name": "user", "kind": "id", "group": "prior", "missing": "unseen"},
            {"name": "place", "kind": "category", "buckets": 9},
        ],
        "labels": ["click"],
        "user": "user",
    }
)
VOCABULARIES = Vocabularies(
    {"item": {"a": 1, "b": 2}, "tags": {"x": 1, "y": 2}, "user": {"5": 1, "25": 2, "Ann": 3}}, {"place": 9}, {}
)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rankers") / "one"
    config = RankingConfig(kind="simple", hidden_units=(4,))
    network = build(config, SCHEMA, VOCABULARIES.rows, torch.Generator().manual_seed(0))
    save_ranker(folder, Ranker(network.eval(), VOCABULARIES))
    return folder


def table(path: Path, users: list[str], tags: str = "x|y", item: str = "a") -> Path:
    lines = ["item,tags,user,place,click"]
    lines += [f'{item},"{tags}",{user},here,{number % 2}' for number, user in enumerate(users)]
    path.write_text("\n".join(lines) + "\n")
    return path


def coverage(path: Path) -> dict[str, Coverage]:
    examples = Examples([path], SCHEMA, VOCABULARIES)
    list(examples.batches(2))
    list(examples.batches(2))  # each pass counts anew
    return examples.coverage


def test_unseen_and_missing_categories_are_counted(tmp_path: Path) -> None:
    counts = coverage(table(tmp_path / "a.csv", ["5", "6", "7", "NA", "25", "6"], "x|z|zz"))
    assert counts["user"] == Coverage(categories=5, missing=1, unseen=3, examples=("6", "7"))
    assert counts["tags"] == Coverage(categories=18, unseen=12, examples=("z", "zz"))
    assert counts["item"] == Coverage(categories=6)
    assert counts["place"] == Coverage(categories=6, unseen=None)


@pytest.mark.parametrize(
    ("users", "hint"),
    [
        (["25.0", "5.0"], "is '25.0' the '25' of training? write it so"),
        ([" 5", " 25"], "is ' 5' the '5' of training?"),
        (["005", "025"], "is '005' the '5' of training?"),
        (["'5'", "'25'"], "is \"'5'\" the '5' of training?"),
        (["ANN", "ann"], "is 'ANN' the 'Ann' of training?"),
        (["u5", "u25"], "to the network these users are unknown"),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_file_whose_users_are_all_unseen_is_warned_about(
    users: list[str], hint: str, verb: str, ranker: Path, tmp_path: Path
) -> None:
    path = table(tmp_path / "a.csv", users)
    out = ["-o", str(tmp_path / "out.csv")] if verb == "predict" else []
    result = CliRunner().invoke(app, ["ppnet", verb, str(ranker), str(path), *out])
    assert result.exit_code == 0
    assert f"INFO '{path}': not in the vocabulary: item 0.0%, tags 0.0%, user 100.0%, place not known" in result.stderr
    (warning,) = (line for line in result.stderr.splitlines() if "WARNING" in line)
    assert f"'{path}': feature 'user': 2 of 2 categories of column 'user' are not in the vocabulary" in warning
    assert f"such as {users[0]!r}; it has '5', '25', 'Ann'" in warning
    assert hint in warning


def test_a_wrong_separator_is_warned_about(ranker: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    examples = Examples([table(tmp_path / "a.csv", ["5", "25"], "x, y")], SCHEMA, VOCABULARIES)
    list(examples.batches(9))
    with caplog.at_level(logging.WARNING):
        examples.report_unseen("test")
    (record,) = caplog.records
    assert record.message == (
        "test: feature 'tags': 2 of 2 categories of column 'tags' are not in the vocabulary, such as 'x, y'; "
        "it has 'x', 'y'; is '|' the separator of these files?"
    )


def test_a_few_unseen_categories_are_no_reason_to_warn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    examples = Examples([table(tmp_path / "a.csv", ["5", "25", "25", "new"])], SCHEMA, VOCABULARIES)
    list(examples.batches(9))
    with caplog.at_level(logging.INFO):
        examples.report_unseen("test")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "user 25.0%" in caplog.text


def test_whole_numbers_of_any_type_are_the_users_of_training(tmp_path: Path) -> None:
    """As pandas writes them: with one user missing they are floating-point numbers."""
    path = tmp_path / "a.parquet"
    columns = {"item": ["a", "b"], "tags": ["x", "y"], "place": ["here", "there"], "click": [0, 1]}
    for users in (pa.array([25.0, 5.0]), pa.array([25, 5], pa.int8()), pa.array([25, 5], pa.uint64())):
        pq.write_table(pa.table(columns | {"user": users}), path)
        assert coverage(path)["user"] == Coverage(categories=2)


@pytest.mark.parametrize("users", [["25.0", "5.0"], [" 5", " 25"], ["005", "025"], ["u5", "u25"]])
def test_hashed_users_that_are_written_in_another_way_are_warned_about(
    users: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each would get the gates of another user, whose bucket it falls into."""
    hashed = SCHEMA.model_copy(update={"features": (FieldConfig(name="user", kind="id", buckets=9),)})
    train = table(tmp_path / "train.csv", [str(user) for user in range(50)])
    Vocabularies.fit(Reader([train], hashed).blocks(7), hashed).save(tmp_path / "vocabularies.json")
    vocabularies = Vocabularies.load(tmp_path / "vocabularies.json", hashed)
    assert vocabularies.forms == {"user": ("0",)}
    for file, warns in ((train, False), (table(tmp_path / "test.csv", users), True)):
        caplog.clear()
        examples = Examples([file], hashed, vocabularies)
        list(examples.batches(9))
        examples.report_unseen("test")
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == warns
    assert (
        f"2 of 2 categories of column 'user' are written in another way than in training, such as {users[0]!r}"
        in (warnings[0])
    )


def test_free_text_has_no_forms(tmp_path: Path) -> None:
    hashed = SCHEMA.model_copy(update={"features": (FieldConfig(name="user", kind="id", buckets=9),)})
    path = table(tmp_path / "a.csv", ["-" * number + "x" for number in range(1, 1100)])
    vocabularies = Vocabularies.fit(Reader([path], hashed).blocks(100), hashed)
    assert vocabularies.forms == {}


def test_an_empty_vocabulary_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rare = SCHEMA.model_copy(update={"features": (FieldConfig(name="user", kind="id", min_count=9),)})
    examples = Examples([table(tmp_path / "a.csv", ["5"])], rare, Vocabularies({"user": {}}, {}, {}))
    list(examples.batches(9))
    examples.report_unseen("valid")
    assert "it is empty (min_count is too high)" in caplog.text


def test_a_report_is_read_back_and_another_file_is_refused(tmp_path: Path) -> None:
    report = UnseenReport(splits={"test": {"user": Coverage(categories=3, unseen=None)}})
    report.save(tmp_path / "unseen.json")
    assert UnseenReport.load(tmp_path / "unseen.json") == report
    (tmp_path / "unseen.json").write_text('{"splits": {"test": []}}')
    with pytest.raises(ConfigError, match=r"unseen\.json: splits\.test"):
        UnseenReport.load(tmp_path / "unseen.json")
