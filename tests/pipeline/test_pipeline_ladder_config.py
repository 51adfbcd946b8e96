"""Recipes with a ladder of aligners: what fits together, in which order passes come, and errors about the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError, LhucError
from lhuc_asr.pipeline.aligners import NetworkAligner, aligners
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.export import ModelOptions
from lhuc_asr.pipeline.plan import heldout_passes, networks_of, nobodys_vectors, passes_of
from lhuc_asr.pipeline.resolved_pass import Adaptation
from lhuc_asr.pipeline.run import run_recipe
from lhuc_asr.pipeline.rungs import rungs

FMLLR, BOUND, IVECTOR = {"kind": "fmllr"}, {"kind": "reference"}, {"kind": "ivector"}
LADDER: dict[str, Any] = {
    "name": "ladder",
    "corpus": {"kind": "synthetic"},
    "aligners": ["mono", "tri", "lda_mllt", "fmllr_sat"],
    "networks": {"moved": {"features": "fmllr_sat"}},
    "passes": {
        "gaussian": {"network": "fmllr_sat", "method": FMLLR},
        "fmllr": {"network": "moved", "method": FMLLR, "targets": {"source": "gaussian"}},
        "stacked": {"network": "moved", "method": {"kind": "lhuc", "on": "fmllr"}, "targets": {"source": "fmllr"}},
    },
}
PASSES = LADDER["passes"]


def recipe(**changes: Any) -> ExperimentConfig:
    return parse_config(ExperimentConfig, LADDER | changes, "config.yaml")


# Methods that learn from the training speakers by the network's activations.
LEARNED = ("moments", "batch_statistics", "bayes", "subspace", "predicted")
# Passes, each on another.
VECTORS = (("a", None), ("b", "a"))


def with_pass(**options: Any) -> dict[str, Any]:
    return {"passes": PASSES | {"new": options}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aligners": ["mono", "lda_mllt", "tri"]}, r"aligners .*: expected mono, then any of .* in this order"),
        ({"aligners": ["tri"]}, "expected mono, then any of"),
        ({"aligners": ["mono", "mono"]}, "expected mono, then any of"),
        ({"aligners": ["mono", "tri", "lda_mllt"]}, "networks: 'moved' needs the rung fmllr_sat; add it to aligners"),
        ({"networks": {"moved": {"features": "tri"}}}, "moved"),
        ({"networks": {"tri": {}}}, "'tri' is an experiment's own model; choose another name"),
        ({"networks": {"moved": {"start": "other"}}}, "'moved' starts from 'other'; .* one of si"),
        ({"networks": {"moved": {"like": "si"}}}, "'moved' is like 'si'; .* of its own .there is none."),
        (
            {"networks": {"moved": {"features": None}}},
            "networks.moved: this network is si; give it features of a rung, ivector: {}, or",
        ),
        (
            {"networks": {"s": {"sequence": {}, "shape": {"kind": "tdnn"}}}},
            "networks.s: sequence: the network goes on from another, whose shape it has; give shape to a network",
        ),
        (
            {"networks": {"s": {"sequence": {}, "lattice": {"beam": 6}, "word_lattice": {"beam": 8}}}},
            "networks.s: word_lattice.beam 8 is wider than lattice.beam 6",
        ),
        (
            {"networks": {"s": {"sequence": {"boost": 0.5}}}},
            "networks.s.sequence: boost: only mmi has one, not smbr",
        ),
        (
            {"networks": {"v": {"ivector": {}}}}
            | {"passes": {name: {"network": "v", "method": {"kind": "ivector", "on": on}} for name, on in VECTORS}},
            "'b' is by ivector on ivector; a speaker has one vector",
        ),
        (
            {"networks": {"v": {"sequence": {}}, "w": {"start": "v", "sequence": {}}}},
            "'w' starts from 'v'; .* one of si",
        ),
        (with_pass(method={"kind": "ivector"}), "'new' is by ivector, but the network 'si' does not take vectors"),
        ({"networks": {"moved": {"like": "a", "start": "b"}}}, "start has the features of 'b' already; leave out like"),
        ({"first_passes": ["tree"]}, "first_passes: tree: no such model; models: si, moved, mono, tri"),
        (with_pass(network="fmllr_sat"), "'new' adapts the Gaussians of 'fmllr_sat' by lhuc; use fmllr"),
        (with_pass(network="tri", method=FMLLR), "'new' adapts 'tri' by fmllr, .* last rung, fmllr_sat, .*; give it"),
        (with_pass(method=FMLLR), "'new' adapts 'si' by fmllr, .*; give it network: fmllr_sat, or one of networks"),
        (
            {"aligners": ["mono"], "networks": {}, "passes": {"new": {"method": FMLLR}}},
            "'new' adapts 'si' by fmllr, .* last rung, mono",
        ),
        (
            with_pass(network="moved", method={"kind": "lhuc", "on": "stacked"}),
            "'new' is on 'stacked', which is not an earlier pass that transforms features; put one",
        ),
        (
            with_pass(network="moved", method={"kind": "fmllr", "min_counts": {"block": 200}}),
            "'new': 40 features cannot be cut into 3 equal blocks; give blocks a number that divides 40",
        ),
        (
            {"fmllr_sat": {"fmllr": {"min_counts": {"full": 500, "block": 100}, "blocks": 7}}},
            "fmllr_sat.fmllr: 40 features cannot be cut into 7 equal blocks",
        ),
        (with_pass(network="moved", method={"kind": "lhuc", "on": "nobody"}), "'new' is on 'nobody', which is not"),
        (
            {"passes": {"stacked": PASSES["stacked"] | {"targets": {}}} | {"fmllr": PASSES["fmllr"] | {"targets": {}}}},
            "'stacked' is on 'fmllr', which is not an earlier pass that transforms features",
        ),
        (
            with_pass(network="moved", method={"kind": "lhuc", "on": "gaussian"}),
            "'new' is on 'gaussian'; give both the same network and data",
        ),
        (
            with_pass(network="moved", method={"kind": "lhuc", "on": "fmllr"}, data={"seconds": 5}),
            "'new' is on 'fmllr'; give both the same network and data",
        ),
        (with_pass(network="moved", method={"kind": "vtln"}), "'new' is by vtln, which needs .* of kind fbank with"),
        (with_pass(method={"kind": "vtln"}) | {"features": {"delta_order": 2}}, "'new' is by vtln, which needs"),
        (
            {
                "passes": {"warped": {"method": {"kind": "vtln"}}, "two": {"method": {"kind": "lhuc", "on": "warped"}}}
                | {"three": {"method": {"kind": "lhuc", "on": "two"}}}
            },
            "'three' is on 'two', which is not an earlier pass that transforms features; put one before it",
        ),
        (
            {
                "passes": {"a": {"method": {"kind": "fdlr"}}, "b": {"method": {"kind": "fdlr", "on": "a"}}}
                | {"c": {"method": {"kind": "lhuc", "on": "b"}}}
            },
            "'c' is on 'b', which is itself on another pass; a stack has two methods",
        ),
        (with_pass(network="moved", method=FMLLR | {"on": "fmllr"}), "'new' is by fmllr on fmllr; leave out on, and"),
        (
            with_pass(targets={"source": "mono_si"}) | {"first_passes": ["mono"]},
            "'new' has targets of 'mono_si', whose pdfs are those of the rung mono; give it a source with those of fml",
        ),
        (with_pass(network="moved", method=FMLLR | {"min_counts": {"full": 0}}), "min_counts.*greater than 0"),
        (
            with_pass(network="moved", combine={"speaker": "stacked", "environment": "stacked"}),
            "does not estimate ampl",
        ),
        ({"fmllr_sat": {"tree": {"leaves": 0}}}, "fmllr_sat.*leaves"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        recipe(**changes)
    assert "\n" not in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_realignments_and_references_may_fail_as_often_as_the_last_rung() -> None:
    config = recipe(fmllr_sat={"max_unaligned": 0.25}, realignments=1, passes=PASSES | {"bound": {"targets": BOUND}})
    *_, realigned = aligners(config)
    assert isinstance(realigned, NetworkAligner)
    assert realigned.options.max_unaligned == 0.25
    assert passes_of(config)["bound"].adaptation.max_unaligned == 0.25
    flat = recipe(aligners=["mono"], networks={}, passes={"lhuc": {}}, monophone={"max_unaligned": 0.5})
    assert flat.max_unaligned == 0.5


def test_another_first_pass_trains_no_rung_again() -> None:
    one = {"aligners": ["mono", "tri", "lda_mllt"], "networks": {}, "passes": {"lhuc": {}}}
    plain, decoded = (rungs(recipe(**one, first_passes=first)) for first in ([], ["tri"]))
    assert [each.options for each in plain] == [each.options for each in decoded]


def test_a_network_on_moved_features_is_searched_as_its_pass_by_fmllr() -> None:
    plan = passes_of(recipe())
    assert {name for name, each in plan.items() if each.tuned} == {"si", "fmllr_sat_si", "gaussian", "fmllr"}
    for name in ("moved_si", "stacked", "stacked__others_mean", "fmllr__others_mean"):
        assert plan[name].searched_as == "fmllr"
    assert plan["gaussian"].searched_as == "gaussian"
    assert plan["gaussian__others_mean"].searched_as == "gaussian"
    assert plan["fmllr_sat_si"].searched_as == "fmllr_sat_si"


@pytest.mark.parametrize(
    "passes",
    [
        {"fmllr": {"network": "moved", "method": FMLLR}},
        {"before": {"network": "moved"}, "fmllr": PASSES["fmllr"] | {"targets": {"source": "before"}}},
        {"fmllr": PASSES["fmllr"] | {"targets": {}}, "later": PASSES["fmllr"] | {"targets": {"source": "si"}}},
        PASSES,
    ],
)
def test_a_search_is_tuned_before_any_pass_that_uses_it(passes: dict[str, Any]) -> None:
    """Over the held-out speakers: a pass whose targets need the network's own search cannot tune it."""
    tuned: set[str] = set()
    for plan in heldout_passes(passes_of(recipe(passes=passes))):
        assert plan.tuned or plan.searched_as in tuned, plan.name
        tuned |= {plan.name} if plan.tuned else set()


