"""Recordings that changed under a finished experiment: the next run notices, whatever the corpus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.stages import Stages
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.run import run_recipe

RATE = 8000
SPEAKERS = {"train": ("s1", "s2", "s3"), "test": ("s4",)}
STAGES = ["corpus", "features of train", "features of heldout", "features of test"]


class Reached(Exception):
    """The stages that are looked at were run or skipped."""


def states(folder: Path) -> dict[str, bytes]:
    """What the features of each split of an experiment depend on: its manifest and its recordings."""
    manifests = sorted((folder / "corpus").glob("*.jsonl"))
    recordings = {path: sorted({utterance.audio for utterance in read_manifest(path)}) for path in manifests}
    return {
        f"features of {path.stem}": path.read_bytes() + b"".join(audio.read_bytes() for audio in recordings[path])
        for path in manifests
    }


@pytest.fixture
def stages_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Run a recipe on a corpus up to its features, ``stages_of({"kind": ...})``; returns what was not skipped.

    In each run the features are made again of the splits that are not as they were, and of no others.
    """
    real = Stages.run
    before: dict[str, bytes] = {}

    def run(corpus: dict[str, object], **options: object) -> list[str]:
        executed: list[str] = []

        def noted(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
            if name == "monophones":
                raise Reached
            if name != "corpus" and not name.startswith("features of "):
                return

            def noted_work(options: object) -> object:
                executed.append(name)
                return work(options)

            real(self, name, noted_work, **arguments)

        tree = {
            **{"name": "stale", "exp": str(tmp_path / "exp"), "workers": 1, "heldout_speakers": 1, "max_skipped": 0.5},
            **{"corpus": corpus, "features": {"sample_rate": RATE}, "alignment_features": {"sample_rate": RATE}},
            **options,
        }
        with monkeypatch.context() as patch:
            patch.setattr(Stages, "run", noted)
            with pytest.raises(Reached):
                run_recipe(parse_config(ExperimentConfig, tree, "test"))
        now = states(Path(tree["exp"]))
        if "features" not in options:
            assert set(executed) - {"corpus"} == {name for name in now if now[name] != before.get(name)}
        before.update(now)
        return executed

    return run


def record(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.3, 0.3, RATE // 2), RATE)
    return path


def utterances(split: str) -> list[tuple[str, str]]:
    """Speakers and numbers of the utterances, two a speaker."""
    return [(speaker, number) for speaker in SPEAKERS[split] for number in ("0001", "0002")]


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def an4_of_cmu(folder: Path) -> dict[str, object]:
    for split in SPEAKERS:
        ids = [(speaker, f"{number}-{speaker}") for speaker, number in utterances(split)]
        for speaker, id in ids:
            record(folder / "wav" / "an4_clstk" / speaker / f"{id}.wav")
        write_lines(folder / "etc" / f"an4_{split}.fileids", [f"an4_clstk/{speaker}/{id}" for speaker, id in ids])
        write_lines(folder / "etc" / f"an4_{split}.transcription", [f"YES ({id})" for _, id in ids])
    write_lines(folder / "etc" / "an4.dic", ["YES  Y EH S"])
    return {"kind": "an4", "dir": str(folder)}


def an4_packed(folder: Path) -> dict[str, object]:
    lines = ["utt_id\tspeaker\tsplit\tpath\tn_samples\tsample_rate\ttext"]
    for split in SPEAKERS:
        for speaker, number in utterances(split):
            path = record(folder / "audio" / split / speaker / f"{number}-{speaker}.flac")
            name = path.relative_to(folder)
            lines.append(f"{path.stem}\t{speaker}\t{split}\t{name}\t{RATE // 2}\t{RATE}\tYES")
    write_lines(folder / "utts.tsv", lines)
    write_lines(folder / "etc" / "an4.dic", ["YES  Y EH S"])
    return {"kind": "an4", "dir": str(folder)}


def librispeech(folder: Path) -> dict[str, object]:
    for split, speakers in SPEAKERS.items():
        for speaker in speakers:
            chapter = folder / split / speaker / "1"
            ids = [f"{speaker}-1-{number}" for number in ("0001", "0002")]
            for id in ids:
                record(chapter / f"{id}.flac")
            write_lines(chapter / f"{speaker}-1.trans.txt", [f"{id} YES" for id in ids])
    return {"kind": "librispeech", "dir": str(folder), "train": ["train"], "test": ["test"]}


def librispeech_from_above(folder: Path) -> dict[str, object]:
    return {**librispeech(folder / "LibriSpeech"), "dir": str(folder)}


def kaldi(folder: Path) -> dict[str, object]:
    """With all recordings outside the data directories."""
    for split in SPEAKERS:
        ids = {f"{speaker}-{number}": speaker for speaker, number in utterances(split)}
        paths = {id: record(folder / "wav" / f"{id}.wav") for id in ids}
        write_lines(folder / split / "wav.scp", [f"{id} {path}" for id, path in paths.items()])
        write_lines(folder / split / "utt2spk", [f"{id} {speaker}" for id, speaker in ids.items()])
        write_lines(folder / split / "text", [f"{id} YES" for id in ids])
    return {"kind": "kaldi", "train": str(folder / "train"), "test": str(folder / "test")}


CORPORA = [an4_of_cmu, an4_packed, librispeech, librispeech_from_above, kaldi]


def recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac"))


def change(path: Path) -> None:
    """Put another recording of the same length in the place of one."""
    before = path.stat()
    record(path, seed=1)
    assert path.stat().st_mtime_ns != before.st_mtime_ns


@pytest.mark.parametrize("make", CORPORA)
def test_a_recording_that_is_changed_deleted_or_put_back_is_noticed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    assert stages_of(corpus) == STAGES
    assert stages_of(corpus) == []
    first, *_, last = recordings(tmp_path / "corpus")
    for path in (first, last):
        change(path)
        assert stages_of(corpus)[0] == "corpus"
    kept = first.rename(tmp_path / "kept")
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []
    kept.rename(first)
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []


@pytest.mark.parametrize("make", CORPORA)
def test_a_transcript_that_changes_is_noticed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    assert stages_of(corpus) == STAGES
    texts = sorted(set((tmp_path / "corpus").rglob("*.*")) - set(recordings(tmp_path / "corpus")))
    transcript = next(path for path in [*texts, tmp_path / "corpus/train/text"] if "YES" in path.read_text())
    transcript.write_text(transcript.read_text().replace("YES", "NO"))
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []


@pytest.mark.parametrize("make", [librispeech, librispeech_from_above])
def test_a_new_utterance_is_noticed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    assert stages_of(corpus) == STAGES
    transcript = next((tmp_path / "corpus").rglob("s1-1.trans.txt"))
    record(transcript.parent / "s1-1-0003.flac")
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []


@pytest.mark.parametrize("make", CORPORA)
def test_recordings_that_are_all_deleted_are_missed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    stages_of(corpus)
    for path in recordings(tmp_path / "corpus"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"6 of 6 utterances cannot be used.*no (such )?recording"):
        stages_of(corpus)


@pytest.mark.parametrize("make", CORPORA)
def test_a_recording_behind_linked_folders_is_noticed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    first = recordings(tmp_path / "corpus")[0]
    folder = Path(shutil.move(first.parent, tmp_path / "disk"))
    first.parent.symlink_to(folder)
    assert stages_of(corpus) == STAGES
    change(folder / first.name)
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []


@pytest.mark.parametrize("make", CORPORA)
def test_a_linked_recording_is_noticed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    first = recordings(tmp_path / "corpus")[0]
    target = first.rename(tmp_path / first.name)
    first.symlink_to(target)
    assert stages_of(corpus) == STAGES
    change(target)
    assert stages_of(corpus)[0] == "corpus"


def test_a_recording_that_could_not_be_used_is_noticed_when_it_is_mended(tmp_path: Path, stages_of) -> None:
    """It is in no manifest, and lies outside the data directories."""
    corpus = kaldi(tmp_path / "corpus")
    first, second, *_ = recordings(tmp_path / "corpus")
    first.unlink()
    assert stages_of(corpus) == STAGES
    record(first)
    assert stages_of(corpus)[0] == "corpus"
    second.write_bytes(b"not a recording")
    assert stages_of(corpus)[0] == "corpus"
    record(second)
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []


def test_a_recording_that_packed_an4_names_elsewhere_is_noticed(tmp_path: Path, stages_of) -> None:
    corpus = an4_packed(tmp_path / "corpus")
    first = recordings(tmp_path / "corpus")[0]
    elsewhere = first.rename(tmp_path / first.name)
    table = tmp_path / "corpus" / "utts.tsv"
    table.write_text(table.read_text().replace(str(first.relative_to(tmp_path / "corpus")), str(elsewhere)))
    assert stages_of(corpus) == STAGES
    change(elsewhere)
    assert stages_of(corpus)[0] == "corpus"


def test_synthetic_voices_that_are_changed_or_deleted_are_noticed(tmp_path: Path, stages_of) -> None:
    voices = {"training_speakers": 2, "test_speakers": 1, "control_speakers": 1}
    counts = {"training_utterances": 2, "test_utterances": 1, "control_utterances": 1}
    corpus = {"kind": "synthetic", "voices": {**voices, **counts, "sample_rate": RATE}}
    assert stages_of(corpus) == [*STAGES, "features of control"]
    assert stages_of(corpus) == []
    (voices_folder,) = (tmp_path / "exp").glob("voices-*")
    for path in (recordings(voices_folder / "train")[0], next(voices_folder.rglob("*.trans.txt"))):
        content = path.read_bytes()
        for fault in (content[: len(content) // 2], b"", None):
            path.write_bytes(fault) if fault is not None else path.unlink()
            assert stages_of(corpus) == ["corpus"], path
            assert path.read_bytes() == content  # made again, so that the features are those of this recording
    (voices_folder / "train" / "1001" / "1" / "1001-1-0009.flac").write_bytes(b"")
    (voices_folder / "SPEAKERS.TXT").unlink()
    assert stages_of(corpus) == ["corpus"]
    assert [path.name for path in voices_folder.rglob("1001-1-*.flac")].count("1001-1-0009.flac") == 0
    assert stages_of(corpus) == []


@pytest.fixture
def noise(tmp_path: Path) -> dict[str, object]:
    """One class of noise, whose table names its clips outside the folder."""
    clips = [record(tmp_path / "clips" / f"hum{number}.flac", seed=number) for number in range(4)]
    write_lines(tmp_path / "noise" / "noise.tsv", ["path\tclass", *(f"{path}\thum" for path in clips)])
    return {"dir": str(tmp_path / "noise"), "classes": ["hum"], "training_conditions": 1}


def test_noise_noisy_copies_and_what_they_were_made_from_are_noticed(tmp_path: Path, noise, stages_of) -> None:
    corpus = kaldi(tmp_path / "corpus")
    assert stages_of(corpus, noise=noise) == STAGES
    assert stages_of(corpus, noise=noise) == []
    copies = recordings(tmp_path / "exp" / "corpus" / "noisy")
    # Some training recordings are in a noisy copy only, and so in no manifest.
    for path in (tmp_path / "clips" / "hum0.flac", *recordings(tmp_path / "corpus")[:6]):
        change(path)
        assert stages_of(corpus, noise=noise)[0] == "corpus", path
    contents = [copy.read_bytes() for copy in copies]
    change(copies[0])
    copies[-1].unlink()
    assert stages_of(corpus, noise=noise) == ["corpus"]
    assert [copy.read_bytes() for copy in copies] == contents  # made again: the features are still theirs
    assert stages_of(corpus, noise=noise) == []
    table = tmp_path / "noise" / "noise.tsv"
    table.write_text(table.read_text() + f"{tmp_path / 'clips' / 'hum0.flac'}\train\n")
    assert stages_of(corpus, noise=noise)[0] == "corpus"


@pytest.mark.parametrize("make", CORPORA)
def test_a_corpus_that_is_touched_or_restored_is_the_same(make, tmp_path: Path, stages_of) -> None:
    folder = tmp_path / "corpus"
    corpus = make(folder)
    stages_of(corpus)
    for path in folder.rglob("*"):
        os.utime(path, ns=(0, 0))
    assert stages_of(corpus) == []
    shutil.copytree(folder, tmp_path / "backup", copy_function=shutil.copyfile)
    shutil.rmtree(folder)
    (tmp_path / "backup").rename(folder)
    assert stages_of(corpus) == []


@pytest.mark.parametrize("make", CORPORA)
def test_files_that_change_under_their_old_sizes_and_times_are_noticed(make, tmp_path: Path, stages_of) -> None:
    corpus = make(tmp_path / "corpus")
    stages_of(corpus)
    tables = [path for path in (tmp_path / "corpus").rglob("*") if path.is_file() and b"YES" in path.read_bytes()]
    for path in (sorted(tables)[0], recordings(tmp_path / "corpus")[0]):
        before = path.stat()
        content = path.read_bytes()
        path.write_bytes(content.replace(b"YES", b"YET") if path in tables else content[:-2] + b"\1\1")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert stages_of(corpus)[0] == "corpus", path


@pytest.mark.parametrize("name", ["utt2spk", "text", "segments", "utt2env", "wav.scp"])
def test_every_table_of_a_kaldi_directory_counts(name: str, tmp_path: Path, stages_of) -> None:
    folder = tmp_path / "corpus"
    corpus, train = kaldi(folder), folder / "train"
    ids = [line.split()[0] for line in (train / "text").read_text().splitlines()]
    write_lines(train / "segments", [f"{id} {id} 0.0 0.4" for id in ids])
    write_lines(train / "utt2env", [f"{id} car" for id in ids])
    assert stages_of(corpus) == STAGES
    other = record(folder / "elsewhere.wav", seed=5)
    changes = {
        "utt2spk": (" s1\n", " s2\n"),
        "text": ("YES", "YET"),
        "segments": ("0.4", "0.3"),
        "utt2env": ("car", "bus"),
        "wav.scp": (str(folder / "wav" / f"{ids[0]}.wav"), str(other)),
    }
    path = train / name
    before = path.stat()
    path.write_text(path.read_text().replace(*changes[name]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stages_of(corpus)[0] == "corpus"
    assert stages_of(corpus) == []


def test_a_moved_experiment_finds_the_recordings_that_were_made_for_it(tmp_path: Path, noise, stages_of) -> None:
    """Features are made anew at the new place, and nothing is left at the old one."""
    corpus = kaldi(tmp_path / "corpus")
    stages_of(corpus, noise=noise)
    manifests = [path.read_text() for path in (tmp_path / "exp" / "corpus").glob("*.jsonl")]
    assert not any(str(tmp_path / "exp") in text for text in manifests)
    (tmp_path / "exp").rename(tmp_path / "moved")
    assert stages_of(corpus, noise=noise, exp=str(tmp_path / "moved")) == []
    features = {"sample_rate": RATE, "bins": 20}
    assert stages_of(corpus, noise=noise, exp=str(tmp_path / "moved"), features=features) == STAGES[1:]
    assert not (tmp_path / "exp").exists()
