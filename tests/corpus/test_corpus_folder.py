"""Folders of recordings with texts beside them: speakers by folder, what is missing, what is refused."""

import pytest

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.folder import read_folder


@pytest.fixture
def root(tmp_path, record):
    root = tmp_path / "talks"
    for name, text in (("ann/one", "yes\nno\n"), ("ann/late/one", "go"), ("bob/two", "stop")):
        record(root / f"{name}.wav", seconds=0.5)
        (root / f"{name}.txt").write_text(text)
    return root


def test_speakers_are_the_folders(root):
    (root / "bob" / "two.txt").rename(root / "bob" / "two.lab")
    (root / "README.md").write_text("About it.\n")
    assert read_folder(root).utterances == [
        Utterance("ann-late-one", "ann", "", root / "ann" / "late" / "one.wav", 0.0, 0.5, "GO"),
        Utterance("ann-one", "ann", "", root / "ann" / "one.wav", 0.0, 0.5, "YES NO"),
        Utterance("bob-two", "bob", "", root / "bob" / "two.wav", 0.0, 0.5, "STOP"),
    ]


def test_a_recording_without_text_is_left_out(root):
    (root / "bob" / "two.txt").unlink()
    reading = read_folder(root)
    assert [utterance.speaker for utterance in reading.utterances] == ["ann", "ann"]
    [skip] = reading.skipped
    assert (skip.id, skip.reason) == ("bob-two", f"{root / 'bob' / 'two.wav'}: no transcript in two.txt")


def test_what_is_refused(root, record, tmp_path):
    (root / "ann" / "one.lab").write_text("yes\n")
    with pytest.raises(CorpusError, match=r"one\.txt: duplicates one\.lab; keep one of them"):
        read_folder(root)
    (root / "ann" / "one.lab").unlink()
    record(root / "loose.wav")
    with pytest.raises(
        CorpusError, match=r"loose\.wav: is in no speaker's folder; move it to talks/SPEAKER/loose\.wav"
    ):
        read_folder(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty: no recording; expected empty/SPEAKER/NAME\.wav"):
        read_folder(tmp_path / "empty")
