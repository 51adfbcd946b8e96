"""The report of the tiny experiment: what it says is what the files say, and a stranger's text stays text."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import operator
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import read_json, read_json_lines, write_json_lines
from lhuc_asr.base.errors import ConfigError, CorpusError, ExperimentError, OutputError
from lhuc_asr.cli.main import app
from lhuc_asr.score.word_alignment import Fate
from lhuc_asr.study.run import read_finished
from lhuc_asr.web.report import NAMED_CONFUSIONS, confusion, read_report
from lhuc_asr.web.report_file import write_report
from lhuc_asr.web.sounds import Sounds

CHROMIUM = shutil.which("chromium")
# A transcript that would run if it were not escaped, and a name that would end an attribute.
HOSTILE = '<script>document.title="taken"</script>"\'><img/src=x/onerror="document.title=1">'


class Page(HTMLParser):
    """The page's texts by tag, and its addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open:
            self.texts.append((self._open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        return [text for owner, text in self.texts if owner == tag]


@pytest.fixture(scope="module")
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "exp"
    shutil.copytree(finished, folder)
    write_report(folder, sounds=Sounds.ALL)
    return folder


def test_the_page_has_the_errors_of_every_speaker_and_the_words_of_every_recording(reported: Path) -> None:
    text = (reported / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    before, after = (read_json(reported / "decode" / "test" / name / "wer.json") for name in ("si", "lhuc"))
    rows = re.findall(r"<tr><th scope=\"row\"><a[^>]*>([^<]*)</a></th>((?:<td[^>]*>[^<]*</td>)+)", text)
    assert {name for name, _ in rows} == set(after["speakers"])
    for name, cells in rows:
        counts = [int(each) for each in re.findall(r"<td>(\d+)</td>", cells)[:3]]
        speakers = before["speakers"][name], after["speakers"][name]
        assert counts == [speakers[0]["words"], speakers[0]["errors"], speakers[1]["errors"]]
    gains = [before["speakers"][name]["wer"] - after["speakers"][name]["wer"] for name, _ in rows]
    assert gains == sorted(gains, reverse=True)
    said = {utterance.id: " ".join(utterance.words) for utterance in read_manifest(reported / "corpus" / "test.jsonl")}
    spoken = page.of("dd")
    for name in ("lhuc", "si"):
        for row in read_json_lines(reported / "decode" / "test" / name / "hypotheses.jsonl"):
            assert (row["words"] or "nothing") in spoken, name
    assert set(said.values()) <= set(spoken)


def test_nothing_is_asked_of_a_network_and_the_sounds_are_the_recordings(reported: Path) -> None:
    page = Page((reported / "report.html").read_text(encoding="utf-8"))
    kinds = ("data:image/svg+xml;base64,", "data:audio/ogg;base64,", "#speaker")
    assert page.addresses
    assert all(address.startswith(kinds) for address in page.addresses)
    utterances = read_manifest(reported / "corpus" / "test.jsonl")
    sounds = [each.partition(",")[2] for each in page.addresses if each.startswith("data:audio")]
    assert len(sounds) == len(utterances)
    seconds = [soundfile.info(io.BytesIO(base64.b64decode(each))).duration for each in sounds]
    assert sorted(seconds) == pytest.approx(sorted(utterance.seconds for utterance in utterances), abs=0.01)


def test_one_speaker_alone_without_sound(reported: Path, tmp_path: Path) -> None:
    speakers = list(read_json(reported / "decode" / "test" / "lhuc" / "wer.json")["speakers"])
    path = write_report(reported, speakers=[speakers[0]], sounds=Sounds.NONE, output=tmp_path / "one.html")
    page = Page(path.read_text(encoding="utf-8"))
    sections = [text for text in page.of("h2") if text in speakers]
    assert sections == [speakers[0]]
    assert not any(address.startswith("data:audio") for address in page.addresses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "--split dev: no such test set; choose from test, control"),
        ({"name": "si"}, "--pass si: no pass that is compared; choose from lhuc"),
        ({"speakers": ["nobody"]}, "--speaker nobody: not in test; speakers: 2001, 2002"),
    ],
)
def test_what_is_not_there_is_told_and_the_page_stays(reported: Path, options: dict, message: str) -> None:
    before = (reported / "report.html").read_bytes()
    with pytest.raises(ConfigError, match=message):
        write_report(reported, **options)
    assert (reported / "report.html").read_bytes() == before


def test_a_file_that_cannot_be_written_is_told_before_the_work(reported: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; give the name of a file"):
        write_report(reported, output=tmp_path)


def test_other_folders_and_damaged_experiments(reported: Path, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no such file; expected the folder of an experiment"):
        write_report(tmp_path)
    folder = Path(shutil.copytree(reported, tmp_path / "exp"))
    rows = folder / "decode" / "test" / "lhuc" / "hypotheses.jsonl"
    write_json_lines(rows, list(read_json_lines(rows))[1:])
    with pytest.raises(CorpusError, match="not in the hypotheses of si and lhuc"):
        write_report(folder)


def test_a_recording_that_is_gone_costs_its_sound_only(reported: Path, tmp_path: Path, caplog) -> None:
    folder = Path(shutil.copytree(reported, tmp_path / "exp"))
    read_manifest(folder / "corpus" / "test.jsonl")[0].audio.unlink()
    path = write_report(folder, sounds=Sounds.ALL)
    assert (
        path.read_text(encoding="utf-8").count("data:audio") == len(read_manifest(folder / "corpus" / "test.jsonl")) - 1
    )
    assert re.search(r"1 of \d+ recordings cannot be listened to", caplog.text)


@pytest.fixture(scope="module")
def hostile(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an experiment whose transcripts and words are an attack."""
    folder = Path(shutil.copytree(reported, tmp_path_factory.mktemp("hostile") / "exp"))
    manifest = folder / "corpus" / "test.jsonl"
    rows = [{**row, "text": HOSTILE} for row in map(json.loads, manifest.read_text("utf-8").splitlines())]
    write_json_lines(manifest, rows)
    words = folder / "decode" / "test" / "lhuc" / "hypotheses.jsonl"
    changed = [{**row, "words": HOSTILE, "word_frames": [0]} for row in read_json_lines(words)]
    write_json_lines(words, changed)
    return write_report(folder, sounds=Sounds.NONE)


def test_strangers_text_stays_text(hostile: Path) -> None:
    page = Page(hostile.read_text(encoding="utf-8"))
    assert HOSTILE in page.of("dd")
    assert len(page.of("script")) == 1
    assert "taken" not in page.of("script")[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_a_browser_runs_the_page_and_not_the_text(hostile: Path, tmp_path: Path) -> None:
    """The title stays, the page's own script has run (headings can be sorted), and the console has no error."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path}", "--dump-dom", hostile.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>([^<]*)</title>", ran.stdout)
    assert title is not None
    assert title[1].endswith(": lhuc")
    assert '<th scope="col" tabindex="0">' in ran.stdout
    assert "CONSOLE" not in ran.stderr


def test_the_command_names_the_file_and_its_size(reported: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    ran = CliRunner().invoke(app, ["report", str(reported), "--sounds", "none", "-o", str(tmp_path / "page.html")])
    assert ran.exit_code == 0, ran.output
    assert re.search(r"page\.html  0\.\d MB", ran.output)


def test_a_stack_is_told_of_as_a_whole_too(ladder: Path, tmp_path: Path) -> None:
    path = write_report(ladder, name="fmllr_lhuc", sounds=Sounds.NONE, output=tmp_path / "page.html")
    row = read_json(ladder / "decode" / "test" / "comparison.json")["fmllr_lhuc"]["also_against"]["si"]
    change = f"{100 * row['relative']:+.1f} ["
    assert f"Beside si: {change}" in html.unescape(path.read_text("utf-8"))


def test_errors_are_told_as_what_was_heard_and_a_speakers_change_has_its_own_chance(reported: Path) -> None:
    """The lists add up to the counts, words too many included."""
    config = read_finished(reported)
    for speaker in read_report(config).speakers:
        for fate in (Fate.MENDED, Fate.BROKEN, Fate.WRONG):
            told = sum(count for _, count in speaker.confusions(fate))
            of_kind = sum(recording.fates[fate] for recording in speaker.recordings)
            assert told == of_kind or len(speaker.confusions(fate)) == NAMED_CONFUSIONS
        changes = [each.errors_after - each.errors_before for each in speaker.recordings]
        flipped = [sum(map(operator.mul, changes, signs)) for signs in itertools.product((-1, 1), repeat=len(changes))]
        as_far = sum(abs(each) >= abs(sum(changes)) for each in flipped)
        assert speaker.chance == pytest.approx(as_far / len(flipped))
    assert confusion("M", "N") == "M heard as N"
