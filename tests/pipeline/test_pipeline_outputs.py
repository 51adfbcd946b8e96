"""Outputs of passes: the words of their lattices under another language model, and those of least risk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json, read_json_lines
from lhuc_asr.base.config import load_config, parse_config
from lhuc_asr.base.errors import ConfigError, LhucError
from lhuc_asr.decode.graph import DecodingGraph
from lhuc_asr.decode.lattice import best_path
from lhuc_asr.decode.lattice_search import LatticeConfig, LatticeSearcher
from lhuc_asr.decode.minimum_risk import least_risk
from lhuc_asr.decode.outputs import LatticeOutput, Rescoring, search_words
from lhuc_asr.decode.word_lattice import WordLatticeConfig, determinized
from lhuc_asr.lang.arpa import read_arpa, write_arpa
from lhuc_asr.lang.histories import HistoryModel
from lhuc_asr.lang.history_store import read_histories
from lhuc_asr.lang.language_model import LanguageModelConfig, estimate_language_model
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.earlier_pass import scores_of, tuned_search, two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment, read_config, read_experiment
from lhuc_asr.pipeline.plan import passes_of
from lhuc_asr.pipeline.planned import plan_lines

OUTPUTS = "outputs={risk: {words: least_risk}, same: {lm: {prune: 1e-15}}, larger: {words: least_risk, lm: {order: 3}}}"
NAMES = ("risk", "same", "larger")


@pytest.fixture(scope="module")
def folder(finished: Path, run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment with outputs of each pass."""
    copy = Path(shutil.copytree(finished, tmp_path_factory.mktemp("outputs") / "exp"))
    stages = run(copy, OUTPUTS)
    made = {f"outputs of {name} over test" for name in ("si", "lhuc", "lhuc__others_mean")}
    rescored = ("rescored_same", "rescored_larger")
    models = {f"{stage} {name}" for stage in ("language model", "perplexity") for name in rescored}
    assert {stage for stage in stages if "control" not in stage} - {"model"} == made | models
    return copy


@pytest.fixture(scope="module")
def experiment(folder: Path) -> AlignedExperiment:
    return read_experiment(folder)[1]


def words_in(folder: Path, name: str) -> dict[str, str]:
    rows = read_json_lines(folder / "decode" / "test" / name / "hypotheses.jsonl")
    return {row["utterance"]: row["words"] for row in rows}


def test_the_model_of_the_graph_changes_no_words(folder: Path) -> None:
    for name in ("si", "lhuc", "lhuc__others_mean"):
        assert words_in(folder, f"{name}__same") == words_in(folder, name)


def test_the_words_are_those_of_the_lattices(folder: Path, experiment: AlignedExperiment) -> None:
    """Made step by step here, with the speakers' parameters of the pass."""
    config, _ = read_experiment(folder)
    plan = passes_of(config)["lhuc"]
    graph = DecodingGraph.load(experiment.graph("test"))
    search, loop = tuned_search(experiment, plan), two_pass(experiment, "test", plan)
    lang = folder / "lang"
    larger = lang / "rescored_larger" / "histories"
    rescorer = Rescoring(lang / "lm.arpa", larger).rescorer(graph)
    assert read_histories(larger).histories.length.max() == 3
    expected: dict[str, dict[str, str]] = {"risk": {}, "larger": {}}
    for utterance, scores in scores_of(experiment, "test", plan, loop):
        states = LatticeSearcher(graph, search, LatticeConfig()).search(utterance, scores)
        lattice = determinized(utterance, states, WordLatticeConfig())
        expected["risk"][utterance] = " ".join(least_risk(utterance, lattice, graph.words).words)
        rescored = rescorer.rescored(utterance, lattice)
        expected["larger"][utterance] = " ".join(least_risk(utterance, rescored, graph.words).words)
        [best] = search_words(graph, search, [(LatticeOutput(), None)], utterance, scores)
        assert best.cost == pytest.approx(best_path(lattice)[1])
        assert len(best.pdfs) == len(scores)
    for name, words in expected.items():
        assert words_in(folder, f"lhuc__{name}") == words


