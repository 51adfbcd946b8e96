"""fMLLR, and LHUC on top of it, one-shot and online, with the controls that other methods have."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lhuc_asr.base.atomic import read_json, read_json_lines

FMLLR = "method: {kind: fmllr, min_counts: {full: 100}}"
LHUC = "kind: lhuc, optimizer: adam, learning_rate: 0.1, sweeps: 2"
PASSES = f"""passes={{
  one_shot_gmm: {{network: fmllr_sat, data: {{mode: one_shot}}, {FMLLR}}},
  one_shot: {{network: fmllr, data: {{mode: one_shot}}, {FMLLR}, targets: {{source: one_shot_gmm}}}},
  one_shot_lhuc: {{
    network: fmllr, data: {{mode: one_shot}}, method: {{{LHUC}, on: one_shot}}, targets: {{source: one_shot}}
  }},
  online: {{network: fmllr, data: {{mode: online}}, {FMLLR}, targets: {{source: one_shot}}}},
  online_lhuc: {{network: fmllr, data: {{mode: online}}, method: {{{LHUC}, on: online}}, targets: {{source: online}}}}
}}"""
STACKED = {"one_shot_lhuc": "one_shot", "online_lhuc": "online"}
SETS = {
    "one_shot": {f"{speaker}.{part}" for speaker in (2001, 2002) for part in (1, 2)},
    "online": {f"{speaker}.{number}" for speaker in (2001, 2002) for number in (1, 2, 3)},
}


@pytest.fixture(scope="module")
def parted(ladder: Path, run_ladder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ladder's experiment with passes that adapt on other recordings than they decode."""
    folder = Path(shutil.copytree(ladder, tmp_path_factory.mktemp("parted") / "exp"))
    run_ladder(folder, PASSES, "controls=[others_mean, others_mean_of_both, another]", "primary=one_shot_lhuc")
    return folder


def parameters(folder: Path, name: str) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each set of a pass over the test speakers."""
    files = (folder / "speakers" / name / "test").glob("2*.safetensors")
    return {path.stem: load_file(path) for path in files}


def test_each_set_has_its_transform_and_its_amplitudes(parted: Path) -> None:
    for name, below in STACKED.items():
        transforms, both = parameters(parted, below), parameters(parted, name)
        assert transforms.keys() == both.keys() == SETS[below]
        for which, tensors in both.items():
            assert torch.equal(tensors["below.transform"], transforms[which]["transform"])


def test_a_pass_on_top_of_another_is_compared_with_it(parted: Path) -> None:
    """Otherwise what the transforms gain would be counted again as the amplitudes'."""
    rows = read_json(parted / "decode" / "test" / "comparison.json")
    controls = {"one_shot_lhuc__others_mean": "one_shot", "one_shot_lhuc__others_mean_of_both": "si"}
    for name, below in {**STACKED, "one_shot": "si", **controls}.items():
        assert rows[name]["base"] == below
        wer = [read_json(parted / "decode" / "test" / each / "wer.json")["wer"] for each in (below, name)]
        assert [rows[name]["against_base"][key] for key in ("before", "after")] == pytest.approx(wer)
    table = (parted / "decode" / "test" / "table.txt").read_text(encoding="utf-8")
    assert "change: against one_shot for one_shot_lhuc." in table
    assert "change: against si for fmllr_sat_si, fmllr_si, one_shot_gmm, one_shot, online." in table


def test_a_stack_is_also_compared_as_a_whole(parted: Path) -> None:
    """Transform and amplitudes together: with the base of the pass below, and with the others' mean of both."""
    decode = parted / "decode" / "test"
    rows = read_json(decode / "comparison.json")
    table = (decode / "table.txt").read_text(encoding="utf-8")
    for name in STACKED:
        whole = rows[name]["also_against"]
        assert list(whole) == ["si", f"{name}__others_mean_of_both"]
        for reference, row in whole.items():
            wer = [read_json(decode / each / "wer.json")["wer"] for each in (reference, name)]
            assert [row["before"], row["after"]] == pytest.approx(wer)
            assert f"test, {name}: also against {reference} " in table
    assert not any(row["also_against"] for name, row in rows.items() if name not in STACKED)


def test_the_first_utterance_online_is_not_adapted(parted: Path) -> None:
    for speaker in (2001, 2002):
        first, *later = (parameters(parted, "online_lhuc")[f"{speaker}.{number}"] for number in (1, 2, 3))
        assert torch.equal(first["below.transform"], torch.eye(16, 17, dtype=torch.float64))
        assert not any(value.any() for key, value in first.items() if key != "below.transform")
        for tensors in later:
            assert not torch.equal(tensors["below.transform"], first["below.transform"])
            assert any(value.any() for key, value in tensors.items() if key != "below.transform")


def test_controls_are_made_of_each(parted: Path) -> None:
    decode = parted / "decode" / "test"
    utterances = {utterance["id"] for utterance in read_json_lines(parted / "corpus" / "test.jsonl")}
    total = read_json(decode / "si" / "wer.json")["words"]
    for name in (*STACKED, *STACKED.values(), "one_shot_gmm"):
        for made in (name, f"{name}__others_mean", f"{name}__another"):
            assert {row["utterance"] for row in read_json_lines(decode / made / "hypotheses.jsonl")} == utterances
            assert read_json(decode / made / "wer.json")["words"] == total
    of_both = {path.name for path in decode.glob("*__others_mean_of_both")}
    assert of_both == {f"{name}__others_mean_of_both" for name in STACKED}
