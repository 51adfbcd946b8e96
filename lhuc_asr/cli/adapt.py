"""``lhuc-asr adapt MODEL --speaker NAME AUDIO...`` and ``lhuc-asr adapt MODEL CORPUS -o FOLDER``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lhuc_asr.cli.corpora import opened_corpus
from lhuc_asr.cli.evaluation import Evaluation, read_references
from lhuc_asr.cli.options import Channel, Device, ModelFolder, Threads, Vad, take_threads

if TYPE_CHECKING:
    from lhuc_asr.recognizer.adapting import Adaptation
    from lhuc_asr.recognizer.adapting_together import Machines, Ways
    from lhuc_asr.recognizer.recognizer import Recognizer
    from lhuc_asr.recognizer.recordings import OnBad
    from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus

# Folder of the speakers of a corpus; transcribe looks for names there.
SPEAKERS = "speakers/"

SpokenBy = Annotated[
    list[str],
    typer.Argument(
        metavar="AUDIO",
        help="Recordings of one person: files, folders, patterns, or - for standard input; or a corpus: one folder "
        "with a folder for each speaker, with utt2spk, with an RTTM, or a Kaldi data directory.",
    ),
]
SpeakerName = Annotated[
    str | None, typer.Option("--speaker", metavar="NAME", help="Name of the person; left out for a corpus.")
]
Transcripts = Annotated[
    Path | None,
    typer.Option(
        "--transcripts",
        metavar="FILE",
        help="Known transcripts: one line per recording, with its name and its words.",
    ),
]
SpeakersOutput = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="File to write, or a folder (ending in / if it is new) for NAME.safetensors; default: this folder, "
        "for a corpus speakers/",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        "--evaluate",
        metavar="REF",
        help="Show WER and CER of the recordings before and after: a file as for --transcripts, or a corpus with "
        "its transcripts. Adaptation does not see them.",
    ),
]
Judged = Annotated[
    bool,
    typer.Option(
        "--verdict/--no-verdict",
        help="Keep a person unadapted whom adaptation hurts, told from pieces of their speech that it did not adapt "
        "on; takes as long again.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace a file that is not this person's for this model; with --cluster, all archives in the folder.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="HOST:PORT",
        help="Adapt to a corpus on a Ray cluster: its head, or auto for this machine's. The output folder gets "
        "archives of about a thousand speakers each, for lhuc-asr serve.",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PLACE",
        help="Where the machines of the cluster leave files: s3://BUCKET/PREFIX, or a folder that all of them see.",
    ),
]


def adapt(
    model: ModelFolder,
    audio: SpokenBy,
    speaker: SpeakerName = None,
    transcripts: Transcripts = None,
    output: SpeakersOutput = None,
    channel: Channel = None,
    vad: Vad = False,
    device: Device = "cpu",
    threads: Threads = None,
    evaluate: Reference = None,
    verdict: Judged = True,
    overwrite: Overwrite = False,
    cluster: Cluster = None,
    store: Store = None,
) -> None:
    """Adapt to a new speaker, or to each speaker of a corpus, and write the speakers' files for transcribe.

    The words come from a first pass over the recordings, or from known transcripts. A recording that cannot be used is
    left out and named; the exit status is then 1.
    """
    from lhuc_asr.base.destinations import Inputs, leads_to_stream, shown
    from lhuc_asr.lhuc.speaker import check_speaker_name
    from lhuc_asr.recognizer.adapting_together import Ways
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import LeftOut
    from lhuc_asr.recognizer.transcript import read_transcripts

    if speaker is not None:
        check_speaker_name(speaker)  # before seconds of work, and before the name becomes a path
    elif len(audio) > 1 or not Path(audio[0]).is_dir():
        raise typer.BadParameter("name the person: --speaker NAME; or give one folder, with a folder for each speaker")
    if evaluate is not None and transcripts is not None:
        raise typer.BadParameter("--evaluate goes without --transcripts: words that were adapted to prove nothing")
    if cluster is not None or store is not None:
        alone = not (speaker or transcripts or evaluate or threads or device != "cpu")
        machines, ways = _machines(cluster, store, alone=alone), Ways(channel, vad, verdict)
        _adapt_together(model, audio[0], Path(output or SPEAKERS), machines, ways, overwrite=overwrite)
        return
    left_out, lost = LeftOut(), LeftOut("speakers")
    take_threads(threads)
    recognizer = load(model, device)
    known = None if transcripts is None else read_transcripts(transcripts, recognizer.own_tags)
    with _speakers(recognizer, audio, speaker, left_out.note) as corpus:
        places = _places(output, speaker, list(corpus.named_speakers()))
        named = corpus.recordings
        total = len(named) + left_out.count  # with those that could not be opened
        texts = [path for path in (transcripts, evaluate) if path is not None and not path.is_dir()]
        inputs = Inputs([*(each.path for each in named), *texts], [model])
        for name, path in places.items():
            check_speaker_name(name)
            inputs.refuse(path)
            recognizer.check_output(path, name, overwrite=overwrite)
        evaluation = None if evaluate is None else Evaluation(read_references(evaluate, recognizer, named))
        on_bad_speaker = None if speaker is not None else lost.note
        for each in recognizer.adapt_corpus(
            corpus,
            known,
            channel=channel,
            vad=vad,
            judged=verdict,
            processes=_processes(speaker, threads),
            on_bad=left_out.note,
            on_bad_speaker=on_bad_speaker,
        ):
            name = each.speaker.name
            path = places[name]
            recognizer.check_output(path, name, overwrite=overwrite)  # another command may have made it meanwhile
            each.speaker.save(path)
            told = f"{_summary(each)}{_told(each, wanted=verdict)}"
            typer.echo(f"{name}: {shown(path)}  {told}", err=leads_to_stream(path))
            if evaluation is not None:
                evaluation.add(recognizer, each.speaker, corpus.speakers[name], channel, vad=vad)
        if evaluation is not None:
            typer.echo("\n".join(evaluation.lines()), err=any(map(leads_to_stream, places.values())))
    left_out.check(total)
    lost.check(len(places))


def _machines(cluster: str | None, store: str | None, *, alone: bool) -> Machines:
    """The machines that the options name; ``alone`` is whether no option is given that they know nothing of."""
    from lhuc_asr.recognizer.adapting_together import Machines

    if cluster is None or store is None:
        raise typer.BadParameter("--cluster and --store go together")
    if not alone:
        raise typer.BadParameter(
            "--cluster goes with a corpus, --output, --channel, --vad, --verdict and --overwrite alone: its machines "
            "adapt to the words of a first pass, on a processor each"
        )
    return Machines(cluster, store)


def _adapt_together(model: Path, given: str, folder: Path, machines: Machines, ways: Ways, *, overwrite: bool) -> None:
    """Adapt to the speakers of a corpus on a cluster, into a folder of archives."""
    from lhuc_asr.base.destinations import shown
    from lhuc_asr.recognizer.adapting_together import adapt_together, check_output
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.recordings import LeftOut

    check_output(folder, overwrite=overwrite)
    left_out, lost = LeftOut(), LeftOut("speakers")
    with opened_corpus(given, load(model).own_tags, left_out.note) as corpus:
        total = len(corpus.recordings) + left_out.count
        count = adapt_together(
            model,
            corpus,
            folder,
            machines,
            ways,
            overwrite=overwrite,
            on_bad=left_out.note,
            on_bad_speaker=lost.note,
        )
    typer.echo(f"{shown(folder)}: {count} speakers")
    left_out.check(total)
    lost.check(count + lost.count)


@contextmanager
def _speakers(
    recognizer: Recognizer, audio: Sequence[str], speaker: str | None, on_bad: OnBad
) -> Iterator[SpeakerCorpus]:
    """A context with the recordings of the speakers: of a corpus, or of one person."""
    from lhuc_asr.recognizer.recordings import recordings
    from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus

    if speaker is None:
        with opened_corpus(audio[0], recognizer.own_tags, on_bad) as corpus:
            yield corpus
    else:
        with recordings(audio, on_bad) as named:
            yield SpeakerCorpus({speaker: named}, {})


def _processes(speaker: str | None, threads: int | None) -> int:
    """Processes that search: none beside this one for one person, whose search is shorter than their start."""
    import torch

    cores = torch.get_num_threads() if threads is None else threads
    return cores if speaker is None and cores > 1 else 0


def _places(output: str | None, speaker: str | None, names: Sequence[str]) -> dict[str, Path]:
    """The file of each speaker."""
    from lhuc_asr.base.destinations import is_folder, output_of
    from lhuc_asr.base.errors import OutputError
    from lhuc_asr.lhuc.speaker import speaker_path

    if speaker is not None:
        return {speaker: output_of(output or "./", speaker_path("", speaker).name)}
    folder = output or SPEAKERS
    if not is_folder(folder) and Path(folder).exists():
        raise OutputError(f"{folder}: is a file; the speakers of a corpus have a file each, name a folder")
    return {name: speaker_path(folder, name) for name in names}


def _summary(adaptation: Adaptation) -> str:
    """What a speaker's parameters were estimated on, in words."""
    count, words = adaptation.recordings, f"{adaptation.believed} of {adaptation.words} words believed"
    moved = "" if adaptation.moved is None else f", amplitudes moved by {adaptation.moved:.3f}"
    return f"{count} recording{'s' if count != 1 else ''}, {adaptation.seconds:.1f} s, {words}{moved}"


def _told(adaptation: Adaptation, *, wanted: bool) -> str:
    """The verdict on an adaptation, in words."""
    verdict = adaptation.verdict
    if verdict is None:
        return "; no verdict" if wanted else ""
    kind = "unlike those it learns from" if verdict.measure == "unlike" else "that are not stable"
    told = "it helps" if verdict.helps else "kept unadapted, it hurts" if verdict.hurts else "no difference"
    change = f"{verdict.before:.2f} -> {verdict.after:.2f} words {kind}"
    return f"; {told}: {change}, where it did not adapt"
