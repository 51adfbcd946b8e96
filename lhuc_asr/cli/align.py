"""``lhuc-asr align MODEL AUDIO TEXT`` and ``lhuc-asr align MODEL CORPUS``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lhuc_asr.cli.options import Channel, Device, ModelFolder, Output, Person, Threads, take_threads
from lhuc_asr.cli.output import show

if TYPE_CHECKING:
    from lhuc_asr.recognizer.recognizer import Recognizer
    from lhuc_asr.recognizer.recordings import OnBad
    from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus


def align(
    model: ModelFolder,
    audio: Annotated[
        str,
        typer.Argument(
            metavar="AUDIO",
            help="A recording, or one person's in a folder; or a corpus, a folder that has the transcripts too.",
        ),
    ],
    text: Annotated[
        Path | None,
        typer.Argument(
            metavar="TEXT",
            help="File with the words of the recording; for a folder, a line per recording, its name and its words.",
        ),
    ] = None,
    speaker: Person = None,
    form: Annotated[
        Literal["TextGrid", "ctm", "phone-ctm", "json"],
        typer.Option(
            "--format",
            case_sensitive=False,
            help="Words and phones: TextGrid for Praat, or json; words: ctm; phones: phone-ctm.",
        ),
    ] = "TextGrid",
    output: Output = None,
    channel: Channel = None,
    device: Device = "cpu",
    threads: Threads = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are not alignments of these recordings.")
    ] = False,
) -> None:
    """Align known words with recordings: when each word and each phone is said.

    A corpus is a folder with a folder for each speaker and, beside each recording, a file with its words (.lab, .txt);
    or with LibriSpeech's or Kaldi's transcripts. A recording that cannot be used is left out and named; the exit status
    is then 1.
    """
    from lhuc_asr.base.destinations import Inputs
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import LeftOut
    from lhuc_asr.recognizer.speaker_corpus import transcripts_of
    from lhuc_asr.recognizer.speaker_files import speaker_file
    from lhuc_asr.recognizer.transcript_files import TranscriptFiles
    from lhuc_asr.recognizer.transcript_formats import check_holds, pieces

    if text is None and speaker is not None:
        raise typer.BadParameter(
            "a corpus has many speakers; give the TEXT of one person's recordings, or no --speaker"
        )
    take_threads(threads)
    person = None if speaker is None else speaker_file(speaker)
    recognizer, left_out = load(model, device), LeftOut()
    with _spoken(recognizer, audio, text, left_out.note) as corpus:
        named = corpus.recordings
        total = len(named) + left_out.count  # with those that could not be opened
        aligned = (
            transcript
            for theirs in corpus.speakers.values()
            for transcript in recognizer.align(
                theirs, transcripts_of(corpus.transcripts, theirs), person, channel=channel, on_bad=left_out.note
            )
        )
        if output in (None, "-"):
            check_holds(form, len(named))
            show(pieces(aligned, form))
        else:
            speaker_of = corpus.speaker_of if text is None else None
            files = TranscriptFiles.at(output, form, named, overwrite=overwrite, speaker_of=speaker_of)
            inputs = [*(each.path for each in named), *(path for path in (text, person) if path is not None)]
            files.check_places(Inputs(inputs, [model]))
            known = {word for words in corpus.transcripts.values() for word in words}
            files.check_contents(named, recognizer.vocabulary | recognizer.phones | known)
            files.write(aligned)
    left_out.check(total)


@contextmanager
def _spoken(recognizer: Recognizer, audio: str, text: Path | None, on_bad: OnBad) -> Iterator[SpeakerCorpus]:
    """A context with the recordings and their transcripts: one person's if they are in a file of their own."""
    from lhuc_asr.base.errors import CorpusError
    from lhuc_asr.cli.corpora import opened_corpus
    from lhuc_asr.recognizer.recordings import recordings
    from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus
    from lhuc_asr.recognizer.transcript import read_text, read_transcripts

    tags = recognizer.own_tags
    if text is None:
        with opened_corpus(audio, tags, on_bad) as corpus:
            if not corpus.transcripts:
                raise CorpusError(
                    f"{audio}: no transcripts; give a TEXT, or write a recording's words beside it: talk.wav, talk.txt"
                )
            yield corpus
        return
    with recordings([audio], on_bad) as named:
        several = len(named) > 1 or Path(audio).is_dir()
        yield SpeakerCorpus(
            {"": named}, read_transcripts(text, tags) if several else {named[0].name: read_text(text, tags)}
        )
