"""The page of a report: one HTML file with all that it needs, and nothing in it that asks a network.

Names and transcripts are strangers' text: the template escapes them, and the page's own rule (Content-Security-Policy)
lets no script run but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

import jinja2
import soundfile

from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.score.judgement import Against, PassScore, Verdict
from lhuc_asr.score.significance import LEVEL
from lhuc_asr.score.tables import change_text, p_text
from lhuc_asr.score.word_alignment import Fate
from lhuc_asr.web.report import RecordingReport, Report, SpeakerReport

# Sample rate of the sound in the page, and its quality from 0 to 1, least loss last.
SOUND_RATE, SOUND_QUALITY = 16_000, 0.3
# A long sound written to Vorbis at once overflows the encoder's stack.
SOUND_BLOCK = 16_000

# What so few units that differ can never show.
TOO_FEW = " So few whose errors differ cannot be evidence, however large the change: p has a least value."

Tone = Literal["good", "bad", ""]


@dataclass(frozen=True)
class Judged:
    """The verdict in words.

    Attributes:
        headline: The verdict.
        sentences: What it stands on.
        tone: Whether it is good or bad.
    """

    headline: str
    sentences: Sequence[str]
    tone: Tone


@dataclass(frozen=True)
class Picture:
    """A picture in the page.

    Attributes:
        source: Its data as an address.
        alt: What it shows, in words.
    """

    source: str
    alt: str


def page(
    report: Report,
    shown: Sequence[SpeakerReport],
    sounds: Mapping[str, str],
    pictures: Sequence[Picture],
    maps: Mapping[str, str],
    voices: Mapping[str, str],
) -> str:
    """The page, HTML.

    Args:
        report: What it says.
        shown: The speakers who have a section with their recordings.
        sounds: Sound of utterances, by their ids, as an address.
        pictures: Pictures below the verdict.
        maps: Pictures of speakers' amplitudes, by name, as an address.
        voices: What is told of speakers' voices, by name.
    """
    templates = files("lhuc_asr.web") / "templates"
    common, own, script = ((templates / name).read_text("utf-8") for name in ("common.css", "report.css", "report.js"))
    style = common + own
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((templates / "report.html.j2").read_text("utf-8"))
    return template.render(
        report=report,
        shown=shown,
        anchors={speaker.name: f"speaker-{number}" for number, speaker in enumerate(shown, start=1)},
        with_others=any(speaker.others for speaker in report.speakers),
        sounds=sounds,
        maps=maps,
        voices=voices,
        figures=pictures,
        verdict=verdict(report.line),
        rates=_rates(report),
        made=_made(report),
        style=style,
        script=script,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
        tone=_tone,
        points=_points,
        in_words=_in_words,
        confusions=_confusions,
        spoken=_spoken,
        percent=lambda rate: f"{100 * rate:.2f}",
        change=lambda against: "" if against is None else change_text(against.comparison),
        p=lambda against: "" if against is None else p_text(against.adjusted_p),
        counts=_counts,
    )


def verdict(line: PassScore) -> Judged:
    """What the comparisons of a pass say, in words."""
    entry, against = line.entry, line.base
    if against is None or entry.base is None:
        raise ValueError(f"{entry.name}: a pass that is not compared has no verdict")
    comparison = against.comparison
    unit = "speakers" if comparison.over_speakers else "recordings"
    taken = entry.base.errors - entry.report.errors
    change = f"{abs(taken)} of {entry.base.errors} word errors are gone" if taken >= 0 else f"{-taken} word errors more"
    sentences = [
        f"{change}: {change_text(comparison)} %, with the 95 % interval over {unit}; {_chance(against)}."
        + (TOO_FEW if comparison.least_p >= LEVEL else ""),
        f"{comparison.speakers_better} speakers have fewer errors, {comparison.speakers_worse} have more, "
        f"{comparison.speakers_equal} are unchanged.",
        _control_sentence(line),
        *_other_comparisons(line),
    ]
    match line.verdict:
        case Verdict.HELPED:
            return Judged("Adaptation helped", sentences, "good")
        case Verdict.HURT:
            return Judged("Adaptation hurt", sentences, "bad")
        case Verdict.NO_EVIDENCE:
            return Judged("No evidence that adaptation helped or hurt", sentences, "")
        case None:
            return Judged("A bound, or a control: not a result", sentences, "")


def _other_comparisons(line: PassScore) -> list[str]:
    """What a pass has changed beside others than its base."""
    return [
        f"Beside {name}: {change_text(comparison)} %, "
        f"{comparison.speakers_better} speakers with fewer errors, {comparison.speakers_worse} with more; p "
        f"{p_text(comparison.p_value)}, not adjusted."
        for name, comparison in line.also.items()
    ]


def _control_sentence(line: PassScore) -> str:
    others = line.others
    if others is None or line.entry.others is None:
        return (
            "Whether the change is the speakers' own cannot be told: the pass was not made with the mean of the other "
            "speakers' parameters."
        )
    own = line.entry.others.errors - line.entry.report.errors
    gone = f"{own} errors fewer" if own >= 0 else f"{-own} errors more"
    evidence = "is" if others.adjusted_p < LEVEL else "is not shown to be"
    return (
        f"Is it the speakers' own? With the mean of the other speakers' parameters, the same for everybody, there are "
        f"{line.entry.others.errors} errors. The speakers' own parameters have {gone} "
        f"({change_text(others.comparison)} %), which {evidence} more than chance ({_chance(others)})."
    )


def _chance(against: Against) -> str:
    """The p of a comparison, and the one that is corrected, if it is another."""
    alone, corrected = p_text(against.comparison.p_value), p_text(against.adjusted_p)
    return f"p {alone}" if corrected == alone else f"p {alone}, corrected for the number of passes {corrected}"


def sound(utterance: Utterance) -> str:
    """An utterance's sound as an address: Ogg Vorbis, 16 kHz.

    Raises:
        AudioError: The recording cannot be read.
    """
    samples = read_audio(utterance, SOUND_RATE)
    content = io.BytesIO()
    with soundfile.SoundFile(
        content, "w", SOUND_RATE, 1, "VORBIS", format="OGG", compression_level=1.0 - SOUND_QUALITY
    ) as file:
        for first in range(0, len(samples), SOUND_BLOCK):
            file.write(samples[first : first + SOUND_BLOCK])
    return address(content.getvalue(), "audio/ogg")


def address(content: bytes, kind: str) -> str:
    """Data as an address, so that nothing has to be fetched."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _rates(report: Report) -> list[dict[str, Any]]:
    """The error rates before, with the others' mean, and after, as bars."""
    entry = report.line.entry
    named = [
        (f"before: {report.base}", entry.base, ""),
        ("with the others' mean", entry.others, ""),
        (f"after: {entry.name}", entry.report, None),
    ]
    known = [(name, each, tone) for name, each, tone in named if each is not None]
    highest = max(each.wer for _, each, _ in known) or 1.0
    after = verdict(report.line).tone
    return [
        {
            "name": name,
            "wer": f"{100 * each.wer:.2f}",
            "errors": each.errors,
            "words": each.words,
            "share": f"{100 * each.wer / highest:.1f}",
            "tone": after if tone is None else tone,
        }
        for name, each, tone in known
    ]


