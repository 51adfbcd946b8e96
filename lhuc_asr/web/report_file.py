"""The file of a report: what it says, its pictures and sounds, in one page."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lhuc_asr.audio.utterance import Utterance, read_manifest
from lhuc_asr.base.atomic import read_json, write_text
from lhuc_asr.base.destinations import check_writable
from lhuc_asr.base.errors import AudioError, ConfigError, MissingExtraError
from lhuc_asr.base.experiment_folder import RUN_FILE, ExperimentFolder
from lhuc_asr.base.runlog import progress
from lhuc_asr.corpus.splits import TRAIN
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.experiment import fold_configs
from lhuc_asr.score.figures import svg_of
from lhuc_asr.score.series import series_figure
from lhuc_asr.score.speaker_figures import amplitude_map, gains_figure
from lhuc_asr.score.voices_figure import voices_figure
from lhuc_asr.study.looks import read_amplitudes
from lhuc_asr.study.run import finished_points, read_finished
from lhuc_asr.study.series import SERIES
from lhuc_asr.web.page import Picture, address, page, sound
from lhuc_asr.web.report import Report, SpeakerReport, read_report
from lhuc_asr.web.sounds import Sounds
from lhuc_asr.web.voices import Voice, in_words, voices

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"
# A picture of amplitudes says how far a speaker is from the others: there have to be some.
LEAST_OTHERS = 3


def write_report(
    folder: Path,
    split: str | None = None,
    name: str | None = None,
    speakers: Collection[str] = (),
    sounds: Sounds = Sounds.CHANGED,
    output: Path | None = None,
) -> Path:
    """Write the report of a finished experiment, whole or not at all.

    Args:
        folder: Folder of the experiment, or of a whole cross-validation.
        split: Name of the test set; None for the first.
        name: Name of the pass; None for the primary comparison.
        speakers: Names of the speakers whose recordings are shown; all if empty.
        sounds: Recordings that can be listened to.
        output: The file; None for ``report.html`` in the folder.

    Returns:
        The file.

    Raises:
        ExperimentError: The folder is not a finished experiment's.
        ConfigError: The experiment lacks the test set, the pass or a speaker.
        OutputError: The file cannot be written.
        ScoreError, SearchError, CorpusError: A file of the experiment is missing or damaged.
    """
    path = output or folder / REPORT_FILE
    check_writable(path)
    config = read_finished(folder)
    report = read_report(config, split, name, read_json(folder / RUN_FILE))
    shown = [speaker for speaker in report.speakers if not speakers or speaker.name in speakers]
    if missing := sorted(set(speakers) - {speaker.name for speaker in shown}):
        known = ", ".join(sorted(speaker.name for speaker in report.speakers))
        raise ConfigError(f"--speaker {missing[0]}: not in {report.split}; speakers: {known}")
    heard = dict(_sounds(shown, sounds))
    of_speakers, training = _voices(config, report.split)
    pictures = [*_pictures(report), *_of_seconds(config, report), *_of_voices(report, of_speakers, training)]
    told = {
        name: in_words(of_speakers[name], [of_speakers[each] for each in names])
        for name, names in training.items()
        if name in of_speakers
    }
    text = page(report, shown, heard, pictures, dict(_maps(config, report, shown)), told)
    write_text(path, text)
    return path


def _sounds(shown: Sequence[SpeakerReport], wanted: Sounds) -> Iterator[tuple[str, str]]:
    """Sounds of recordings as addresses, by the utterance's id; a warning counts those that are not there any more."""
    recordings = [
        recording
        for speaker in shown
        for recording in speaker.recordings
        if wanted is Sounds.ALL or (wanted is Sounds.CHANGED and recording.changed)
    ]
    lost = []
    for recording in progress(recordings, "sounds", len(recordings)):
        try:
            yield recording.utterance.id, sound(recording.utterance)
        except AudioError as error:
            lost.append(str(error))
    if lost:
        logger.warning("%d of %d recordings cannot be listened to: %s", len(lost), len(recordings), lost[0])


def _pictures(report: Report) -> list[Picture]:
    """The picture of the speakers' gains."""
    entry, against = report.line.entry, report.line.base
    if entry.base is None or against is None:
        return []
    figure = gains_figure(entry.base, entry.report, against.comparison, f"{entry.name} against {report.base}")
    alt = "the change of each speaker's word error rate, from the largest gain to the largest loss"
    return [Picture(address(svg_of(figure, "gains"), "image/svg+xml"), alt)]


def _of_seconds(config: ExperimentConfig, report: Report) -> list[Picture]:
    """The picture of the error rate by seconds heard, where the series of that name has been made of the pass."""
    points = finished_points(config, "seconds", report.line.entry.name, report.split)
    if not points:
        return []
    series = SERIES["seconds"]
    figure = series_figure(points, series.title, series.axis, series.paper, series.joined)
    alt = "the change of the word error rate by the seconds of speech that were adapted on"
    return [Picture(address(svg_of(figure, "seconds"), "image/svg+xml"), alt)]


def _voices(config: ExperimentConfig, split: str) -> tuple[dict[str, Voice], dict[str, Sequence[str]]]:
    """Voices by speaker, and the training speakers of each test speaker's network whose voices are known.

    Without the extra "pitch" there are none, and the log says so.
    """
    heard: list[Utterance] = []
    training: dict[str, Sequence[str]] = {}
    for fold in fold_configs(config):
        folder = ExperimentFolder(fold.folder)
        trained, tested = (list(read_manifest(folder.manifest(each))) for each in (TRAIN, split))
        heard += [*trained, *tested]
        names = sorted({utterance.speaker for utterance in trained})
        training |= {utterance.speaker: names for utterance in tested}
    try:
        known = voices(heard, config.workers)
    except MissingExtraError as error:
        logger.warning("the report does not show voices: %s", error)
        return {}, {}
    return known, {name: [each for each in names if each in known] for name, names in training.items()}


def _of_voices(report: Report, known: Mapping[str, Voice], training: Mapping[str, Sequence[str]]) -> list[Picture]:
    """The picture of all voices by pitch and level."""
    places = {name: (voice.pitch, voice.level) for name, voice in known.items() if voice.pitch is not None}
    gained = {speaker.name: speaker.gained for speaker in report.speakers if speaker.name in places}
    if not gained:
        return []
    trained = {each for names in training.values() for each in names if each in places}
    figure = voices_figure({name: places[name] for name in trained}, {name: places[name] for name in gained}, gained)
    alt = "pitch and level of the test speakers' voices, by what adaptation changed, among the training speakers'"
    return [Picture(address(svg_of(figure, "voices"), "image/svg+xml"), alt)]


def _maps(config: ExperimentConfig, report: Report, shown: Sequence[SpeakerReport]) -> Iterator[tuple[str, str]]:
    """Pictures of speakers' amplitudes beside the others of their fold, for passes that estimate one set a speaker."""
    name = report.line.entry.name
    if name not in config.passes or not config.estimates_amplitudes(name):
        return
    wanted = {speaker.name for speaker in shown}
    for fold in fold_configs(config):
        names, layers = read_amplitudes(ExperimentFolder(fold.folder).speakers(report.split, name))
        for row, speaker in enumerate(names):
            if speaker in wanted and len(names) > LEAST_OTHERS:
                others = [np.delete(values, row, axis=0) for values in layers.values()]
                title = f"amplitudes beside those of {len(names) - 1} other speakers"
                figure = amplitude_map([values[row] for values in layers.values()], others, title)
                yield speaker, address(svg_of(figure, speaker), "image/svg+xml")