def test_a_network_is_trained_after_the_one_that_it_starts_from() -> None:
    networks = {"sat": {"start": "moved"}, "random": {}, "moved": {"features": "fmllr_sat"}}
    passes = {"lhuc": {"network": "sat"}, "other": {"network": "random"}}
    names = networks_of(recipe(networks=networks, passes=passes))
    assert names == ["si", "moved", "sat", "sat__without_rows", "random"]


def test_the_control_without_rows_is_on_transforms_of_its_own() -> None:
    networks = LADDER["networks"] | {"sat": {"start": "moved"}}
    passes = {
        "gaussian": PASSES["gaussian"],
        "fmllr": PASSES["fmllr"] | {"network": "sat"},
        "stacked": PASSES["stacked"] | {"network": "sat"},
    }
    plan = passes_of(recipe(networks=networks, passes=passes))
    for name, below in (("stacked", "fmllr"), ("stacked__without_rows", "fmllr__without_rows")):
        adaptation = plan[name].adaptation
        assert isinstance(adaptation, Adaptation)
        assert adaptation.on is plan[below]
        assert plan[name].network == plan[below].network
    assert plan["stacked__without_rows"].network == "sat__without_rows"


NOBODY = "passes: {!r} adapts network {} with the vector of nobody; "


@pytest.mark.parametrize(
    ("passes", "warned"),
    [
        ({"ivector": {"method": IVECTOR}, "lhuc": {"method": {"kind": "lhuc", "on": "ivector"}}}, {}),
        ({"fdlr": {"method": {"kind": "fdlr"}}, "ivector": {"method": IVECTOR | {"on": "fdlr"}}}, {}),
        ({"lhuc": {"network": "si"}}, {}),
        (
            {"ivector": {"method": IVECTOR}, "lhuc": {}},
            {"lhuc": "put on: ivector into its method to adapt with the speaker's own"},
        ),
        (
            {"lhuc": {}, "bias": {"method": {"kind": "speaker_bias"}}, "ivector": {"method": IVECTOR}},
            dict.fromkeys(("lhuc", "bias"), "put a pass by ivector before it, and on: with its name into this method"),
        ),
        (
            {"fdlr": {"method": {"kind": "fdlr"}}, "ivector": {"method": IVECTOR | {"on": "fdlr"}}}
            | {"lhuc": {"method": {"kind": "lhuc", "on": "fdlr"}}},
            {"lhuc": "a stack has two methods: put it on a pass by ivector in place of fdlr"},
        ),
    ],
    ids=str,
)
def test_a_pass_that_adapts_with_the_vector_of_nobody_is_told(passes: dict[str, Any], warned: dict[str, str]) -> None:
    config = recipe(
        aligners=["mono"],
        networks={"iv": {"ivector": {}}},
        passes={name: {"network": "iv"} | options for name, options in passes.items()},
    )
    assert nobodys_vectors(config) == [NOBODY.format(name, "iv") + remedy for name, remedy in warned.items()]


