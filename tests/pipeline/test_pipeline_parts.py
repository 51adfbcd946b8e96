"""Features from a cluster of two machines that share no folder: those of this machine, to the bit, whatever happens."""

from __future__ import annotations

import filecmp
import logging
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base import file_jobs
from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import AudioError, ConfigError, FeatureError
from lhuc_asr.base.object_store import FolderStore, StoreError
from lhuc_asr.features.extraction import extract
from lhuc_asr.features.filterbank import FeatureConfig
from lhuc_asr.features.store import gather
from lhuc_asr.pipeline import parts
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.feature_parts import extract_on_cluster
from lhuc_asr.pipeline.parts import parts_of

pytestmark = pytest.mark.usefixtures("a_part_for_each_speaker")
CONFIG = FeatureConfig(bins=20)
real_seconds = parts.part_seconds


def spoken(folder: Path, speakers: int = 5, each: int = 3, seconds: float = 0.5) -> list[Utterance]:
    """Utterances whose speakers take turns, so that a part's are not in a row."""
    utterances = []
    for number in range(each):
        for speaker in range(speakers):
            path = folder / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(10 * speaker + number).normal(0.0, 0.1, round(16_000 * seconds))
            soundfile.write(path, noise, 16_000)
            utterances.append(Utterance(f"s{speaker}-{number}", f"s{speaker}", "", path, 0.0, seconds, "YES"))
    return utterances


def same(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in other.iterdir())
    assert names == sorted(path.name for path in one.iterdir())
    return filecmp.cmpfiles(one, other, names, shallow=False) == (names, [], [])


def test_parts_have_whole_speakers_and_every_utterance_once(tmp_path: Path) -> None:
    utterances = spoken(tmp_path)
    for seconds, count in ((0.1, 5), (1.5, 5), (2.0, 3), (100.0, 1)):
        cut = list(parts_of(utterances, seconds))
        assert len(cut) == count
        assert sorted(u.id for part in cut for u in part) == sorted(u.id for u in utterances)
        for part in cut:
            assert len(part) == 3 * len({u.speaker for u in part})
        assert all(sum(u.seconds for u in part) >= seconds for part in cut[:-1])


