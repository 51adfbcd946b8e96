"""Cut manifests that Lhotse wrote, and changed ones that are refused.

``lhotse_cuts.jsonl`` was written by Lhotse 1.33, CutSet.from_cuts(cuts).to_file("lhotse_cuts.jsonl") with

    stereo = Recording("rec1", [AudioSource("file", [0, 1], "rec1.wav")], 16000, 64000, 4.0, channel_ids=[0, 1])
    mono = Recording("rec2", [AudioSource("file", [0], "rec2.flac")], 16000, 32000, 2.0)
    yes = SupervisionSegment("a-1", "rec1", 0.25, 0.5, 1, text="yes", speaker="alice")
    no = SupervisionSegment("a-2", "rec1", 1.0, 1.5, 1, text="no no", speaker="alice")
    home = SupervisionSegment("b-1", "rec2", 0.0, 2.0, 0, text="Go home.", speaker="bob")
    cuts = [
        MonoCut("whole", 0.0, 2.0, 0, [home], recording=mono),
        MonoCut("part", 1.0, 3.0, 1, [yes, no], recording=stereo),
    ]
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.corpus.lhotse import read_cuts

GOLDEN = Path(__file__).with_name("lhotse_cuts.jsonl")


@pytest.fixture
def changed(tmp_path):
    """Write the manifest with its second cut changed by a function."""

    def write(change):
        first, second = GOLDEN.read_text(encoding="utf-8").splitlines()
        cut = json.loads(second)
        change(cut)
        (tmp_path / "cuts.jsonl").write_text(f"{first}\n{json.dumps(cut)}\n", encoding="utf-8")
        return tmp_path / "cuts.jsonl"

    return write


def test_supervisions_are_utterances_and_lhotse_is_not_imported(tmp_path):
    path = tmp_path / "cuts.jsonl.gz"
    path.write_bytes(gzip.compress(GOLDEN.read_bytes()))
    stereo, mono = tmp_path / "rec1.wav", tmp_path / "rec2.flac"
    assert read_cuts(path).utterances == [
        Utterance("a-1", "alice", "", stereo, 1.25, 0.5, "YES", channel=2),
        Utterance("a-2", "alice", "", stereo, 2.0, 1.5, "NO NO", channel=2),
        Utterance("b-1", "bob", "", mono, 0.0, 2.0, "GO HOME."),
    ]
    importing = "import sys, lhuc_asr.corpus.sources; sys.exit('lhotse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", importing], check=False).returncode == 0


def test_all_channels_are_their_mean(changed):
    path = changed(lambda cut: [s.update(channel=[0, 1]) for s in cut["supervisions"]] and cut.update(type="MultiCut"))
    assert read_cuts(path).utterances[0].channel is None


def test_a_file_for_each_channel(changed):
    sources = [{"type": "file", "channels": [n], "source": f"side{n}.wav"} for n in (0, 1)]
    utterance = read_cuts(changed(lambda cut: cut["recording"].update(sources=sources))).utterances[0]
    assert (utterance.audio.name, utterance.channel) == ("side1.wav", None)


def test_a_supervision_that_begins_before_its_cut(changed):
    utterance = read_cuts(changed(lambda cut: cut["supervisions"][0].update(start=-1.5, duration=2.0))).utterances[0]
    assert (utterance.start, utterance.seconds) == (0.0, 1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cut: cut.pop("id"), r"cuts\.jsonl:2: not a cut of Lhotse \(id.*\); write it with CutSet\.to_file"),
        (
            lambda cut: cut.update(type="MixedCut"),
            r":2: the cut part is a MixedCut, expected MonoCut or MultiCut; save",
        ),
        (
            lambda cut: cut.pop("recording"),
            r":2: the cut part has no recording; save the audio with CutSet\.save_audios",
        ),
        (
            lambda cut: cut["recording"].update(transforms=[{"name": "Speed", "kwargs": {"factor": 1.1}}]),
            r":2: the cut part has a recording that is transformed when it is read",
        ),
        (lambda cut: cut["supervisions"][0].pop("speaker"), r":2: the supervision a-1 has no speaker; give it one"),
        (
            lambda cut: cut["supervisions"][0].update(channel=7),
            r":2: the recording rec1 has no file with the channel 7",
        ),
        (
            lambda cut: cut["recording"]["sources"][0].update(type="command", source="touch ran"),
            r":2: the recording rec1 comes from a command, expected a file: commands in data are never run",
        ),
    ],
)
def test_what_is_refused(changed, tmp_path, change, message):
    with pytest.raises(CorpusError, match=message):
        read_cuts(changed(change))
    assert not (tmp_path / "ran").exists()