def test_fmllr_alone_leaves_the_vector_to_a_pass_on_it() -> None:
    networks, fmllr = {"both": {"features": "fmllr_sat", "ivector": {}}}, {"network": "both", "method": FMLLR}
    alone = {"gaussian": PASSES["gaussian"], "fmllr": fmllr}
    remedy = "put a pass by ivector on it to give the network the speaker's own"
    assert nobodys_vectors(recipe(networks=networks, passes=alone)) == [NOBODY.format("fmllr", "both") + remedy]
    on_it = {"ivector": {"network": "both", "method": IVECTOR | {"on": "fmllr"}, "targets": {"source": "fmllr"}}}
    assert nobodys_vectors(recipe(networks=networks, passes=alone | on_it)) == []


def test_a_run_begins_with_what_adapts_with_the_vector_of_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def first_stage(*_: object) -> None:
        raise LhucError("only asked")

    monkeypatch.setattr("lhuc_asr.pipeline.run.add_corpus_stage", first_stage)
    passes = {"lhuc": {"network": "iv"}}
    config = recipe(aligners=["mono"], networks={"iv": {"ivector": {}}}, passes=passes, exp=str(tmp_path / "exp"))
    with pytest.raises(LhucError, match="only asked"):
        run_recipe(config)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == nobodys_vectors(config)
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fmllr", "fmllr"),
        ("stacked", "fmllr"),
        ("warped", "voices_si"),
        ("vector", "vector"),
        ("on_vector", "vector"),
        ("vector_on_warped", "vector_on_warped"),
        ("both_fmllr", "both_fmllr"),
        ("vector_on_fmllr", "vector_on_fmllr"),
        ("warped_on_nothing", "si"),
    ],
)
def test_without_a_speaker_a_model_adapts_features_and_vectors_alone(name: str, expected: str) -> None:
    """A vector on a transform is estimated on any recordings, as the transform below is."""
    config = recipe(
        features={"sample_rate": 16000},
        alignment_features={"sample_rate": 16000},
        networks=LADDER["networks"] | {"voices": {"ivector": {}}, "both": {"features": "fmllr_sat", "ivector": {}}},
        passes=PASSES
        | {
            "warped": {"network": "voices", "method": {"kind": "vtln"}},
            "vector": {"network": "voices", "method": {"kind": "ivector"}},
            "on_vector": {"network": "voices", "method": {"kind": "moments", "on": "vector"}},
            "vector_on_warped": {"network": "voices", "method": {"kind": "ivector", "on": "warped"}},
            "both_fmllr": {"network": "both", "method": FMLLR, "targets": {"source": "gaussian"}},
            "vector_on_fmllr": {"network": "both", "method": {"kind": "ivector", "on": "both_fmllr"}},
            "warped_on_nothing": {"method": {"kind": "vtln"}},
        },
    )
    assert ModelOptions.of(config, name).without_speaker.name == expected