@pytest.mark.parametrize(("minutes", "expected"), [(1, 60), (15, 60), (40, 150), (160, 600), (10_000, 600)])
def test_a_small_split_is_cut_into_sixteen_parts_at_most(minutes: int, expected: float) -> None:
    whole = [Utterance(str(n), str(n), "", Path("a.wav"), 0.0, 30.0, "") for n in range(2 * minutes)]
    assert real_seconds(whole) == expected
    assert len(list(parts_of(whole, expected))) == -(-60 * minutes // expected)


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 0.9)])
def test_the_store_is_the_same_to_the_bit_and_is_not_made_twice(
    speeds: tuple[float, ...], two_machines: Any, bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    utterances, settings = spoken(tmp_path / "wav"), RayConfig(address=two_machines.address, store=bucket)
    extract(tmp_path / "here", utterances, CONFIG, 1, speeds)
    there = tmp_path / "new" / "there"
    with caplog.at_level(logging.INFO):
        extract_on_cluster(settings, there, utterances, CONFIG, speeds, by_environment=False)
    assert same(there, tmp_path / "here")
    assert "finished before" not in caplog.text
    with caplog.at_level(logging.INFO):
        extract_on_cluster(settings, there, utterances, CONFIG, speeds, by_environment=False)
    assert caplog.text.count("finished before") == 5
    assert same(there, tmp_path / "here")
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_a_lost_machine_costs_nothing_but_time(
    machines: Callable[..., Any], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two machines is ended when the first answers are there; its task is done by the other."""
    utterances = spoken(tmp_path / "wav", speakers=8, each=1, seconds=20.0)
    extract(tmp_path / "here", utterances, CONFIG, 1)
    real, ended = file_jobs._fetched, threading.Event()
    with machines(2) as cluster:

        def then_lost(*arguments: Any) -> Path:
            if not ended.is_set():
                ended.set()
                cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
            return real(*arguments)

        monkeypatch.setattr(file_jobs, "_fetched", then_lost)
        settings = RayConfig(address=cluster.address, store=bucket)
        extract_on_cluster(settings, tmp_path / "there", utterances, CONFIG, (1.0,), by_environment=False)
    assert ended.is_set()
    assert same(tmp_path / "there", tmp_path / "here")


def test_a_damaged_recording_is_the_error_that_it_is_here(two_machines: Any, bucket: str, tmp_path: Path) -> None:
    utterances = spoken(tmp_path / "wav")
    utterances[7].audio.write_bytes(b"no recording")
    settings = RayConfig(address=two_machines.address, store=bucket)
    with pytest.raises(AudioError):
        extract_on_cluster(settings, tmp_path / "there", utterances, CONFIG, (1.0,), by_environment=False)
    assert not (tmp_path / "there").exists()


@pytest.fixture
def again(two_machines: Any, tmp_path: Path) -> Callable[[], object]:
    """Make features again, whose jobs are finished in ``store/``."""
    utterances, store = spoken(tmp_path / "wav"), str(tmp_path / "store")
    settings = RayConfig(address=two_machines.address, store=store)
    make = partial(extract_on_cluster, settings, tmp_path / "made", utterances, CONFIG, (1.0,), by_environment=False)
    make()
    return make


def test_a_result_that_was_changed_in_the_store_is_refused(again: Callable[[], object], tmp_path: Path) -> None:
    before = (tmp_path / "made" / "features.bin").read_bytes()
    result = next((tmp_path / "store").rglob("features.bin"))
    result.write_bytes(result.read_bytes()[:-4] + b"abcd")
    with pytest.raises(StoreError, match=r"features.bin is not what was stored; delete it and run again"):
        again()
    assert (tmp_path / "made" / "features.bin").read_bytes() == before


@pytest.mark.parametrize("spoiled", ["changed", "cut", "other", "link"])
def test_recordings_that_were_changed_in_the_store_are_refused(
    two_machines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    utterances, store, put = spoken(tmp_path / "wav"), tmp_path / "store", FolderStore.put

    def then_spoiled(self: FolderStore, path: Path, key: str) -> None:
        put(self, path, key)
        if key.endswith(".tar"):
            spoil(store / key, spoiled)

    monkeypatch.setattr(FolderStore, "put", then_spoiled)
    settings = RayConfig(address=two_machines.address, store=str(store))
    with pytest.raises(StoreError, match=r"store: jobs/\w{64}\.tar is not what was stored; delete it and run again"):
        extract_on_cluster(settings, tmp_path / "made", utterances, CONFIG, (1.0,), by_environment=False)


def spoil(path: Path, way: str) -> None:
    """Change the tar file of a job's recordings."""
    content = path.read_bytes()
    half = len(content) // 2
    if way == "changed":
        path.write_bytes(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
    elif way == "cut":
        path.write_bytes(content[:half])
    else:
        with tarfile.open(path) as tar:
            members = [tarfile.TarInfo("other")] if way == "other" else tar.getmembers()
        with tarfile.open(path, "w") as tar:
            for member in members:
                if way == "link":
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
                tar.addfile(member)


def test_the_recordings_of_a_job_are_one_object(again: Callable[[], object], tmp_path: Path) -> None:
    assert len(list((tmp_path / "store" / "jobs").glob("*.tar"))) == 5
    assert not (tmp_path / "store" / "files").exists()


def test_a_recording_that_is_gone_is_named(two_machines: Any, tmp_path: Path) -> None:
    utterances, settings = spoken(tmp_path / "wav"), RayConfig(address=two_machines.address, store=str(tmp_path / "s"))
    utterances[0].audio.unlink()
    with pytest.raises(StoreError, match=r"features of made, part 1: .*s0/0\.wav cannot be read any more \(No such"):
        extract_on_cluster(settings, tmp_path / "made", utterances, CONFIG, (1.0,), by_environment=False)


def test_a_list_of_results_leads_nowhere_else(again: Callable[[], object], tmp_path: Path) -> None:
    listed = next((tmp_path / "store" / "jobs").glob("*.json"))
    listed.write_text(listed.read_text().replace("store/features.bin", "../../../../outside"))
    with pytest.raises(StoreError, match="leads out of the folder of a job; is the store yours"):
        again()
    assert not list(tmp_path.rglob("outside"))


def test_a_recipe_on_a_cluster_makes_the_features_that_it_makes_here(
    two_machines: Any, bucket: str, finished: Path, copied: Path, run: Callable[..., list[str]]
) -> None:
    made = [path for path in (copied / "stages").glob("* of *.json") if path.stem.split()[0] in ("features", "mfcc")]
    for path in made:
        path.unlink()
    stages = run(copied, "executor=ray", f"ray.store={bucket}", f"ray.address={two_machines.address}")
    assert sorted(stages) == sorted(path.stem for path in made)
    assert len(stages) == 6
    for store in (finished / "features").iterdir():
        assert same(copied / "features" / store.name, store)


def test_a_cluster_without_a_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="executor: ray needs a store that all machines of the cluster reach"):
        parse_config(ExperimentConfig, {"name": "x", "corpus": {"kind": "synthetic"}, "executor": "ray"}, "test")


def test_stores_that_do_not_make_up_a_split_are_refused(tmp_path: Path) -> None:
    utterances = spoken(tmp_path / "wav", speakers=2, each=1)
    one, other = (extract(tmp_path / u.speaker, [u], CONFIG, 1) for u in utterances)
    wider = extract(tmp_path / "wider", utterances[1:], FeatureConfig(bins=30), 1)
    with pytest.raises(FeatureError, match="the stores that it is made of lack s1-0"):
        gather(tmp_path / "all", [one], ["s0-0", "s1-0"])
    with pytest.raises(FeatureError, match="the stores that it is made of differ in their kind"):
        gather(tmp_path / "all", [one, wider], ["s0-0", "s1-0"])
    assert not (tmp_path / "all").exists()
    both = gather(tmp_path / "all", [other, one], ["s0-0", "s1-0"])
    np.testing.assert_array_equal(both.array, np.concatenate([one.array, other.array]))
