"""Series and looks on the tiny experiment: their files, the files that stay as they were, and errors."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, ExperimentError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.study.looks import LOOKS
from lhuc_asr.study.run import pass_to_look_at, run_benchmark
from lhuc_asr.study.series import SERIES, base_pass, variants_of

NOT_A_BASE = "'moments' is not a pass of the recipe that a series can start from; expected a pass with the method lhuc"


@pytest.fixture
def config() -> ExperimentConfig:
    return load_config(ExperimentConfig, Path("recipes/demo/config.yaml"))


def test_a_series_writes_tables_and_figures_and_leaves_the_recipe_as_it_was(copied: Path, executed) -> None:
    settings = (copied / "config.yaml").read_bytes()
    table = (copied / "decode" / "test" / "table.txt").read_bytes()
    before = len(executed(copied))
    folders = run_benchmark(copied, ["layers", "one_shot"])
    assert folders == {name: copied / "benchmark" / name for name in ("layers", "one_shot")}
    made = executed(copied)[before:]
    layers = load_config(ExperimentConfig, copied / "config.yaml").dnn.hidden_layers
    # All layers are what the base adapts: the last of the series is the base, which is not made again.
    names = [*(f"lhuc__bottom_{count}" for count in range(1, layers)), "lhuc"]
    new = [
        *names[:-1],
        *(f"lhuc__{mode}" for mode in ("one_shot", "online", "incremental")),
        *(f"lhuc__moments_{mode}" for mode in ("two_pass", "one_shot", "online", "incremental")),
    ]
    assert {stage.split(" over ")[0] for stage in made} == {
        *(f"{name}{kind}" for name in new for kind in ("", "__others_mean")),
        *(stage for stage in made if stage.startswith("prepare moments-")),
    }
    assert not any("heldout" in stage for stage in made)  # searched as their network
    folder = copied / "benchmark" / "layers"
    rows = list(read_json_lines(folder / "table.jsonl"))
    assert [row["name"] for row in rows if row["split"] == "test"] == names
    for row in rows:
        wer = read_json(copied / "decode" / row["split"] / row["name"] / "wer.json")
        assert (row["errors"], row["words"]) == (wer["errors"], wer["words"])
        assert row["against"] == "si"
        before = read_json(copied / "decode" / row["split"] / row["against"] / "wer.json")
        control = read_json(copied / "decode" / row["split"] / f"{row['name']}__others_mean" / "wer.json")
        if row["split"] == "test":
            assert row["over_others"] == pytest.approx((wer["errors"] - control["errors"]) / control["errors"])
            assert row["relative"] == pytest.approx((wer["errors"] - before["errors"]) / before["errors"])
    with (folder / "table.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row["name"] for row in rows]
    assert {path.stem for path in folder.glob("*.png")} == {"test", "control"}
    assert read_json(folder / "run.json")["seed"] == rows[0]["seed"] == read_json(copied / "run.json")["seed"]
    assert (copied / "config.yaml").read_bytes() == settings
    assert (copied / "decode" / "test" / "table.txt").read_bytes() == table
    assert {row["curve"] for row in read_json_lines(folders["one_shot"] / "table.jsonl")} == {"lhuc", "moments"}
    before = len(executed(copied))
    run_benchmark(copied, ["layers", "one_shot"])
    assert executed(copied)[before:] == []


def test_methods_stand_in_one_table_with_what_they_cost(copied: Path) -> None:
    folder = run_benchmark(copied, ["methods"])["methods"]
    rows = {row["label"]: row for row in read_json_lines(folder / "table.jsonl") if row["split"] == "test"}
    others = {kind for kind, options in METHODS.items() if not (options.uses_gaussians or options.needs_vectors)}
    others -= {"lhuc", "none"}
    assert rows.keys() == {"lhuc", "paper", *others}
    config = load_config(ExperimentConfig, copied / "config.yaml")
    units, features = config.dnn.hidden_units, config.features.dimension
    assert rows["lhuc"]["numbers"] == rows["paper"]["numbers"] == rows["speaker_bias"]["numbers"] == units
    assert rows["fdlr"]["numbers"] == features * (features + 1)
    assert rows["prelu"]["numbers"] == rows["batch_statistics"]["numbers"] == 2 * units
    assert rows["lhn"]["numbers"] == units * (units + 1)
    for row in rows.values():
        assert row["seconds"] > 0.0
        assert row["over_others"] is not None
    with (folder / "table.csv").open() as file:
        assert {row["label"]: int(row["numbers"]) for row in csv.DictReader(file) if row["split"] == "test"} == {
            label: row["numbers"] for label, row in rows.items()
        }


def test_methods_trust_the_words_as_far_as_the_base_does(config: ExperimentConfig) -> None:
    trusting = LhucConfig(kl_weight=0.3)
    passes = {"lhuc": config.passes["lhuc"].model_copy(update={"method": trusting})}
    variants = variants_of(config.model_copy(update={"passes": passes}), "methods", "lhuc")
    weights = {variant.label: getattr(variant.plan.method, "kl_weight", None) for variant in variants}
    assert weights.pop("paper") == 0.0
    assert {label for label, weight in weights.items() if weight is None} == {
        "moments", "bayes", "subspace", "predicted", "vtln", "batch_statistics",
    }  # fmt: skip
    assert {weight for weight in weights.values() if weight is not None} == {0.3}


def test_methods_that_a_network_cannot_have_are_left_out(config: ExperimentConfig) -> None:
    sigmoid = config.model_copy(update={"dnn": config.dnn.model_copy(update={"activation": "sigmoid"})})
    labels = {variant.label for variant in variants_of(sigmoid, "methods", "lhuc")}
    assert "lora" in labels
    assert not labels & {"prelu", "fmllr", "basis_fmllr", "none"}
    assert "vtln" in labels
    cepstra = config.model_copy(update={"features": config.features.model_copy(update={"kind": "mfcc"})})
    assert "vtln" not in {variant.label for variant in variants_of(cepstra, "methods", "lhuc")}


def test_tables_of_looks_agree_with_the_files(copied: Path, executed, caplog: pytest.LogCaptureFixture) -> None:
    before = len(executed(copied))
    folders = run_benchmark(copied, ["gains", "spread", "frames", "tsne"])
    assert executed(copied)[before:] == []
    scores = {name: read_json(copied / "decode" / "test" / name / "wer.json")["speakers"] for name in ("si", "lhuc")}
    rows = [row for row in read_json_lines(folders["gains"] / "table.jsonl") if row["split"] == "test"]
    assert {row["speaker"]: row["errors_after"] - row["errors_before"] for row in rows} == {
        speaker: scores["lhuc"][speaker]["errors"] - score["errors"] for speaker, score in scores["si"].items()
    }
    assert [row["change"] for row in rows] == sorted(row["change"] for row in rows)
    rows = [row for row in read_json_lines(folders["spread"] / "table.jsonl") if row["split"] == "test"]
    states = [load_file(path) for path in (copied / "speakers" / "lhuc" / "test").glob("2*.safetensors")]
    for number, row in enumerate(rows):
        r = torch.stack([state[f"hidden.{number}.activation"] for state in states]).double()
        assert row["deviation_log"] == pytest.approx(float(r.std(correction=0)), rel=1e-4)  # xi is exp
        assert row["deviation_between_speakers"] == pytest.approx(float(r.std(dim=0, correction=0).mean()), rel=1e-4)
    frames = [row for row in read_json_lines(folders["frames"] / "table.jsonl") if row["split"] == "test"]
    # A speaker whose sentences all have words outside the small lexicon is left out.
    assert frames
    assert all(row["wer_after"] == pytest.approx(scores["lhuc"][row["speaker"]]["wer"]) for row in frames)
    assert all(0 < row["frame_error_before"] < 1 for row in frames)
    tsne = [row for row in read_json_lines(folders["tsne"] / "table.jsonl") if row["split"] == "test"]
    assert [row["when"] for row in tsne] == ["si", "lhuc"]
    assert all(0 < row["between_speakers"] < 1 for row in tsne)
    for name in ("gains", "spread", "tsne"):
        assert {path.stem for path in folders[name].glob("*.png")} == {"test", "control"}
    # Words of the control voices are not in this small lexicon.
    assert {path.stem for path in folders["frames"].glob("*.png")} == {"test"}
    assert "control: no transcript could be aligned" in caplog.text


def test_notes_in_the_folder_of_a_look_are_not_lost(copied: Path) -> None:
    (copied / "benchmark" / "gains").mkdir(parents=True)
    notes = copied / "benchmark" / "gains" / "notes.md"
    notes.write_text("look at 2001")
    with pytest.raises(ExperimentError, match=r"notes\.md: no run made this file, and it would be lost; move it"):
        run_benchmark(copied, ["gains"])
    assert notes.read_text() == "look at 2001"
    notes.unlink()
    for _ in range(2):
        run_benchmark(copied, ["gains"])


def test_the_pass_of_a_look_need_not_be_a_base(copied: Path, run) -> None:
    run(copied, "passes={moments: {method: {kind: moments}}, lhuc: {}}")
    model = (copied / "model.json").read_bytes()
    folders = run_benchmark(copied, ["gains", "silence"])
    # The recognizer adapts as before: by the recipe's first pass.
    assert (copied / "model.json").read_bytes() == model
    assert {row["pass"] for row in read_json_lines(folders["gains"] / "table.jsonl")} == {"moments"}
    assert {row["curve"] for row in read_json_lines(folders["silence"] / "table.jsonl")} == {"lhuc"}
    with pytest.raises(
        ConfigError,
        match=NOT_A_BASE,
    ):
        run_benchmark(copied, ["gains", "silence"], base="moments")


def test_the_source_of_a_base_is_made_too(copied: Path, run, executed) -> None:
    run(copied, "passes={lhuc: {}, twice: {targets: {source: lhuc}}, other: {data: {seconds: 1}}}")
    before = len(executed(copied))
    folders = run_benchmark(copied, ["silence"], base="twice")
    rows = list(read_json_lines(folders["silence"] / "table.jsonl"))
    assert [row["label"] for row in rows[:4]] == ["silence 0", "silence 0.01", "silence 0.1", "silence 1"]
    # The base's own weight is the base.
    names = {"twice__silence_0", "twice", "twice__silence_0-1", "twice__silence_1"}
    assert {row["name"] for row in rows} == names
    assert {stage.split(" over ")[0] for stage in executed(copied)[before:]} == {
        f"{name}{kind}" for name in names - {"twice"} for kind in ("", "__others_mean")
    }


def test_an_equal_pass_of_the_recipe_is_not_made_again(copied: Path, run, executed) -> None:
    run(copied, "passes={lhuc: {}, weighted: {targets: {silence_weight: 0.1}}}")
    before = len(executed(copied))
    folders = run_benchmark(copied, ["silence"])
    rows = [row for row in read_json_lines(folders["silence"] / "table.jsonl") if row["split"] == "test"]
    assert [row["name"] for row in rows] == ["lhuc__silence_0", "lhuc", "weighted", "lhuc__silence_1"]
    made = {stage.split(" over ")[0] for stage in executed(copied)[before:]}
    assert made == {f"lhuc__silence_{n}{kind}" for n in (0, 1) for kind in ("", "__others_mean")}
    wer = read_json(copied / "decode" / "test" / "weighted" / "wer.json")
    assert rows[2]["errors"] == wer["errors"]


RECIPES = ("demo", "an4", "librispeech", "own_data")


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", SERIES)
def test_every_series_varies_its_base_and_names_each_pass(recipe: str, name: str) -> None:
    config = load_config(ExperimentConfig, Path("recipes") / recipe / "config.yaml")
    base = base_pass(config, None)
    variants = variants_of(config, name, base)
    own = {each.network: each.options for each in (variant.trained for variant in variants) if each is not None}
    estimated = [variant for variant in variants if variant.plan is not None]
    made = {variant.name: variant.plan for variant in estimated if variant.name not in config.passes}
    tree = {**config.model_dump(), "networks": config.networks | own, "passes": config.passes | made}
    checked = ExperimentConfig.model_validate(tree)
    assert {variant.name for variant in variants} <= passes_of(checked).keys()
    plans = [(checked.passes[variant.name], checked.method_of(checked.passes[variant.name])) for variant in estimated]
    assert all(one != other for n, one in enumerate(plans) for other in plans[:n])
    assert len({(variant.curve, variant.label) for variant in variants}) == len(variants)
    # A pass of the recipe is used only if it is equal, as the base is.
    assert all(variant.name.startswith(f"{base}__") for variant in estimated if variant.name in made)


@pytest.mark.parametrize("name", ["gamma", "switching"])
def test_adaptive_training_is_on_the_features_and_the_transforms_of_its_base(name: str) -> None:
    config = load_config(ExperimentConfig, Path("recipes/an4/config.yaml"))
    variants = variants_of(config, name, "fmllr_lhuc")
    own = {each.network: each.options for each in (variant.trained for variant in variants) if each is not None}
    # The recipe's network is one of them.
    assert len(own) == 3
    assert {(options.like, options.start) for options in own.values()} == {("fmllr", None)}
    assert "sat_fmllr" in own
    made = {variant.name: variant.plan for variant in variants if variant.name not in config.passes}
    passes = passes_of(
        ExperimentConfig.model_validate(
            {**config.model_dump(), "networks": config.networks | own, "passes": config.passes | made}
        )
    )
    for row_zero, adapted in zip(variants[::2], variants[1::2], strict=True):
        on, base = (passes[name].adaptation for name in (row_zero.name, adapted.name))
        assert passes[row_zero.name].network == passes[adapted.name].network in own
        assert (on.source.name, base.source.name, base.on.name) == ("fmllr_gaussians", row_zero.name, row_zero.name)


def test_series_of_two_bases_have_no_pass_in_common() -> None:
    config = load_config(ExperimentConfig, Path("recipes/an4/config.yaml"))
    one, other = (
        {v.name for name in SERIES for v in variants_of(config, name, base) if v.plan is not None}
        - config.passes.keys()
        for base in ("lhuc", "lhuc_hard")
    )
    assert one
    assert other
    assert one & other == set()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "one_shot",
            {"passes": {"lhuc": {}, "lhuc__one_shot": {"data": {"mode": "online"}}}},
            "passes: 'lhuc__one_shot' is also a pass of the series one_shot",
        ),
        (
            "gamma",
            {"networks": {"sat__frame_0-5": {"gamma": 0.2}}, "passes": {"lhuc": {}}},
            "networks: 'sat__frame_0-5' is also a network of the series gamma",
        ),
    ],
)
def test_a_name_that_the_recipe_uses_for_something_else_is_refused(
    config: ExperimentConfig, name: str, changes: dict, message: str
) -> None:
    named = ExperimentConfig.model_validate({**config.model_dump(), **changes})
    with pytest.raises(ConfigError, match=message):
        variants_of(named, name, "lhuc")


def test_the_variants_keep_the_source_of_the_base(config: ExperimentConfig) -> None:
    passes = {"lhuc": {}, "twice": {"targets": {"source": "lhuc"}}, "short": {"data": {"seconds": 10}}}
    named = ExperimentConfig.model_validate({**config.model_dump(), "passes": passes})
    assert {v.plan.targets.source for v in variants_of(named, "targets", "twice") if v.plan is not None} == {"lhuc"}
    assert "twice" in {variant.name for variant in variants_of(named, "targets", "twice")}
    # All is all, whatever the base is limited to.
    limits = {v.label: v.plan.data.seconds for v in variants_of(named, "seconds", "short") if v.curve == "short"}
    assert limits == {"5 s": 5, "10 s": 10, "20 s": 20, "30 s": 30, "60 s": 60, "all": None}
    assert all(v.plan.data.seconds is None for v in variants_of(named, "utterances", "short"))


def test_all_leaves_out_series_without_a_base(copied: Path, run, caplog: pytest.LogCaptureFixture) -> None:
    run(copied, "passes={moments: {method: {kind: moments}}, weak: {method: {kind: moments, prior_frames: 40000}}}")
    folders = run_benchmark(copied, None)
    assert folders == {name: copied / "benchmark" / name for name in ("gains", "spread", "frames", "scale", "tsne")}
    for name, folder in folders.items():
        looked_at = {row["pass"] for row in read_json_lines(folder / "table.jsonl")}
        passes = ("moments", "weak")
        controls = {"si", *passes, *(f"{each}__others_mean" for each in passes)}
        assert looked_at == (controls if name == "scale" else {"moments"})
        assert (folder / "test.png").is_file()
    assert "amplitude is left out: the recipe has no pass that a series can start from" in caplog.text
    folders = run_benchmark(copied, ["gains"], base="weak")
    assert folders == {"gains": copied / "benchmark" / "gains-weak"}
    assert {row["pass"] for row in read_json_lines(folders["gains"] / "table.jsonl")} == {"weak"}


def test_missing_names_folders_and_passes_are_errors(copied: Path, config: ExperimentConfig, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no series or look is named nonsense; choose from amplitude, "):
        run_benchmark(copied, ["nonsense"])
    with pytest.raises(ExperimentError, match="no such file; expected the folder of an experiment"):
        run_benchmark(tmp_path, ["layers"])
    with pytest.raises(
        ConfigError,
        match=NOT_A_BASE,
    ):
        base_pass(config, "moments")
    with pytest.raises(ConfigError, match="'si' is not a pass of the recipe that adapts; choose from lhuc"):
        pass_to_look_at(config, "si", LOOKS["gains"])


def test_a_table_is_replaced_whole_or_stays_and_names_its_options(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = run_benchmark(copied, ["gains"]).values()
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    assert {"table.jsonl", "table.csv", "test.png", "recipe.yaml", "run.json"} <= before.keys()
    recipe = load_config(ExperimentConfig, place / "recipe.yaml")
    assert recipe.lhuc == load_config(ExperimentConfig, copied / "config.yaml").lhuc

    def half_written(folder: Path, rows: object) -> None:
        (folder / "table.jsonl").write_text("{}\n")
        raise KeyboardInterrupt

    monkeypatch.setattr("lhuc_asr.study.run.write_rows", half_written)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(copied, ["gains"])
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
