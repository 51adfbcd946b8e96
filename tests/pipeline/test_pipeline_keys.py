"""The key of a stage follows from its work: every option that the work can read is in the key."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lhuc_asr.base.atomic import write_json
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.runlog import Metrics
from lhuc_asr.base.stage_key import PartOf, stage_key
from lhuc_asr.base.stages import Stages
from lhuc_asr.base.watched_files import WatchedFiles
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import Experiment
from lhuc_asr.pipeline.run import make_passes

# Every kind of stage, with options of every kind.
RECIPE: dict[str, Any] = {
    "name": "keys",
    "corpus": {"kind": "synthetic"},
    "noise": {"dir": "noise", "classes": ["rain"]},
    "lexicon": {"path": "words.txt"},
    "lm": {"arpa": "lm.arpa"},
    "features": {"sample_rate": 16000},
    "alignment_features": {"sample_rate": 16000, "delta_order": 1},
    "aligners": ["mono", "tri", "lda_mllt", "fmllr_sat"],
    "realignments": 1,
    "shards": {"store": "frames"},
    "networks": {
        "sat": {"start": "si"},
        "random": {},
        "moved": {"features": "fmllr_sat"},
        "voices": {"ivector": {}},
        "delayed": {"shape": {"kind": "tdnn"}},
        "smbr": {"sequence": {"acoustic_scale": 0.1}},
        # Its lattices need a search that is tuned with a pass that needs a preparation.
        "sharp": {"start": "moved", "sequence": {}},
    },
    "first_passes": ["mono", "tri", "lda_mllt"],
    # Each output is of one pass, since outputs of all passes would be most of the stages; VALID_CHANGES has those.
    "outputs": {
        "risk": {"words": "least_risk", "passes": ["si"]},
        "large": {"lm": {"arpa": "large.arpa"}, "passes": ["moments"]},
    },
    "passes": {
        "lhuc": {},
        "moments": {"method": {"kind": "moments"}},
        "bayes": {"method": {"kind": "bayes"}, "network": "sat"},
        "subspace": {"method": {"kind": "subspace"}, "network": "random"},
        "predicted": {"method": {"kind": "predicted"}, "data": {"environments": ["clean"]}},
        "lattice": {"targets": {"kind": "lattice", "lm_order": 1}},
        "wrong": {"targets": {"kind": "reference", "corrupted": 0.1}, "data": {"seconds": 5}},
        "twice": {"targets": {"source": "moments"}},
        "gaussian": {"method": {"kind": "fmllr"}, "network": "fmllr_sat"},
        "basis": {"method": {"kind": "basis_fmllr"}, "network": "moved", "targets": {"source": "si"}},
        "transformed": {"method": {"kind": "fmllr"}, "network": "moved", "targets": {"source": "gaussian"}},
        "stacked": {"method": {"kind": "lhuc", "on": "transformed"}, "network": "moved"},
        "ivector": {"method": {"kind": "ivector"}, "network": "voices"},
        "matched": {"method": {"kind": "moments", "on": "ivector"}, "network": "voices"},
        "delayed": {"network": "delayed"},
        "smbr": {"network": "smbr"},
        "sharp": {"method": {"kind": "fmllr"}, "network": "sharp", "targets": {"source": "gaussian"}},
        "both": {"combine": {"speaker": "lhuc", "environment": "moments", "alpha": 0.5}},
    },
}
# Options on which no stage depends.
WITHOUT_EFFECT = {"name", "exp", "workers", "device", "executor", "ray", "seeds", "primary", "shards.store"}
# Options whose values are names of passes or networks, or that make other stages; VALID_CHANGES has some of each.
NAMES = (
    *("network", "source", "combine", "combine.speaker", "combine.environment", "start", "like", "folds", "controls"),
    *(".on", ".method", ".features", ".lm", "aligners", "first_passes"),
    *(".passes", ".passes.0"),
)
VALID_CHANGES: list[dict[str, Any]] = [
    {"corpus": {"kind": "librispeech", "dir": "L", "train": ["t"], "test": ["u", "v"]}},
    {"corpus": {"kind": "librispeech", "dir": "L", "train": ["t"], "test": ["v", "u"]}},
    {"realignments": 0},
    {"shards": None},
    {"controls": ["others_mean", "without_rows"]},
    {"realignments": 2},
    {"networks": RECIPE["networks"] | {"sat": {}}},
    {"networks": RECIPE["networks"] | {"sat": {"like": "moved"}}},
    {"first_passes": ["mono"]},
    {"networks": RECIPE["networks"] | {"moved": {"features": "lda_mllt"}}, "aligners": ["mono", "lda_mllt"]}
    | {"first_passes": [], "passes": {"moments": {"method": {"kind": "moments"}, "network": "moved"}}},
    {"aligners": ["mono", "tri", "fmllr_sat"], "first_passes": ["tri"]},
    {"passes": RECIPE["passes"] | {"stacked": {"method": {"kind": "lhuc"}, "network": "moved"}}},
    {"lm": {"text": ["text.txt"]}},
    {"lm": {}},
    {"lm": {}, "outputs": {"larger": {"lm": {"order": 3}}}},
    {"outputs": {"risk": {"words": "least_risk"}, "again": {"words": "least_risk"}}},
    {"outputs": {"risk": {"words": "least_risk", "passes": ["si", "lhuc"]}}},
    {"lm": {"arpa": "other.arpa"}},
    {"passes": RECIPE["passes"] | {"lhuc": {"network": "sat"}, "both": {}}},
    {"passes": RECIPE["passes"] | {"twice": {"targets": {"source": "lhuc"}}}},
    {"passes": RECIPE["passes"] | {"both": {"combine": {"speaker": "moments", "environment": "lhuc"}}}},
]

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


class NotedStages(Stages):
    """Stages that are noted and not run: the key of each, its options, and whatever else its work is given."""

    noted: NotedStages

    def __init__(self, folder: Path, metrics: Metrics) -> None:
        super().__init__(folder, metrics)
        self.options: dict[str, Any] = {}
        self.given: dict[str, tuple[Any, ...]] = {}
        NotedStages.noted = self

    def run(
        self,
        name: str,
        work: partial,
        *,
        options: Any,
        after: Any = (),
        inputs: Any = None,
        outputs: Any = (),
        together: bool = False,
    ) -> None:
        files = None if inputs is None else inputs.contents()
        # The files are not made here, so that a part of a stage stands for their names.
        before = [str(each) if isinstance(each, PartOf) else self._keys[each] for each in after]
        self._keys[name] = stage_key(name, options, before, files)
        self._files[name] = WatchedFiles(Path(), self._experiment, ())
        self.options[name] = options
        self.given[name] = (work.func, *(readable(argument) for argument in work.args), options)


def readable(argument: Any) -> Any:
    """The part of an argument that a result can depend on, without files, places and numbers of processes."""
    if isinstance(argument, Experiment):
        return replace(argument, folder=ExperimentFolder(Path()), name="", processes=1, device="cpu")
    if isinstance(argument, dict) and all(isinstance(path, Path) for path in argument):  # folders of graphs
        return len(argument)
    if isinstance(argument, partial):  # the stage's own key
        return argument.func.__name__
    return [] if isinstance(argument, list) and isinstance(argument[0], Path) else argument


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ExperimentConfig], NotedStages]:
    """The stages of a recipe."""
    monkeypatch.setattr("lhuc_asr.pipeline.run.Stages", NotedStages)
    # There are no files to look into: no lexicon that may list tags.
    for name in ("language.own_tags", "corpus_stage.own_tags"):
        monkeypatch.setattr(f"lhuc_asr.pipeline.{name}", lambda *_: None)
    # Nor manifests, which tell whether a split has others for a control.
    monkeypatch.setattr("lhuc_asr.pipeline.order.possible_passes", lambda _, __, passes: list(passes))
    monkeypatch.setattr("lhuc_asr.pipeline.feature_stages.recordings_of", manifest_of)
    folder = ExperimentFolder(tmp_path)
    write_json(folder.sample_rate, {"48000": {"recordings": 1, "names": ["a.wav"]}})

    def stages_of(config: ExperimentConfig) -> NotedStages:
        make_passes(config.model_copy(update={"exp": tmp_path}), model=True)
        return NotedStages.noted

    return stages_of


def manifest_of(experiment: Experiment, split: str, corpus_read: bool) -> PartOf:
    return PartOf("corpus", (experiment.folder.manifest(split),))


def recipe(**changes: Any) -> ExperimentConfig:
    return parse_config(ExperimentConfig, RECIPE | changes, "test")


def changes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Each value in a tree of options, by its path, and the tree with another in its place."""
    if isinstance(value, StrictModel) or is_dataclass(value):
        if isinstance(value, StrictModel):
            # The kind of a DNN, which can have no other value, is not dumped.
            names = [name for name, field in type(value).model_fields.items() if not field.exclude]
        else:
            names = [field.name for field in fields(value)]
        for name in names:
            for path, other in changes_of(getattr(value, name)):
                changed = {name: other}
                tree = value.model_copy(update=changed) if isinstance(value, StrictModel) else replace(value, **changed)
                yield f"{name}.{path}".rstrip("."), tree
    elif isinstance(value, dict):
        for name, inner in value.items():
            for path, other in changes_of(inner):
                yield f"{name}.{path}".rstrip("."), value | {name: other}
    elif isinstance(value, tuple):
        yield "", (*value, *(value[-1:] or (Path("new"),)))
        for number, inner in enumerate(value):
            for path, other in changes_of(inner):
                yield f"{number}.{path}".rstrip("."), (*value[:number], other, *value[number + 1 :])
    else:
        yield "", changed_leaf(value)