def test_an_output_is_compared_with_the_same_output_without_adaptation(folder: Path) -> None:
    rows = read_json(folder / "decode" / "test" / "comparison.json")
    for output in NAMES:
        assert rows[f"si__{output}"]["base"] == "si"
        row = rows[f"lhuc__{output}"]
        assert row["base"] == f"si__{output}"
        assert row["role"] == rows["lhuc"]["role"]
        assert rows[f"lhuc__others_mean__{output}"]["role"] == "control"
        assert row["also_against"].keys() == {"lhuc"}
        wer = [
            read_json(folder / "decode" / "test" / name / "wer.json")["wer"]
            for name in (f"lhuc__others_mean__{output}", f"lhuc__{output}", "lhuc")
        ]
        assert [row["against_others_mean"][key] for key in ("before", "after")] == pytest.approx(wer[:2])
        assert row["also_against"]["lhuc"]["before"] == pytest.approx(wer[2])


def test_outputs_share_a_search_only_where_their_lattices_are_alike(
    experiment: AlignedExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = read_experiment(experiment.folder.folder)
    plan = passes_of(config)["si"]
    graph, search = DecodingGraph.load(experiment.graph("test")), tuned_search(experiment, plan)
    narrow = LatticeOutput(word_lattice=WordLatticeConfig(beam=0.5))
    outputs = [LatticeOutput(), LatticeOutput(words="least_risk"), narrow]
    utterance, scores = next(scores_of(experiment, "test", plan, two_pass(experiment, "test", plan)))
    apart = [search_words(graph, search, [(output, None)], utterance, scores)[0] for output in outputs]
    searched: list[str] = []
    real = LatticeSearcher.search
    monkeypatch.setattr(LatticeSearcher, "search", lambda self, *args: searched.append(args[0]) or real(self, *args))
    together = search_words(graph, search, [(output, None) for output in outputs], utterance, scores)
    assert [(each.words, each.cost, each.confidences) for each in together] == [
        (each.words, each.cost, each.confidences) for each in apart
    ]
    assert searched == [utterance] * 2


def test_an_output_is_of_the_passes_that_it_names(tiny_recipe: Path) -> None:
    outputs = "{some: {words: least_risk, passes: [si, lhuc__others_mean]}, all: {words: least_risk}}"
    config = load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"outputs={outputs}"])
    made = {name for name, plan in passes_of(config).items() if plan.output is not None}
    everything = {f"{name}__all" for name in ("si", "lhuc", "lhuc__others_mean")}
    assert made == everything | {"si__some", "lhuc__others_mean__some"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": {"x": {}}}, "outputs.x: these are the words of the pass itself; give it words: least_risk, or lm"),
        ({"outputs": {"own": {"words": "least_risk"}}}, "outputs: 'own' is the name of a pass that is decoded again"),
        ({"outputs": {"x": {"words": "worst"}}}, "outputs.x.words: .*'best' or 'least_risk'"),
        (
            {"outputs": {"x": {"words": "least_risk", "passes": ["lhcu"]}}},
            "outputs: 'x' is of 'lhcu'; passes: .*si, lhuc",
        ),
        ({"outputs": {"x": {"words": "least_risk", "passes": []}}}, "outputs.x.passes: .* at least 1 item"),
        ({"outputs": {"x": {"lm": {}}}}, "outputs: the language model of 'x' is the recipe's own; give its lm another"),
        (
            {"outputs": {"x": {"lm": {"order": 3, "prune": 1e-7}}}, "lm": {"order": 3, "prune": 1e-7}},
            "outputs: the language model of 'x' is the recipe's own",
        ),
        (
            {"outputs": {"x": {"words": "least_risk", "word_lattice": {"beam": 12}}}},
            "outputs.x: word_lattice.beam 12 is wider than lattice.beam 8, .*; raise lattice.beam, or lower word",
        ),
        (
            {"outputs": {"x": {"words": "least_risk"}}, "passes": {"lhuc": {}, "lhuc__x": {}}},
            "passes: 'lhuc__x' is the name of 'lhuc' decoded again",
        ),
        (
            {"outputs": {"risk": {"words": "least_risk"}}, "passes": {"lhuc": {}, "si__risk": {}}},
            "passes: 'si__risk' is the name of 'si' decoded again",
        ),
        (
            {"outputs": {"risk": {"words": "least_risk"}}, "passes": {"lhuc": {}, "lhuc__another__risk": {}}},
            "passes: 'lhuc__another__risk' is the name of 'lhuc__another' decoded again",
        ),
        (
            {"outputs": {"risk": {"words": "least_risk"}, "another__risk": {"words": "least_risk"}}},
            "outputs: 'lhuc__another__risk' is the name of 'lhuc__another' decoded again",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(ExperimentConfig, {"name": "x", "corpus": {"kind": "synthetic"}} | changes, "config.yaml")


@pytest.fixture(scope="module")
def models(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Models of the training text, of orders 3 and 4."""
    said = [row["text"].split() for row in read_json_lines(finished / "corpus" / "train.jsonl")]
    words = read_lexicon_folder(finished / "lang").words
    folder = tmp_path_factory.mktemp("models")
    files = {order: folder / f"{order}.arpa" for order in (3, 4)}
    for order, path in files.items():
        write_arpa(path, estimate_language_model(said, words, LanguageModelConfig(order=order)))
    return files


def test_lattices_are_rescored_with_another_file_or_with_more_of_the_same(
    finished: Path, models: dict[int, Path], run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "exp"))
    large, cut, cut3 = f"{{arpa: {models[4]}}}", "{order: 2}", f"{{arpa: {models[4]}, order: 3}}"
    outputs = f"{{large: {{lm: {large}}}, cut: {{lm: {cut}}}, cut3: {{lm: {cut3}}}}}"
    recipe = f"lm.arpa={models[3]}", "lm.prune=1e-4", f"outputs={outputs}", "controls=[]"
    run(folder, *recipe)
    lang = folder / "lang"
    for name, path, order in (("large", models[4], 4), ("cut3", models[4], 3)):
        written, whole = read_histories(lang / f"rescored_{name}" / "histories"), read_arpa(path, order)
        assert sorted(written.histories.log_prob) == sorted(HistoryModel.of(whole).histories.log_prob)
    pruned = sum(len(table) for table in read_arpa(lang / "lm.arpa").tables)
    assert pruned < sum(len(table) for table in read_arpa(models[3]).tables)
    assert read_histories(lang / "rescored_cut" / "histories").histories.length.max() == 2
    assert read_config(folder / "config.yaml").outputs["large"].lm.order == 4
    # A file that is changed is read again.
    models[4].write_text(models[4].read_text().replace("\\end\\", "\n\\end\\"))
    assert {"language model rescored_large", "language model rescored_cut3"} <= set(run(folder, *recipe))


def test_what_a_given_model_cannot_be_is_refused_before_any_work(
    models: dict[int, Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    def refused(*overrides: str) -> str:
        config = load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={tmp_path / 'new'}", *overrides])
        with pytest.raises(LhucError) as error:
            plan_lines(config)
        return str(error.value)

    three = f"lm.arpa={models[3]}"
    assert "'x' asks for order 4, but" in refused(three, "outputs={x: {lm: {order: 4}}}")
    assert "is a model of order 3; lower it" in refused(f"outputs={{x: {{lm: {{arpa: {models[3]}, order: 4}}}}}}")
    for own in ("order: 3", "prune: 0", f"arpa: {models[3]}"):
        assert "the language model of 'x' is the recipe's own" in refused(three, f"outputs={{x: {{lm: {{{own}}}}}}}")
    assert "none.arpa" in refused(f"outputs={{x: {{lm: {{arpa: {tmp_path / 'none.arpa'}}}}}}}")
