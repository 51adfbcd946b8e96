"""The commands and the Python of README.md and docs/ as they stand there, and what the pages name."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import soundfile
import torch
import yaml
from hatchling import build
from house_rules import BELOW

import lhuc_asr
from lhuc_asr.adapt.methods import METHODS
from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.config import load_config
from lhuc_asr.cli import main as command_line
from lhuc_asr.corpus.sources import SOURCES
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.study.run import KNOWN

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/any_model.md",
    "docs/extending.md",
    "docs/offline.md",
    "docs/ppnet.md",
    "docs/toy.md",
    "docs/tutorial.md",
)
# Pages whose blocks of Python run one after the other, as one.
CHAINED = ("docs/any_model.md",)
# Files of the examples of docs/extending.md.
NOT_YET_WRITTEN = {"adapt/offsets.py", "corpus/listed.py"}
# Run elsewhere: set-up and demo by every fresh clone, the toy by tests/cli; a download needs a network.
ELSEWHERE = (
    *("make demo", "make test", ".venv/bin/lhuc-asr toy", ".venv/bin/lhuc-asr download", "lhuc-asr download"),
    "pip install lhuc_asr",
)
# What makes the tutorial's run one of seconds.
SMALL = """
    workers=1 heldout_speakers=1 speeds=[1.0] realignments=0 controls=[others_mean]
    'monophone={iterations: 4, growing_iterations: 2, gaussians: 120}'
    'dnn={hidden_layers: 1, hidden_units: 48, activation: relu, context: 2}'
    'trainer={schedule: {learning_rate: 0.05, max_epochs: 2}}' tuning.acoustic_scales=[0.1,0.2]
"""


def blocks(page: str, language: str) -> list[str]:
    """The code of a page in a language, one string a block."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


def commands(page: str) -> list[str]:
    """The lines that are typed, comments left out."""
    lines = [line.split(" #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE)]


@pytest.fixture
def type_in(package_log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Run a line in this process, in a folder of its own: its patterns expanded, its pipe's sound on standard input."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> None:
        if line.startswith("pip install ./"):
            install(Path(line.split()[-1]), tmp_path, monkeypatch)
            return
        if "|" in line:
            before, line = line.split("|")
            raw = soundfile.read("talk.wav", dtype="int16")[0].tobytes()
            sound = raw if "-t raw" in before else Path("talk.wav").read_bytes()
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sound)))
        words = [
            word
            for typed in shlex.split(os.path.expandvars(line))[1:]
            for word in (sorted(map(str, Path().glob(typed))) if "*" in typed else [typed])
        ]
        monkeypatch.setattr(sys, "argv", ["lhuc-asr", *words])
        with pytest.raises(SystemExit) as caught:
            command_line.main()
        assert caught.value.code in (0, None), line

    return run