def _made(report: Report) -> list[tuple[str, str]]:
    """Versions, seed and commit, for the reader who wants to make it again."""
    run = report.run
    git = run.get("git") or {}
    commit = str(git.get("commit", "unknown")) + (", with changes" if git.get("dirty") else "")
    rows = [("command", " ".join(map(str, run.get("command", [])))), ("seed", str(run.get("seed", "")))]
    rows += [("lhuc_asr", str(run.get("lhuc_asr", ""))), ("commit", commit), ("Python", str(run.get("python", "")))]
    rows += [(name, str(version)) for name, version in dict(run.get("packages", {})).items()]
    return [(key, value) for key, value in rows if value]


def _tone(speaker: SpeakerReport) -> Tone:
    return "good" if speaker.gained > 0 else "bad" if speaker.gained < 0 else ""


def _points(speaker: SpeakerReport) -> str:
    change = 100 * (speaker.after.wer - speaker.before.wer)
    return f"{change:+.1f}".replace("-", "−")


def _in_words(speaker: SpeakerReport) -> str:
    mended, broken, wrong = (
        sum(recording.fates[fate] for recording in speaker.recordings)
        for fate in (Fate.MENDED, Fate.BROKEN, Fate.WRONG)
    )
    others = "" if speaker.others is None else f", {speaker.others.errors} with the others' mean"
    changes = [each.errors_after - each.errors_before for each in speaker.recordings]
    fewer, more = sum(change < 0 for change in changes), sum(change > 0 for change in changes)
    chance = "" if fewer == more == 0 else f" (p {p_text(speaker.chance)} over recordings)"
    return (
        f"{len(speaker.recordings)} recordings, {speaker.seconds:.0f} s, {speaker.before.words} words: "
        f"{speaker.before.errors} errors before, {speaker.after.errors} after{others}. Fewer errors in {fewer} "
        f"recordings, more in {more}{chance}. {mended} errors are gone, {broken} are new, {wrong} remain."
    )


def _confusions(speaker: SpeakerReport) -> list[tuple[str, str, list[tuple[str, int]]]]:
    """The speaker's errors by fate: its name, a heading, and what was heard in place of what was said."""
    headings = {Fate.MENDED: "right now, before", Fate.BROKEN: "newly wrong", Fate.WRONG: "still wrong"}
    return [(fate.value, heading, speaker.confusions(fate)) for fate, heading in headings.items()]


def _spoken(recording: RecordingReport, which: str) -> str:
    """A row of words as a sentence."""
    words = (getattr(column, which) for column in recording.columns)
    return " ".join(word for word in words if word is not None) or "nothing"


def _counts(against: Against | None) -> str:
    if against is None:
        return ""
    comparison = against.comparison
    return f"{comparison.speakers_better} / {comparison.speakers_worse} / {comparison.speakers_equal}"