def test_a_method_on_vectors_is_prepared_with_vectors_and_no_other_is() -> None:
    """Its stage comes after that of the vectors; what is learned with and without them is in folders of their own."""
    config = recipe(
        networks=LADDER["networks"] | {"voices": {"ivector": {}}, "again": {"start": "voices"}},
        passes={
            "vector": {"network": "voices", "method": {"kind": "ivector"}},
            "plain": {"network": "voices", "method": {"kind": "moments"}},
            "warped": {"network": "voices", "method": {"kind": "vtln"}},
            "on_warped": {"network": "voices", "method": {"kind": "moments", "on": "warped"}},
            **{kind: {"network": "voices", "method": {"kind": kind, "on": "vector"}} for kind in LEARNED},
            "other": {"network": "again", "method": {"kind": "ivector"}},
            "on_other": {"network": "again", "method": {"kind": "moments", "on": "other"}},
        },
    )
    prepared = {name: plan.preparation for name, plan in passes_of(config).items() if plan.preparation is not None}
    voices = {name: preparation.voices for name, preparation in prepared.items() if "__" not in name}
    assert voices == {
        **dict.fromkeys(("plain", "warped", "on_warped")),
        **dict.fromkeys((*LEARNED, "on_other"), "voices"),
    }
    moments = prepared["moments"]
    assert moments is not None
    assert replace(moments, voices=None).name != moments.name
