"""One tiny experiment on synthetic voices, run once a session, for all tests that need a finished one."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# One thread of torch: the tests' networks are tiny, and threads that wait for each other cost more than they do. Set
# before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on what else the machine does; the limit is a test's, in pyproject.toml.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

Run = Callable[..., list[str]]

# The rooms whose files take longest, which come first: a process of the tests has a file at a time, and would be alone
# with one of theirs at the end.
LONGEST = ("tests/pipeline/", "tests/zoo/", "tests/study/", "tests/recognizer/", "tests/web/", "tests/cli/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {room: place for place, room in enumerate(LONGEST)}
    items.sort(key=lambda item: next((rank[room] for room in LONGEST if item.nodeid.startswith(room)), len(LONGEST)))


TINY = """
name: tiny
seed: 3
workers: 1
corpus:
  kind: synthetic
  voices:
    training_speakers: 6
    test_speakers: 2
    control_speakers: 2
    training_utterances: 6
    test_utterances: 3
    control_utterances: 2
heldout_speakers: 1
monophone: {iterations: 4, growing_iterations: 2, gaussians: 120}
dnn: {hidden_layers: 1, hidden_units: 48, activation: relu, context: 2}
trainer:
  schedule: {learning_rate: 0.05, max_epochs: 2}
realignments: 0
tuning: {acoustic_scales: [0.1, 0.2], insertion_penalties: [0.0]}
lhuc: {optimizer: adam, learning_rate: 0.1, sweeps: 2}
controls: [others_mean]
"""

SMALL = "iterations: 4, growing_iterations: 2, gaussians: 150"
FMLLR = "{kind: fmllr, min_counts: {full: 100}}"
LADDER = (
    "aligners=[mono, tri, lda_mllt, fmllr_sat]",
    f"tri={{tree: {{leaves: 60}}, {SMALL}}}",
    f"lda_mllt={{tree: {{leaves: 60}}, {SMALL}, context: 2, dimension: 16}}",
    f"fmllr_sat={{tree: {{leaves: 60}}, {SMALL}, fmllr: {{min_counts: {{full: 100}}}}}}",
    """networks={
      fmllr: {features: fmllr_sat},
      voices: {ivector: {background: {gaussians: 8, iterations: 4, growing_iterations: 2}, extractor: {dimension: 2}}},
      both: {
        features: fmllr_sat,
        ivector: {background: {gaussians: 8, iterations: 4, growing_iterations: 2}, extractor: {dimension: 2}}
      },
      delayed: {shape: {kind: tdnn, offsets: [[-1, 0, 1], [-1, 2]], channels: 24, hidden_layers: 1, hidden_units: 32}},
      smbr: {sequence: {epochs: 2, learning_rate: 0.0001}}
    }""",
    "controls=[]",
)
LADDER_PASSES = f"""passes={{
  lhuc: {{method: {{kind: lhuc, optimizer: adam, learning_rate: 0.3, sweeps: 4}}}},
  twice: {{targets: {{source: lhuc}}}},
  fmllr_gmm: {{network: fmllr_sat, method: {FMLLR}}},
  fmllr: {{network: fmllr, method: {FMLLR}, targets: {{source: fmllr_gmm}}}},
  from_si: {{network: fmllr, method: {FMLLR}, targets: {{source: si}}}},
  fmllr_lhuc: {{
    network: fmllr, targets: {{source: fmllr}},
    method: {{kind: lhuc, on: fmllr, optimizer: adam, learning_rate: 1.0, sweeps: 6, kl_weight: 0}}
  }},
  fmllr_moments: {{
    network: fmllr, targets: {{source: fmllr, kind: confidence, min_confidence: 0.1}},
    method: {{kind: moments, on: fmllr}}
  }},
  delayed: {{network: delayed, method: {{kind: lhuc, optimizer: adam, learning_rate: 0.3, sweeps: 4}}}},
  smbr: {{network: smbr, method: {{kind: lhuc, optimizer: adam, learning_rate: 0.3, sweeps: 4}}}},
  ivector: {{network: voices, method: {{kind: ivector}}}},
  ivector_lhuc: {{
    network: voices, targets: {{source: ivector}},
    method: {{kind: lhuc, on: ivector, optimizer: adam, learning_rate: 0.3, sweeps: 4}}
  }},
  ivector_moments: {{network: voices, targets: {{source: ivector}}, method: {{kind: moments, on: ivector}}}},
  both_fmllr: {{network: both, method: {FMLLR}, targets: {{source: fmllr_gmm}}}},
  both: {{network: both, targets: {{source: both_fmllr}}, method: {{kind: ivector, on: both_fmllr}}}}
}}"""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session", autouse=True)
def signals_that_end() -> None:
    """A shell lets what it runs in the background ignore these signals, and so do the processes that tests start."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that takes seconds."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "config.yaml").write_text(TINY, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def closed_configuration() -> Iterator[None]:
    """The work of a stage that reads the configuration fails: an option that it reads may be missing in its key."""
    from lhuc_asr.base.stages import Stages
    from lhuc_asr.pipeline.config import ExperimentConfig

    real_run, real_get, working = Stages.run, ExperimentConfig.__getattribute__, []

    def run(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
        def noted_work(options: object) -> object:
            working.append(name)
            try:
                return work(options)
            finally:
                working.pop()

        real_run(self, name, noted_work, **arguments)

    def get(self: ExperimentConfig, name: str) -> object:
        assert not (working and name in ExperimentConfig.model_fields), (
            f"a stage's work reads the configuration: {name}"
        )
        return real_get(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stages, "run", run)
        patch.setattr(ExperimentConfig, "__getattribute__", get)
        yield


@pytest.fixture(scope="session")
def finished(closed_configuration: None, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny recipe's finished experiment; tests read it, and change copies of it."""
    from lhuc_asr.base.config import load_config
    from lhuc_asr.pipeline.config import ExperimentConfig
    from lhuc_asr.pipeline.run import run_recipe

    folder = tmp_path_factory.mktemp("finished") / "exp"
    run_recipe(load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={folder}"]))
    return folder


@pytest.fixture(scope="session")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment's model; tests read it, and change copies of it."""
    from lhuc_asr.pipeline.export import export

    folder = tmp_path_factory.mktemp("elsewhere") / "model"
    export(finished, folder)
    return folder


@pytest.fixture(scope="session")
def heard(finished: Path) -> dict[str, list[Path]]:
    """The recordings of each test speaker of the tiny experiment."""
    from lhuc_asr.audio.utterance import read_manifest

    recordings: dict[str, list[Path]] = {}
    for split in ("test", "control"):
        for utterance in read_manifest(finished / "corpus" / f"{split}.jsonl"):
            recordings.setdefault(utterance.speaker, []).append(utterance.audio)
    return recordings


@pytest.fixture(scope="session")
def people(exported: Path, heard: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the files of these speakers, adapted to on the tiny experiment's model."""
    from lhuc_asr.recognizer.recognizer import load

    folder, recognizer = tmp_path_factory.mktemp("people"), load(exported)
    for name, paths in heard.items():
        recognizer.adapt(paths, speaker=name).save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="session")
def archive(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of these speakers."""
    from lhuc_asr.recognizer.speaker_files import pack

    path = tmp_path_factory.mktemp("archive") / "people.archive"
    assert pack(path, [people]) == 4
    return path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished experiment, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "exp"))


@pytest.fixture(scope="session")
def ladder(finished: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny experiment with a ladder of aligners and passes by fMLLR; tests read it, or copy it."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("ladder") / "exp"))
    run(folder, *LADDER, LADDER_PASSES)
    return folder


@pytest.fixture(scope="session")
def ladder_passes() -> str:
    """The passes of ``ladder``."""
    return LADDER_PASSES


@pytest.fixture(scope="session")
def run_ladder(run: Run) -> Run:
    """Run the recipe of ``ladder`` with other passes, ``run_ladder(folder, "passes={...}")``."""
    return lambda folder, *overrides: run(folder, *LADDER, *overrides)


@pytest.fixture
def package_log() -> Iterator[logging.Logger]:
    """The package's logger, put back as it was: a command line sends it to standard error."""
    logger = logging.getLogger("lhuc_asr")
    before = logger.level, logger.propagate, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.propagate = before[1]
    logger.handlers[:] = before[2]


def executed_stages(folder: Path) -> list[str]:
    """The stages that ended in all runs so far, in order; epochs and other figures are left out."""
    from lhuc_asr.base.atomic import read_json_lines

    path = folder / "metrics.jsonl"
    rows = list(read_json_lines(path)) if path.exists() else []
    return [row["stage"] for row in rows if set(row) == {"stage", "time", "seconds"}]


@pytest.fixture(scope="session")
def run(closed_configuration: None, tiny_recipe: Path) -> Run:
    """Run the tiny recipe in a folder, ``run(folder, "lhuc.sweeps=3")``; returns the stages that were not skipped.

    Figures are not drawn: they take longer than finished stages, and ``finished`` has them.
    """

    from lhuc_asr.base.config import load_config
    from lhuc_asr.pipeline.config import ExperimentConfig
    from lhuc_asr.pipeline.run import run_recipe

    def run_in(folder: Path, *overrides: str) -> list[str]:
        before = len(executed_stages(folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lhuc_asr.score.figures.save_figure", lambda figure, path, formats: path.touch())
            patch.setattr("lhuc_asr.score.figures.speaker_wer_figure", lambda *_: None)
            run_recipe(load_config(ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={folder}", *overrides]))
        return executed_stages(folder)[before:]

    return run_in


@pytest.fixture(scope="session")
def executed() -> Callable[[Path], list[str]]:
    """``executed_stages``, for tests that run something else than a recipe."""
    return executed_stages


@pytest.fixture(scope="session")
def s3_server() -> Iterator[None]:
    """A real server that speaks S3; processes that tests start find it in their environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "tests")
        yield
    server.stop()


@pytest.fixture
def bucket(s3_server: None) -> str:
    """The URL of an empty store on the server."""
    import boto3

    name = f"speech-{secrets.token_hex(4)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/experiments/an4"


@pytest.fixture(scope="session")
def machines(s3_server: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A cluster of raylets on this machine, ``with machines(2) as cluster``; each has a folder of its own."""
    from ray.cluster_utils import Cluster

    @contextmanager
    def started(count: int) -> Iterator[Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            cluster = Cluster()
            try:
                for _ in range(count):
                    folder = tmp_path_factory.mktemp("machine")
                    limits = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
                    cluster.add_node(**limits, env_vars={"TMPDIR": str(folder)})
                yield cluster
            finally:
                cluster.shutdown()

    return started


@pytest.fixture(scope="session")
def two_machines(machines: Callable[..., Any]) -> Iterator[Any]:
    """A cluster of two raylets, for tests that leave it as it is."""
    with machines(2) as cluster:
        yield cluster
