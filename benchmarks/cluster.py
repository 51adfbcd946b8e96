"""A finished experiment made again on a cluster of this machine: whether it is the same, and what it takes.

    python benchmarks/cluster.py EXP WORK [--raylets 1,2] [--kill] [--passes]

EXP is a finished experiment of a recipe, or a fold of one. Its features, and its passes over the held-out and test
speakers, are made again in copies below WORK, by a process of this machine and by raylets with one processor and one
folder each, which share a server that speaks S3 and nothing else. The networks stay: they are trained in one place.
Printed are

- the seconds of each stage, and of all;
- the files that differ from those of one process, to the bit: there should be none;
- with ``--kill`` the same, while a raylet is ended in the features, in a first pass and in an adapted one;
- what a task costs that does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import shutil
import time
from pathlib import Path

from raylets import BUCKET, raylets, s3_server
from timing import show

from lhuc_asr.base.atomic import read_json_lines
from lhuc_asr.base.cluster import Cluster, versions_here
from lhuc_asr.base.runlog import setup_logging
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.experiment import fold_of, read_experiment
from lhuc_asr.pipeline.planned import Part
from lhuc_asr.pipeline.run import _run_stages

# Some seconds into each of these stages a raylet ends.
KILLED_IN = ("features of train", "si over test", "lhuc over test")
TASKS = 200
MADE = ("features", "decode", "speakers")
# What it took, and not what came out.
TIMES = ("adaptation.json",)


def main() -> None:
    """Make the experiment again in each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("exp", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--raylets", default="1,2")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--passes", action="store_true", help="leave the features as they are")
    arguments = parser.parse_args()
    setup_logging(logging.INFO)
    rows: dict[str, dict[str, float]] = {}
    different: dict[str, list[str]] = {}
    here = remade(arguments.exp, arguments.work / "local", None, arguments.passes)
    rows["local"], expected = here[1], contents(here[0])
    with s3_server():
        for count in map(int, arguments.raylets.split(",")):
            for kill in (False, True) if arguments.kill and count > 1 else (False,):
                name = f"{count} raylets" + (", one ends" if kill else "")
                with raylets(count, KILLED_IN if kill else ()) as address:
                    settings = RayConfig(address=address, store=f"s3://{BUCKET}/{name.replace(' ', '-')}")
                    folder, rows[name] = remade(arguments.exp, arguments.work / name, settings, arguments.passes)
                    remade_files = contents(folder)
                    different[name] = sorted(
                        place
                        for place in expected.keys() | remade_files.keys()
                        if expected.get(place) != remade_files.get(place)
                    )
                    if not kill:
                        rows[name]["a task, ms"] = 1000 * seconds_of_a_task(settings)
    names = list(dict.fromkeys(stage for row in rows.values() for stage in row))
    table = [[name, *(f"{row[name]:.1f}" if name in row else "" for row in rows.values())] for name in names]
    show(f"{arguments.exp}: seconds", ["", *rows], table)
    show(
        "files that differ from those of one process",
        ["", "files", "differ", "first"],
        [[name, str(len(expected)), str(len(places)), ", ".join(places[:3])] for name, places in different.items()],
    )


def remade(exp: Path, work: Path, settings: RayConfig | None, passes_alone: bool) -> tuple[Path, dict[str, float]]:
    """A copy of an experiment with its features and passes made again, and the seconds of each of these stages."""
    shutil.rmtree(work, ignore_errors=True)
    folder = work / exp.name
    shutil.copytree(exp, folder)
    for config_file in ("config.yaml", "run.json"):
        if not (folder / config_file).exists():
            shutil.copy(exp.parent / config_file, work / config_file)
    config, _ = read_experiment(folder)
    for stage in (folder / "stages").glob("*.json"):
        name = stage.stem
        if " over " in name or (name.startswith(("features of ", "mfcc of ")) and not passes_alone):
            stage.unlink()
    for made in MADE if not passes_alone else MADE[1:]:
        for place in (folder / made).glob("*"):
            # Features that a rung has made stay: their stage is the rung's.
            if place.is_dir() and (made != "features" or "_" not in place.name or place.name.endswith("_mfcc")):
                shutil.rmtree(place) if place.name != "prepared" else None
    before = len(list(read_json_lines(folder / "metrics.jsonl")))
    parallel = {"executor": "ray", "ray": settings, "workers": 1} if settings else {"workers": 1}
    again = config.model_copy(update=parallel)
    _run_stages(Part(again, fold_of(again, folder)), model=False)
    return folder, seconds_of_stages(folder, before)


def seconds_of_stages(folder: Path, before: int) -> dict[str, float]:
    """The seconds of the stages that were run after a line of the log of figures."""
    kinds = dict.fromkeys(("features", "passes", "outputs", "all"), 0.0)
    for row in list(read_json_lines(folder / "metrics.jsonl"))[before:]:
        name, seconds = row["stage"], row.get("seconds", 0.0)
        kind = "outputs" if name.startswith("outputs of") else "passes" if " over " in name else "features"
        if kind != "features" or name.startswith(("features of", "mfcc of")):
            kinds[kind] += seconds
            kinds["all"] += seconds
    return kinds


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files of the features and passes, by place."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for made in MADE
        for path in (folder / made).rglob("*")
        if path.is_file() and path.name not in TIMES
    }


def seconds_of_a_task(settings: RayConfig) -> float:
    """Seconds of a task that does nothing, of many in flight."""
    with Cluster(settings.address) as cluster:
        list(cluster.run(versions_here, [("warm", {})] * 8))
        begun = time.perf_counter()
        list(cluster.run(versions_here, [("nothing", {})] * TASKS))
        return (time.perf_counter() - begun) / TASKS


if __name__ == "__main__":
    main()