def changed_leaf(value: Any) -> Any:
    match value:
        case None:
            return 7
        case bool():
            return not value
        case int() | float():
            return value + 1
        case "fbank" | "mfcc":  # checked where the features' sample rate is known
            return "fbank" if value == "mfcc" else "mfcc"
        case "speaker":  # of whose features are normalised together; compared with one name
            return "environment"
        case "best" | "least_risk":  # checked where an output is resolved
            return "best" if value == "least_risk" else "least_risk"
        case str():
            return f"{value}x"
        case Path():
            return value / "x"
    raise TypeError(value)


def test_every_value_of_every_stages_options_is_in_its_key(noted) -> None:
    stages = noted(recipe())
    classes = {type(options).__name__ for options in stages.options.values()}
    assert classes == {
        *("CorpusOptions", "LexiconOptions", "LanguageModelOptions", "FeatureOptions", "MonophoneOptions", "float"),
        "TiedOptions",
        *(
            "RealignmentOptions",
            "ShardOptions",
            "VoicesOptions",
            "LatticesOptions",
            "SequenceOptions",
            "NetworkOptions",
            "Preparation",
            "Pass",
            "ModelOptions",
            "tuple",  # a pass with each of its outputs
            "str",  # a test set, in a stage that has no other option
        ),
    }
    for name, options in stages.options.items():
        key, count = stage_key(name, options, []), 0
        for path, changed in changes_of(options):
            assert stage_key(name, changed, []) != key, f"{name}: {path}"
            count += 1
        assert count > (10 if name == "corpus" else 0)


