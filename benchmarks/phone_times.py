"""Alignments of the demo's voices against the times at which espeak-ng says each phone.

    python benchmarks/phone_times.py EXP [FIGURE]     # a finished experiment on synthetic voices

The voices of EXP are made again with the synthesizer's phone times, and each recording must be the one that EXP has.
The recordings of each speaker are aligned with their transcripts by ``Recognizer.align``, by the unadapted network and
with the speaker's amplitudes. The phones of the lexicon and those that the voice said are matched by edit distance, and
the beginnings of phones that are equal are compared. FIGURE shows one recording with both.

Three things differ by definition. A frame of 25 ms stands for the time at its beginning, so that the boundary between
two phones is 7.5 ms after the time that an alignment gives. espeak-ng's stops begin with their bursts, an alignment's
with their closures. Its vowels after a nasal or a liquid begin after the transition.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import soundfile
from timing import show

from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import CorpusError
from lhuc_asr.base.espeak import SpokenPhone
from lhuc_asr.corpus.synthetic import SyntheticSource
from lhuc_asr.corpus.voices import CHAPTER, Said, SyntheticSpeaker, recordings, speakers
from lhuc_asr.lang.pronounce import ipa_to_arpabet
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.recognizer.recognizer import Recognizer, load
from lhuc_asr.recognizer.transcript import Phone, Transcript

SPLITS = ("test", "control")
CLASSES = {
    "vowels": "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW",
    "stops": "B D G K P T",
    "fricatives, affricates": "CH DH F HH JH S SH TH V Z ZH",
    "nasals": "M N NG",
    "liquids, glides": "L R W Y",
}
CLASS_OF = {phone: name for name, phones in CLASSES.items() for phone in phones.split()}
CLOSE_MILLISECONDS = 20.0


@dataclass(frozen=True)
class Difference:
    """A boundary that is in both, in one recording.

    Attributes:
        what: Class of the phone that begins there; or ``word begins``, ``word ends``.
        milliseconds: The alignment's time less the synthesizer's.
    """

    what: str
    milliseconds: float


def main(folder: Path, figure: Path | None) -> None:
    """Align, compare and print."""
    recognizer = load(folder)
    rows = []
    for split in SPLITS:
        for adapted in (False, True):
            differences: list[Difference] = []
            for said, transcript in aligned(folder, recognizer, split, adapted):
                differences += compared(said, transcript)
                if figure and split == "test" and not adapted:
                    draw(said, transcript, figure)
                    figure = None
            rows += table_rows(f"{split}, {'adapted' if adapted else 'unadapted'}", differences)
    columns = [
        "",
        "boundaries",
        "median |difference|, ms",
        f"within {CLOSE_MILLISECONDS:g} ms",
        "median, ms",
        "|...| less it",
    ]
    show(f"{folder}: alignment less synthesizer", columns, rows)


def aligned(folder: Path, recognizer: Recognizer, split: str, adapted: bool) -> Iterator[tuple[Said, Transcript]]:
    """Each recording of a split as it was said, and as it is aligned."""
    source = load_config(ExperimentConfig, folder / "config.yaml").corpus
    if not isinstance(source, SyntheticSource):
        raise CorpusError(f"{folder}: its corpus is not of synthetic voices; name an experiment of recipes/demo")
    (voices,) = source.made_folders(folder)
    for speaker in speakers(source.voices):
        if speaker.group == split:
            said = dict(recordings(source.voices, speaker))
            paths = [recording_of(voices, speaker, name, each) for name, each in said.items()]
            words = {name: each.sentence.split() for name, each in said.items()}
            person = folder / "speakers" / "lhuc" / split / f"{speaker.number}.safetensors"
            for transcript in recognizer.align(paths, words, person if adapted else None):
                yield said[transcript.recording], transcript


def recording_of(voices: Path, speaker: SyntheticSpeaker, name: str, said: Said) -> Path:
    """The file of a recording.

    Raises:
        CorpusError: It has other samples than the voice says now.
    """
    path = voices / speaker.group / str(speaker.number) / str(CHAPTER) / f"{name}.flac"
    samples, _ = soundfile.read(path, dtype="float32")
    if len(samples) != len(said.samples) or np.abs(samples - said.samples).max() > 1 / 32768:
        raise CorpusError(f"{path}: is not what this voice says; make the experiment again with this version")
    return path


def compared(said: Said, transcript: Transcript) -> Iterator[Difference]:
    """The boundaries of a recording that are in both."""
    starts = [(name, at) for each in said.phones for name, at in arpabet(each)]
    for start, phone in matched(starts, transcript.phones):
        yield Difference(CLASS_OF[name_of(phone)], 1000 * (phone.start - start))
    # Words that are said as one share a place: the first of them has its beginning, the last its end.
    places = [each.word for each in said.phones]
    first = {place: each.start for place, each in zip(reversed(places), reversed(said.phones), strict=True)}
    last = {place: each.end for place, each in zip(places, said.phones, strict=True)}
    at, group = 0, 0
    for number, (word, text) in enumerate(zip(transcript.words, said.sentence.split(), strict=True)):
        if at in first:
            group = at
            yield Difference("word begins", 1000 * (word.start - first[at]))
        at += len(text) + 1
        if at in first or number + 1 == len(transcript.words):
            yield Difference("word ends", 1000 * (word.end - last[group]))


def arpabet(spoken: SpokenPhone) -> Iterator[tuple[str, float | None]]:
    """The phones of the lexicon that one phone of espeak-ng is, and the beginning of the first."""
    for number, name in enumerate(ipa_to_arpabet(spoken.symbol)):
        yield name, None if number else spoken.start


def matched(starts: Sequence[tuple[str, float | None]], phones: Sequence[Phone]) -> Iterator[tuple[float, Phone]]:
    """Beginnings and phones that are equal and match by edit distance."""
    names = " ".join(name for name, _ in starts), " ".join(map(name_of, phones))
    (chunks,) = jiwer.process_words(*names).alignments
    for chunk in chunks:
        if chunk.type == "equal":
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                start = starts[chunk.ref_start_idx + offset][1]
                if start is not None:
                    yield start, phones[chunk.hyp_start_idx + offset]


def name_of(phone: Phone) -> str:
    """A phone of the lexicon, without its place in the word."""
    return phone.phone.partition("_")[0]


def table_rows(title: str, differences: Sequence[Difference]) -> list[list[str]]:
    """A row for each class, for all phones, and for the two sides of words."""
    by_class = {name: [d.milliseconds for d in differences if d.what == name] for name in CLASSES}
    words = {name: [d.milliseconds for d in differences if d.what == name] for name in ("word begins", "word ends")}
    rows = by_class | {"all phones": [each for values in by_class.values() for each in values]} | words
    return [[title, "", "", "", "", ""], *(row(f"  {name}", np.array(values)) for name, values in rows.items())]


def row(title: str, values: np.ndarray) -> list[str]:
    """Number of boundaries, median of the absolute differences, share of close ones, lag, and the median without it."""
    lag = np.median(values)
    close = np.mean(np.abs(values) <= CLOSE_MILLISECONDS)
    size, rest = np.median(np.abs(values)), np.median(np.abs(values - lag))
    return [title, str(len(values)), f"{size:.1f}", f"{100 * close:.0f} %", f"{lag:+.1f}", f"{rest:.1f}"]


def draw(said: Said, transcript: Transcript, path: Path) -> None:
    """The spectrogram of a recording, espeak-ng's phones above and the alignment's below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 6), layout="constrained")
    axes = figure.subplots()
    axes.specgram(said.samples, NFFT=160, noverlap=120, pad_to=512, Fs=16000, cmap="magma", vmin=-120)
    top = 8000
    for phone in said.phones:
        axes.axvline(phone.start, 0.5, 1.0, color="cyan", lw=1)
        axes.text(phone.start, top * 1.01, phone.symbol, color="darkcyan")
    for each in transcript.phones:
        axes.axvline(each.start, 0.0, 0.5, color="lime", lw=1)
        axes.text(each.start, -500, each.phone, color="green", fontsize=8)
    axes.set_title(f"{said.sentence}: espeak-ng above, alignment below", pad=20)
    axes.set(xlabel="seconds", ylabel="Hz")
    axes.xaxis.set_label_coords(0.5, -0.1)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