def install(project: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a package's project importable, as pip would, in a folder beside it."""
    with monkeypatch.context() as patch:
        patch.chdir(project)
        wheel = folder / build.build_wheel(str(folder))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    wheel.unlink()
    monkeypatch.syspath_prepend(folder / "site")


@pytest.fixture
def recordings(finished: Path, type_in, tmp_path: Path) -> Path:
    """The files that the pages speak of."""
    said = [u.audio for u in read_manifest(finished / "corpus" / "test.jsonl") if u.speaker == "2001"]
    for name in (
        "alice/one.wav",
        "alice/two.wav",
        "talk.wav",
        "talk.flac",
        "talks/one.flac",
        "a.wav",
        "b.wav",
        "c.wav",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, *soundfile.read(said[len(name) % len(said)]))
    shutil.copytree(tmp_path / "alice", tmp_path / "corpus" / "alice")
    word = (finished / "lang" / "lexicon.txt").read_text(encoding="utf-8").split()[0]
    for name in ("talk.txt", "corpus/alice/one.lab", "corpus/alice/two.txt", "MODEL.md"):
        (tmp_path / name).write_text(f"{word}\n", encoding="utf-8")
    (tmp_path / "exp").mkdir()
    shutil.copytree(finished, tmp_path / "exp" / "an4")
    return tmp_path


def test_the_readme_adapts_to_a_new_speaker(recordings: Path, type_in) -> None:
    typed = [line for line in commands("README.md") if " run " not in line]
    verbs = ["adapt", "transcribe", "export", "adapt", "transcribe", "adapt", "align"]
    assert [line.split()[1] for line in typed] == verbs
    # The first two name an installed model.
    type_in("lhuc-asr package exp/an4 package --name librispeech --notice MODEL.md --license CC0-1.0")
    type_in("pip install ./package")
    shutil.copytree(recordings / "alice", recordings / "recordings")
    for line in typed:
        type_in(line)
    assert (recordings / "alice.safetensors").is_file()
    assert (recordings / "me.safetensors").is_file()
    assert {path.stem for path in (recordings / "speakers").iterdir()} == {"alice"}


def test_the_offline_page_from_top_to_bottom(recordings: Path, type_in) -> None:
    typed = commands("docs/offline.md")
    first = next(n for n, line in enumerate(typed) if line.startswith("lhuc-asr speakers"))
    for line in typed[:first]:
        type_in(line)
    assert (recordings / "talks.ctm").read_text(encoding="utf-8").split()[0] == "one"
    assert {path.name for path in (recordings / "aligned" / "alice").iterdir()} == {"one.TextGrid", "two.TextGrid"}
    for name, folder in (("alice", "speakers"), ("carol", "new"), ("bob", ".")):
        (recordings / folder).mkdir(exist_ok=True)
        type_in(f"lhuc-asr adapt model --speaker {name} alice -o {folder}/{name}.safetensors")
    for line in typed[first:]:
        type_in(line)
    assert {path.stem for path in (recordings / "speakers").iterdir()} == {"bob", "carol"}


@pytest.mark.timeout(900)  # exports six networks, each twenty seconds where other work has the cores
def test_the_ranking_page_from_top_to_bottom(type_in, tmp_path: Path) -> None:
    """Its recipe with one model, one seed and few users."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    small = "seeds=[1] data.users=6 data.examples=30 data.heldout=10 trainer.epochs=1"
    train, *others = commands("docs/ppnet.md")
    type_in(f"{train} {small}")
    for line in others:
        type_in(line)
    assert (tmp_path / "clicks.csv").read_text(encoding="utf-8").count("\n") == 1 + 6 * 10
    assert (tmp_path / "gates" / "gates.png").is_file()


@pytest.fixture
def mini(finished: Path, tmp_path: Path) -> Path:
    """The voices of the tiny experiment, laid out as mini LibriSpeech is."""
    for split, subset in (("train", "train-clean-5"), ("heldout", "train-clean-5"), ("test", "dev-clean-2")):
        for utterance in read_manifest(finished / "corpus" / f"{split}.jsonl"):
            chapter = tmp_path / "data" / "LibriSpeech" / subset / utterance.speaker / "1"
            chapter.mkdir(parents=True, exist_ok=True)
            id = f"{utterance.speaker}-1-{len(list(chapter.glob('*.wav'))):04d}"
            shutil.copyfile(utterance.audio, chapter / f"{id}.wav")
            with (chapter / f"{utterance.speaker}-1.trans.txt").open("a", encoding="utf-8") as file:
                file.write(f"{id} {utterance.text}\n")
    return tmp_path


def test_the_tutorial_from_the_check_to_the_words(
    mini: Path, type_in, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readers = sorted(path.name for path in (mini / "data" / "LibriSpeech" / "dev-clean-2").iterdir())
    monkeypatch.setenv("reader", readers[0])  # the page asks the shell for it
    said = {}
    for line in commands("docs/tutorial.md"):
        if line.startswith("lhuc-asr"):
            type_in(line.replace("hours=1", f"hours=0.02 {SMALL}").replace("_1h", "_0.02h"))
            said[line] = capsys.readouterr().out
    check, run, _export, _info, adapt, plain, adapted = said
    *_, lexicon, model = said[check].splitlines()
    assert lexicon.startswith("pronunciations: ")
    assert model.endswith("from the training transcripts")
    for heading in re.findall(r"^\| (\w.*?) \|", section("docs/tutorial.md", "5. Read the table"), re.M):
        assert heading in ("column", "the last") or heading in said[run], heading
    assert "others mean" in said[run]
    assert (mini / "exp" / "librispeech_0.02h" / "decode" / "dev-clean-2" / "table.txt").is_file()
    assert (mini / "exp" / "librispeech_0.02h" / "decode" / "dev-clean-2" / "speakers.csv").is_file()
    assert [line.split()[0] for line in said[adapt].splitlines()] == [
        *(f"{reader}:" for reader in readers), "unadapted", "adapted", "change",
    ]  # fmt: skip
    assert {path.stem for path in (mini / "speakers").iterdir()} == set(readers)
    assert said[plain].count("\n") == said[adapted].count("\n") == 3


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next."""
    return (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_series_and_looks_of_the_page_are_all_there_are() -> None:
    named = re.findall(r"^\| `(\w+)` \|", section("docs/benchmarking.md", "One thing varied"), re.M)
    assert sorted(named) == sorted(KNOWN)


@pytest.fixture
def import_block(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """Run a block as a module; what it puts into the tables of methods and corpora is taken out after the test."""
    before = [(table, dict(table)) for table in (METHODS, SOURCES)]

    def run(block: str, page: str) -> ModuleType:
        module = ModuleType("block")
        monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses and pydantic look it up
        exec(compile(block, page, "exec"), module.__dict__)
        return module

    yield run
    for table, content in before:
        table.clear()
        table.update(content)


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, recordings: Path, type_in, import_block) -> None:
    type_in("lhuc-asr export exp/an4 model")
    torch.manual_seed(1)
    parts = blocks(page, "python")
    for block in ["".join(parts)] if page in CHAINED else parts:
        import_block(block, page)


def example(page: str, heading: str) -> str:
    """The first block of Python below a heading."""
    return re.search(r"^```python\n(.*?)^```", section(page, heading), re.M | re.S)[1]


def test_the_method_of_the_extending_page_runs_in_a_recipe_and_for_a_new_speaker(
    recordings: Path, run, import_block
) -> None:
    experiment = recordings / "exp" / "an4"
    import_block(example("docs/extending.md", "An adaptation method"), "docs/extending.md")
    stages = run(experiment, "passes={offsets: {method: {kind: offsets}}}")
    assert [stage for stage in stages if "offsets over" in stage] == [
        f"offsets over {split}" for split in ("test", "control")
    ]
    recognizer = lhuc_asr.load(experiment)
    alice = recognizer.adapt(recordings / "alice", speaker="alice")
    alice.save(recordings / "alice.safetensors")
    texts = [
        [transcript.text for transcript in recognizer.transcribe(recordings / "talk.wav", speaker)]
        for speaker in (alice, recordings / "alice.safetensors")
    ]
    assert texts[0] == texts[1]
    assert alice.adapted.log_likelihoods("alice", []).shape == (0, alice.adapted.model.pdf_count)


def test_the_corpus_of_the_extending_page_is_read(recordings: Path, import_block) -> None:
    module = import_block(example("docs/extending.md", "A corpus"), "docs/extending.md")
    for name, audio in (("train", "a.wav"), ("test", "b.wav")):
        (recordings / f"{name}.list").write_text(f"{name}er\t{recordings / audio}\tGO ON\n", encoding="utf-8")
    reading = module.ListedSource(dir=recordings).read(recordings, hours=None, seed=1, processes=1)
    [utterance] = reading.tests["test"].utterances
    assert (utterance.speaker, utterance.words) == ("tester", ("GO", "ON"))
    assert utterance.seconds == soundfile.info(recordings / "b.wav").duration
    assert reading.recordings == {recordings / "a.wav", recordings / "b.wav"}


def written_pages() -> list[Path]:
    """All pages of the repository that people read."""
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*/*.md")]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", written_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


# Pages of decisions also name what has been moved.
@pytest.mark.parametrize(
    "page",
    [page for page in written_pages() if page.parent.name != "decisions"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_that_a_page_names_exist(page: Path) -> None:
    package = ROOT / lhuc_asr.__name__
    names = {path.name for path in package.rglob("*.py")}
    text = "".join(page.read_text(encoding="utf-8").split("```")[::2])
    for name in re.findall(r"`([\w/]+\.py)`", text):
        if name not in NOT_YET_WRITTEN:
            assert name in names or (ROOT / name).exists() or (package / name).exists(), name


def test_the_rooms_of_the_readme_and_of_contributing_are_the_packages() -> None:
    rooms = {path.parent.name for path in (ROOT / "lhuc_asr").glob("*/__init__.py")}
    readme, contributing = ((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "CONTRIBUTING.md"))
    assert set(re.findall(r"^\| `lhuc_asr/(\w+)`", readme, re.M)) == rooms
    stack = [line.split() for line in re.search(r"```\n(cli.*?)```", contributing, re.S)[1].splitlines()]
    assert {room for line in stack for room in line} == rooms
    for number, line in enumerate(stack):
        below = {room for other in stack[number + 1 :] for room in other}
        assert all(BELOW[room] <= below for room in line), line


def test_the_passes_of_the_map_are_passes() -> None:
    [text] = blocks("docs/map.md", "yaml")
    overrides = [f"passes={yaml.safe_load(text)['passes']}", "noise={dir: noise, classes: [rain]}"]
    load_config(ExperimentConfig, ROOT / "recipes/an4/config.yaml", overrides)


def test_the_glossary_is_in_alphabetical_order() -> None:
    terms = re.findall(r"^\| (.+?) \| [A-Z]", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.M)
    assert len(terms) > 15
    assert terms == sorted(terms, key=str.casefold)


def test_the_page_of_methods_has_all_of_them_with_the_defaults_of_the_code() -> None:
    _, *lines = re.findall(r"^\| (`\w+`.*) \|$", (ROOT / "docs/methods.md").read_text(encoding="utf-8"), re.M)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [row[0].strip("`") for row in rows] == list(METHODS)
    stated = 0
    for kind, _, _, options, files in rows:
        made = METHODS[kind.strip("`")]()
        assert (ROOT / "lhuc_asr/adapt" / files.split(",")[0].strip("`")).exists()
        for option in re.findall(r"`([^`]+)`", options):
            name, _, value = option.partition(": ")
            if value and name != "preset":
                stated += 1
                assert getattr(made, name) == yaml.safe_load(value), option
    assert stated > 30
