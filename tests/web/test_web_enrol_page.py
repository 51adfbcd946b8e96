"""The enrolment page in Chromium, with a voice at its microphone: what a person does, sees, keeps and deletes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from browser import CHROMIUM, Browser, browser
from enrol_server import RATE, SECONDS, Server

from lhuc_asr.audio.utterance import Utterance

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture
def microphone(voices: list[np.ndarray], tmp_path: Path) -> Path:
    """What a browser's microphone hears: the voice, three times."""
    path = tmp_path / "microphone.wav"
    soundfile.write(path, np.concatenate(voices * 3), RATE, "PCM_16")
    return path


def begin(page: Browser, name: str, way: str) -> None:
    """Fill in the page's form, and send it."""
    page.value(f"at('name').value = '{name}'")
    page.click(f"input[value={way}]")
    page.click("#start button")


def test_in_a_browser_a_person_speaks_sees_both_sides_keeps_and_deletes(
    server: Server, microphone: Path, tmp_path: Path
) -> None:
    with browser(tmp_path / "profile", microphone) as page:
        page.open(server.url)
        begin(page, "Ann", "speak")
        page.wait("!at('recording').hidden")
        page.wait("at('level').value > -40")
        page.wait("at('without').children.length > 2", SECONDS)
        page.wait("at('adapted').querySelectorAll('p:not(.note)').length > 0", SECONDS)
        assert re.fullmatch(r"Words are \d\.\d s behind\.", page.text("#delay"))
        assert not server.folder.exists()
        page.click("#finish")
        page.wait("!at('ending').hidden", SECONDS)
        assert page.text("#headline").startswith("Your voice file")
        assert page.value("document.querySelectorAll('#rows .column').length") > 5
        page.click("#keeping button")
        page.wait("at('kept').textContent")
        assert [each.name for each in server.folder.iterdir()] == ["Ann.safetensors"]
        page.click("#delete")
        page.wait("!at('gone').hidden")
        assert page.problems == []
    assert list(server.folder.iterdir()) == []
    server.folder.rmdir()


def test_in_a_browser_silence_is_told_and_files_are_heard(
    server: Server, said: list[Utterance], tmp_path: Path
) -> None:
    silence = tmp_path / "silence.wav"
    soundfile.write(silence, np.zeros(20 * RATE, dtype=np.int16), RATE)
    empty, notes = tmp_path / "empty.wav", tmp_path / "notes.wav"
    empty.touch()
    notes.write_text("no sound\n" * 100)
    with browser(tmp_path / "profile", silence) as page:
        page.open(server.url)
        begin(page, "Ann", "read")
        page.wait("at('warning').textContent.startsWith('Nothing is heard')")
        page.click("#next")
        page.wait("at('problem').textContent.includes('say it again')")
        page.open(server.url)
        begin(page, ".x", "read")
        page.wait("at('problem').textContent.includes('choose another')")
        begin(page, "Ann", "files")
        page.wait("!at('choosing').hidden")
        assert page.value("sound") is None, "the microphone is closed"
        page.give("#files", [empty, notes, *(each.audio for each in said)])
        page.wait("at('problem').textContent.startsWith('notes.wav')")
        page.wait("at('without').querySelectorAll('p:not(.note)').length >= 3", SECONDS)
        page.wait("!at('finish').disabled", SECONDS)
        page.value("at('finish').click(), at('finish').click()")
        page.wait("!at('ending').hidden", SECONDS)
        assert page.value("document.querySelectorAll('#rows .row').length") == 3
        assert page.problems == []
