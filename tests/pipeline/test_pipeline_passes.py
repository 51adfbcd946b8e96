"""Every kind of pass over the tiny experiment: targets, methods, data, networks."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.plan import others_in, passes_of

PASSES = """{
  lhuc: {},
  lattice: {targets: {kind: lattice, power: 2.0}, own_search: true},
  confident: {targets: {kind: confidence, min_confidence: 0.5, mean_one: true}},
  stable: {targets: {kind: agreement, power: 2.0}},
  twice: {targets: {source: lhuc}},
  soft_twice: {targets: {source: lhuc, kind: lattice}},
  oracle: {targets: {kind: reference}},
  misled: {targets: {kind: reference, corrupted: 0.5}},
  unigram: {targets: {lm_order: 1}},
  soft_unigram: {targets: {lm_order: 1, kind: lattice}},
  one_shot: {data: {mode: one_shot}},
  second: {data: {seconds: 1.0}},
  half_second: {data: {seconds: 0.5}},
  online: {data: {mode: online}},
  incremental: {data: {mode: incremental}},
  recent: {data: {mode: incremental}, method: {kind: moments, half_life: 2.0}},
  moments: {method: {kind: moments}},
  bayes: {method: {kind: bayes}},
  subspace: {method: {kind: subspace, dimensions: 2}},
  predicted: {method: {kind: predicted, dimensions: 2}},
  sat_lhuc: {network: sat},
}"""
PREPARED = ("moments", "bayes", "subspace", "predicted")


def test_every_pass_leaves_its_scores_and_speakers(copied: Path, run) -> None:
    """The networks, graphs and passes that were there before are not touched."""
    names = load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [f"passes={PASSES}"]).passes
    executed = run(copied, f"passes={PASSES}", "controls=[]")
    new = [*(name for name in names if name != "lhuc"), "sat_si", "lattice__own"]
    shared = {name.rsplit("-", 1)[0] for name in executed if name.startswith("prepare ")}
    executed = [name for name in executed if not name.startswith("prepare ")]
    assert shared == {f"prepare {name}" for name in PREPARED}
    expected = {"network sat", "language model of order 1", "perplexity of order 1", "graph of order 1"}
    passes = {f"{name} over {split}" for split in ("test", "control") for name in new}
    # A search is tuned once for a network, and for a pass that has its own.
    passes |= {f"{name} over heldout" for name in ("sat_si", "lattice", "lattice__own")}
    assert set(executed) == expected | passes
    for split in ("test", "control"):
        words = read_json(copied / "decode" / split / "si" / "wer.json")["words"]
        for name in (*names, *new):
            assert read_json(copied / "decode" / split / name / "wer.json")["words"] == words
        table = (copied / "decode" / split / "table.txt").read_text(encoding="utf-8")
        assert all(name in table for name in (*names, *new))
    assert {path.stem for path in (copied / "speakers" / "one_shot" / "test").iterdir()} == {
        "speaker-independent",
        *(f"{speaker}.{half}" for speaker in (2001, 2002) for half in (1, 2)),
    }
    own = read_json(copied / "decode" / "heldout" / "lattice__own" / "search.json")["chosen"]
    network = read_json(copied / "decode" / "heldout" / "si" / "search.json")["chosen"]
    for name, chosen in (("lattice__own", own), ("lattice", network)):
        search = read_json(copied / "decode" / "test" / name / "search.json")
        assert {key: search[key] for key in chosen} == chosen
    assert run(copied, f"passes={PASSES}", "controls=[]") == []


REFUSED = {
    "passes={si: {}}": "'si' is the name of a pass without adaptation",
    "passes={a: {targets: {source: b}}, b: {}}": "'a' adapts on 'b'; passes before it: mono_si, sat_si, si",
    "passes={a: {network: tas}}": "'a' has the network 'tas'; networks: si, sat",
    "networks={v: {ivectors: {}}}": "unknown key 'networks.v.ivectors'; did you mean 'ivector'?",
    "networks={si: {}}": "'si' is an experiment's own model",
    "networks={first1: {}}": "'first1' is an experiment's own model",
    "passes={}": "passes",
    "passes={a: {}, a__others_mean: {}}": "'a__others_mean' is the name of 'a' decoded again; choose another name",
    "primary=si": "'si' is not a pass without reference transcripts; those: lhuc",
    "passes={a: {data: {mode: incremental}, method: {kind: fdlr}}}": "of fdlr with these options do not go on",
    "passes={a: {data: {mode: incremental}, method: {kind: moments, descent: {}}}}": "of moments with these options do",
    "passes={a: {data: {mode: incremental, seconds: 9.0}}}": "mode incremental: learns from each utterance once; leave",
    "passes={a: {method: {kind: moments, half_life: 9.0}}}": "'a': half_life is only for data.mode incremental; leave",
    "passes={a: {targets: {power: 2.0}}}": "best_path targets have nothing to raise to it",
    "passes={a: {targets: {min_confidence: 0.5}}}": "best_path targets have no confidences; leave it out",
    "passes={a: {targets: {kind: lattice, mean_one: true}}}": "lattice targets are not weighted by confidences; leave",
    "passes={a: {targets: {kind: reference, lm_order: 1}}}": "reference targets do not come from a search",
    "passes={a: {targets: {corrupted: 0.1}}}": "best_path targets have errors of their own",
    "passes={a: {method: {kind: unknown}}}": "passes.a.method",
    "passes={../a: {}}": "passes",
}


def test_targets_by_another_language_model_are_those_of_its_search(copied: Path, run) -> None:
    """Speakers adapted on a unigram's targets are those of a recipe whose own language model is a unigram."""
    unigram = "targets: {lm_order: 1}"
    run(copied, "lm.order=2", f"passes={{lhuc: {{}}, unigram: {{{unigram}}}}}")
    speakers = {path.name: load_file(path) for path in (copied / "speakers" / "unigram" / "test").glob("2*")}
    search = read_json(copied / "decode" / "heldout" / "si" / "search.json")["chosen"]
    scale, penalty = search["acoustic_scale"], search["insertion_penalty"]
    bigram = {name: load_file(copied / "speakers" / "lhuc" / "test" / name) for name in speakers}
    assert any(not torch.equal(speakers[name][key], own[key]) for name, own in bigram.items() for key in own)
    only = f"tuning={{acoustic_scales: [{scale}], insertion_penalties: [{penalty}]}}"
    run(copied, "lm.order=1", only, f"search.insertion_penalty={penalty}", "passes={lhuc: {}}")
    assert len(speakers) == 2
    for name, tensors in speakers.items():
        expected = load_file(copied / "speakers" / "lhuc" / "test" / name)
        assert all(torch.equal(tensors[key], expected[key]) for key in expected)


@pytest.mark.parametrize("override", REFUSED)
def test_passes_that_cannot_be_made_are_refused_before_anything_runs(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(ExperimentConfig, Path("recipes/demo/config.yaml"), [override])
    assert REFUSED[override] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["sat_si", "mono_si"])
def test_the_first_pass_of_a_model_that_no_pass_adapts_is_made_if_another_adapts_on_its_words(source: str) -> None:
    recipe = load_config(
        ExperimentConfig, Path("recipes/demo/config.yaml"), [f"passes={{a: {{targets: {{source: {source}}}}}}}"]
    )
    plan = passes_of(recipe)
    assert plan[source].adaptation is None
    assert plan["a"].needed == (plan[source],)


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ([("ann", "car"), ("ann", "hall"), ("bob", "car")], (2, 1)),
        ([("ann", "car"), ("ann", "hall")], (1, 2)),
        ([("ann", ""), ("bob", ""), ("ann", "")], (2, 1)),
        ([], (0, 0)),
    ],
)
def test_the_speaker_with_the_fewest_environments_decides(places, found: tuple[int, int]) -> None:
    """A control of environments would end the run at a speaker who is heard in one alone."""
    assert others_in(places) == found