def test_a_new_test_set_makes_nothing_again_but_the_corpus_and_what_is_of_all_test_sets(noted) -> None:
    """Training takes days; a researcher adds a test set after it."""
    corpus = {"kind": "librispeech", "dir": "L", "train": ["t"], "test": ["u"]}
    before, after = noted(recipe(corpus=corpus)), noted(recipe(corpus=corpus | {"test": ["u", "v"]}))
    assert before._keys.keys() < after._keys.keys()
    assert all(name.endswith("of v") or " over v" in name for name in after._keys.keys() - before._keys.keys())
    changed = {name for name in before._keys if before.key(name) != after.key(name)}
    assert changed == {"corpus", "model", *(name for name in before._keys if name.startswith("perplexity"))}


def test_a_pass_by_gaussians_makes_no_features_again(noted) -> None:
    passes = {"lhuc": {}}
    fewer = {"networks": {}, "first_passes": [], "passes": passes, "outputs": {}}
    more = fewer | {"passes": passes | {"gaussian": {"method": {"kind": "fmllr"}, "network": "fmllr_sat"}}}
    before, after = noted(recipe(**fewer)), noted(recipe(**more))
    assert {"mfcc of test", "lda_mllt of test"} <= after._keys.keys() - before._keys.keys()
    assert all(before.key(name) == after.key(name) for name in before._keys)


def test_every_option_of_the_recipe_that_work_is_given_is_in_its_key(noted) -> None:
    """The options of the recipe are changed one at a time; the arguments of all work are compared with the keys."""
    config = recipe()
    before = noted(config)
    changes = [
        (path, tree)
        for path, tree in changes_of(config)
        # A pass that combines has no other options: they are refused.
        if not path.endswith(NAMES)
        and not path.startswith(("aligners.", "first_passes."))
        and (not path.startswith("passes.both.") or path == "passes.both.combine.alpha")
    ]
    changes += [(str(change), recipe(**change)) for change in VALID_CHANGES]
    assert len(changes) > 200
    for path, changed in changes:
        after = noted(changed)
        for name in before.given.keys() & after.given.keys():
            if before.given[name] != after.given[name]:
                assert before.key(name) != after.key(name), f"{path}: the key of {name!r} does not depend on it"
        same = before._keys == after._keys
        assert same == (path in WITHOUT_EFFECT), f"{path}: {'changes nothing' if same else 'has an effect'}"


def test_work_is_a_function_that_is_given_no_configuration() -> None:
    folder = Path("lhuc_asr/pipeline")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.py"))]
    functions = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "stages.run"
    ]
    assert len(calls) >= 11
    for call in calls:
        work = call.args[1]
        assert isinstance(work, ast.Call), ast.unparse(work)
        assert ast.unparse(work.func) == "partial", ast.unparse(work)
        assert not any("config" in ast.unparse(argument) for argument in work.args), ast.unparse(work)
        arguments = functions[ast.unparse(work.args[0])].args.args
        assert not any("ExperimentConfig" in ast.unparse(each.annotation) for each in arguments)


def test_work_that_reads_the_configuration_is_caught(tmp_path: Path, run) -> None:
    """The guard of conftest.py is on in every run of the tiny recipe, with every kind of pass."""
    stages = Stages(tmp_path, Metrics(tmp_path / "metrics.jsonl"))
    config = recipe()
    with pytest.raises(AssertionError, match="a stage's work reads the configuration: seed"):
        stages.run("x", lambda _: hash(config.seed), options=None)
    assert config.seed == 1
