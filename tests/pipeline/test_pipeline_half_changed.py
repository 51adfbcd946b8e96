"""An experiment whose options changed half-way: one whole model, the old or the new one, or one clear error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.errors import ExperimentError, LhucError
from lhuc_asr.base.stages import Stages
from lhuc_asr.pipeline.export import export
from lhuc_asr.recognizer.model_folder import ModelDescription, read_model

Run = Callable[..., list[str]]

REFUSED = r"the stage '[^']+' is not finished, was run with other options .*; finish the experiment with lhuc-asr"

OF_FEATURES = REFUSED.replace("[^']+", "features of train")


class Killed(BaseException):
    """The process ends here."""


def killed_in(stage: int, run: Run, folder: Path, *overrides: str) -> bool:
    """Run, and kill the run when a stage has written its files and not its record; False where it ended before.

    Args:
        stage: Number of the stage among those that are not skipped, from 0.
    """
    real, begun = Stages.run, []

    def noted(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        def then_killed(options: object) -> object:
            paths = list(work(options) or ())
            begun.append(name)
            if len(begun) > stage:
                raise Killed
            return paths

        real(self, name, then_killed, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "run", noted)
        try:
            run(folder, *overrides)
        except Killed:
            return True
    return False


def described(read: Callable[[], ModelDescription]) -> ModelDescription | None:
    """A model's description without the places of its files; None where the folder is refused in one line."""
    try:
        return read().model_copy(update={"files": {}, "experiment": "", "made_by": ""})
    except ExperimentError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert "lhuc-asr run" in refusal
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        ("features.kind=mfcc", "features.cepstra=20"),
        ("lm.order=1",),
        ("tuning.acoustic_scales=[0.3]", "heldout_speakers=2"),
        ("passes={lhuc: {method: {kind: moments}}}", "trainer.schedule.max_epochs=1"),
    ],
    ids=lambda change: change[0].split("=")[0],
)
def test_a_run_that_is_killed_in_any_stage_leaves_a_whole_model_or_none(
    change: tuple[str, ...], finished: Path, copied: Path, tmp_path: Path, run: Run
) -> None:
    old = described(lambda: read_model(finished)[0])
    seen: list[tuple[ModelDescription | None, ModelDescription | None]] = []
    running = True
    while running:
        running = killed_in(1, run, copied, *change)
        exported = described(lambda: export(copied, tmp_path / "out"))
        if exported is not None:
            assert exported == described(lambda: read_model(tmp_path / "out")[0])
        seen.append((exported, described(lambda: read_model(copied)[0])))
    new = seen[-1][0]
    assert new is not None
    assert new == seen[-1][1] != old
    for exported, opened in seen[:-1]:
        assert exported in (None, new)
        assert opened in (None, old, new)
    assert seen[0][0] is None
    # Back to the options of before: all that differs is made again, and nothing else is left.
    killed_in(1, run, copied, *change, "seed=5")
    run(copied)
    assert described(lambda: export(copied, tmp_path / "out")) == old


def test_an_export_says_what_to_do(finished: Path, copied: Path, tmp_path: Path, run: Run) -> None:
    killed_in(0, run, copied, "features.kind=mfcc")
    with pytest.raises(ExperimentError, match=f"^{copied}: {OF_FEATURES} run$"):
        export(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert read_model(copied)[0] == read_model(finished)[0]  # the old model, all files of which stand
    (copied / "am" / "si" / "model.safetensors").write_bytes(b"of the new options")
    with pytest.raises(ExperimentError, match=r"model\.safetensors: not the file that was saved; .* lhuc-asr run$"):
        read_model(copied)


@pytest.mark.parametrize("option", ["heldout_speakers=2", "max_skipped=0.2", "corpus.voices.seed=4", "seed=9"])
def test_options_that_are_written_down_and_not_run_are_noticed(
    option: str, copied: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "run", killed)
        with pytest.raises(Killed):
            run(copied, option)
    with pytest.raises(ExperimentError, match=REFUSED.replace("[^']+", "corpus")):
        export(copied, tmp_path / "out")


def test_options_that_cannot_be_run_are_not_written_down(copied: Path, tmp_path: Path, run: Run) -> None:
    before = (copied / "config.yaml").read_bytes()
    with pytest.raises(LhucError, match=r"lm\.text: .*nowhere: no such file"):
        run(copied, f"lm.text=[{tmp_path / 'nowhere'}]")
    assert (copied / "config.yaml").read_bytes() == before
    export(copied, tmp_path / "out")


def test_a_run_that_begins_during_an_export_is_noticed(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(copied, out)
    before = read_json(out / "model.json")

    def copy(source: Path, target: Path) -> None:
        (copied / "stages" / "network si.json").unlink(missing_ok=True)
        target.write_bytes(source.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr("lhuc_asr.pipeline.export.shutil.copyfile", copy)
        with pytest.raises(ExperimentError, match="the stage 'network si' is not finished, "):
            export(copied, out)
    assert read_json(out / "model.json") == before
    read_model(out)


def test_an_export_needs_the_stages_of_its_pass_alone(copied: Path, tmp_path: Path) -> None:
    for stage in ("lhuc over test", "si over test", "lhuc over control", "model"):
        (copied / "stages" / f"{stage}.json").unlink()
    export(copied, tmp_path / "out")
    shutil.rmtree(copied / "decode" / "heldout" / "si")
    with pytest.raises(ExperimentError, match=REFUSED.replace("[^']+", "si over heldout")):
        export(copied, tmp_path / "out")


def test_a_prepared_method_whose_network_changed_is_not_exported(copied: Path, tmp_path: Path, run: Run) -> None:
    moments = "passes={lhuc: {method: {kind: moments}}}"
    run(copied, moments)
    export(copied, tmp_path / "out")
    assert killed_in(1, run, copied, moments, "trainer.momentum=0.5")  # in the stage after the network
    assert (copied / "stages" / "network si.json").exists()
    with pytest.raises(ExperimentError, match=REFUSED):
        export(copied, tmp_path / "out2")
