"""``lhuc-asr adapt`` as typed: a speaker, a corpus, what is shown, whose files are kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.lhuc.speaker import SpeakerState
from lhuc_asr.recognizer.recognizer import Recognizer


def test_transcripts_are_adapted_to(finished: Path, spoken: Path, tmp_path: Path, command) -> None:
    word = (finished / "lang" / "lexicon.txt").read_text().split()[0]
    (tmp_path / "text").write_text(f"{spoken.stem} {word.lower()}\n")
    out = tmp_path / "x.safetensors"
    arguments = ("adapt", finished, "--speaker", "x", spoken, "--transcripts", tmp_path / "text", "-o", out)
    assert command(*arguments) in (0, None)
    assert out.exists()


def test_a_corpus_is_adapted_to_by_one_command(
    finished: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for utterance in read_manifest(finished / "corpus" / "test.jsonl"):
        Path("people", utterance.speaker).mkdir(parents=True, exist_ok=True)
        shutil.copy(utterance.audio, Path("people", utterance.speaker))
    for _ in range(2):  # the second time over what is there
        assert command("adapt", finished, "people/", "--threads", 1) in (0, None)
        shown = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in shown] == ["2001", "2002"]
        assert re.fullmatch(
            r"2001: speakers/2001\.safetensors  3 recordings, \d+\.\d s, (\d+) of \1 words believed, "
            r"amplitudes moved by 0\.\d{3}; (it helps|kept unadapted, it hurts|no difference): "
            r"\d+\.\d\d -> \d+\.\d\d words that are not stable, where it did not adapt",
            shown[0],
        )
    assert SpeakerState.load(tmp_path / "speakers" / "2002.safetensors").speaker == "2002"
    Path("people/broken").mkdir()
    Path("people/broken/x.wav").write_bytes(b"RIFF")
    assert "left out 1 of 7 recordings" in str(command("adapt", finished, "people", "-o", "others/"))
    assert sorted(path.stem for path in Path("others").iterdir()) == ["2001", "2002"]
    shutil.copy("speakers/2001.safetensors", "speakers/2002.safetensors")
    assert "is the file of the speaker '2001'" in str(command("adapt", finished, "people"))
    Path("file").touch()
    assert "is a file; the speakers of a corpus" in str(command("adapt", finished, "people", "-o", "file"))
    assert command("adapt", finished, "people/2001/x.flac") == 2
    assert "is in no speaker's folder" in str(command("adapt", finished, "people/2001"))


def test_what_adaptation_changed_is_shown(
    finished: Path, tmp_path: Path, command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rates are those of the experiment's passes over the same recordings."""
    reference, people = tmp_path / "reference", tmp_path / "people"
    with reference.open("w") as file:
        for utterance in read_manifest(finished / "corpus" / "test.jsonl"):
            (people / utterance.speaker).mkdir(parents=True, exist_ok=True)
            copy = Path(shutil.copy(utterance.audio, people / utterance.speaker))
            copy.with_suffix(".lab").write_text(utterance.text)
            file.write(f"{copy.stem} {utterance.text.lower()}\n")
    rates = {}
    for name in ("si", "lhuc"):
        report = json.loads((finished / "decode" / "test" / name / "wer.json").read_text())
        rates[name] = f"WER {100 * report['wer']:.2f} % ({report['errors']} errors in {report['words']} words), CER "
    for given in (reference, people):
        plain = ("adapt", finished, people, "-o", f"{tmp_path}/out/", "--no-verdict")
        assert command(*plain, "--evaluate", given) in (0, None)
        *_, before, after, change = capsys.readouterr().out.splitlines()
        assert before.startswith(f"unadapted  {rates['si']}")
        assert after.startswith(f"adapted    {rates['lhuc']}")
        assert change.endswith("over 2 speakers: not significant")
    one = ("adapt", finished, people / "2001", "--speaker", "2001", "-o", f"{tmp_path}/out/")
    assert command(*one, "--evaluate", reference) in (0, None)
    assert "over the recordings of one speaker" in capsys.readouterr().out
    assert command(*one, "--evaluate", reference, "--transcripts", reference) == 2
    reference.write_text("other go\n")
    assert "reference: has no words of these recordings" in str(command(*one, "--evaluate", reference))


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", ".x", ""])
def test_a_name_that_leads_elsewhere_writes_nothing(
    name: str, finished: Path, spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert "speaker name" in str(command("adapt", finished, "--speaker", name, spoken))
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "b"]


def test_a_persons_file_for_another_model_is_not_replaced(
    finished: Path, spoken: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bob.safetensors"
    adapt = ("adapt", finished, spoken, "--speaker", "bob", "-o", out)
    assert command(*adapt) in (0, None)
    tensors, description = load_tensors(out)
    save_tensors(out, tensors, {**description, "model": "0" * 64})
    before = out.read_bytes()
    assert "is the file of the speaker 'bob', for another model; choose another output, or --overwrite" in str(
        command(*adapt)
    )
    assert out.read_bytes() == before
    assert command(*adapt, "--overwrite") in (0, None)
    assert load_tensors(out)[1] == description


def test_a_persons_file_that_appears_while_another_is_adapted_to_is_not_replaced(
    finished: Path, spoken: Path, tmp_path: Path, command, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, other = tmp_path / "x.safetensors", tmp_path / "other.safetensors"
    assert command("adapt", finished, spoken, "--speaker", "alice", "-o", other) in (0, None)
    real = Recognizer.adapt_corpus

    def slow(*arguments: object, **options: object) -> Iterator[object]:
        for adaptation in real(*arguments, **options):  # type: ignore[arg-type]
            shutil.copy(other, out)
            yield adaptation

    monkeypatch.setattr(Recognizer, "adapt_corpus", slow)
    assert "is the file of the speaker 'alice'" in str(
        command("adapt", finished, spoken, "--speaker", "bob", "-o", out)
    )
    assert out.read_bytes() == other.read_bytes()
