"""``lhuc-asr info MODEL`` and ``lhuc-asr info AUDIO...``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lhuc_asr.cli.options import Channel

# What features have mean 0 and variance 1 of.
NORMALISED = {"speaker": "speaker", "environment": "speaker in each environment; give recordings of one together"}

if TYPE_CHECKING:
    import numpy as np

    from lhuc_asr.recognizer.pass_description import PassDescription
    from lhuc_asr.recognizer.recordings import OnBad, Recording


def info(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|AUDIO",
            help="An exported model's folder, a finished experiment's, or the name of an installed model; or one "
            "person's recordings: files, folders, patterns, or - for standard input.",
        ),
    ],
    channel: Channel = None,
    pitch: Annotated[
        bool,
        typer.Option("--pitch", help="Show the pitch of the voice too: median, and from where to where most of it is."),
    ] = False,
) -> None:
    """Describe a model: networks, graph, passes, adaptation; or recordings: level, clipping, speech, pitch."""
    from lhuc_asr.recognizer.installed import model_folder
    from lhuc_asr.recognizer.model_folder import is_model
    from lhuc_asr.recognizer.recordings import LeftOut, recordings

    named_model = model_folder(what[0])
    if len(what) == 1 and is_model(named_model):
        if pitch or channel is not None:
            raise typer.BadParameter("--pitch and --channel go with recordings; this is a model's folder")
        typer.echo("\n".join(_model_lines(named_model)))
        return
    left_out = LeftOut()
    with recordings(what, left_out.note) as named:
        total = len(named) + left_out.count  # with those that could not be opened
        for line in _recording_lines(named, channel, pitch, left_out.note):
            typer.echo(line)
    left_out.check(total)


def _recording_lines(named: Sequence[Recording], channel: int | None, pitch: bool, on_bad: OnBad) -> Iterator[str]:
    """A line for each recording, one for the pitch of all, and what is wrong with them."""
    import numpy as np

    from lhuc_asr.audio.levels import levels
    from lhuc_asr.audio.pitch import find_pitch, load_pyin
    from lhuc_asr.recognizer.condition import Condition, faults
    from lhuc_asr.recognizer.recordings import usable

    pyin = load_pyin() if pitch else None
    width = max(len("recording"), *(len(recording.name) for recording in named))
    yield f"{'recording':{width}}  seconds     Hz  channels  level dB  clipped  speech{'  pitch Hz' if pitch else ''}"
    conditions, voiced = {}, []
    for each in named:
        with usable(each.title, on_bad, each.path):
            level = levels(each.path, channel)
            hertz = None if pyin is None else find_pitch(pyin, each.path, level.channel)
            conditions[each.title] = state = Condition.of(level)
            numbers = f"{each.seconds:7.1f}  {each.info.sample_rate:5}  {each.info.channels:8}  {state.decibels:8.1f}"
            shares = f"{100 * state.clipped:5.1f} %  {100 * state.speech:4.0f} %"
            yield f"{each.name:{width}}  {numbers}  {shares}{'' if hertz is None else '  ' + _range(hertz)}"
            voiced += [] if hertz is None else [hertz]
    if len(voiced) > 1:
        yield f"pitch of all: {_range(np.concatenate(voiced))}"
    yield from faults(conditions)


def _range(hertz: np.ndarray) -> str:
    """Median, and the middle 80 %, of the pitch of voiced frames."""
    import numpy as np

    if not len(hertz):
        return "none"
    low, median, high = np.quantile(hertz, (0.1, 0.5, 0.9))
    return f"{median:.0f} ({low:.0f} to {high:.0f})"


def _model_lines(model: Path) -> list[str]:
    """What is in a model's folder."""
    from lhuc_asr.decode.graph import DecodingGraph
    from lhuc_asr.recognizer.model_folder import MODEL_JSON, read_model

    description, files = read_model(model)
    graph = DecodingGraph.load(files.lang)
    piece, whole = description.piece_seconds, description.whole_seconds
    paths = [model / MODEL_JSON, *files.by_name.values()]
    size = sum(path.stat().st_size for path in paths)
    networks = dict.fromkeys(each.network for each in description.passes if each.network is not None)
    last = description.with_speaker
    method = {} if last.method is None else last.method.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    lines = [
        ("experiment", f"{description.experiment}, made by lhuc_asr {description.made_by}"),
        *((f"network {name}", _network(files.network(name))) for name in networks),
        ("model hash", description.network.partition(":")[0]),
        ("words", f"{len(graph.words) - 1}, in a graph of {graph.states} states and {graph.arcs} arcs"),
        ("features", f"normalised for each {NORMALISED[description.normalised_by]}"),
        ("pieces", f"recordings over {whole:.1f} s are cut into pieces of at most {piece:.1f} s"),
        *((f"pass {each.name}", _pass(each)) for each in description.passes),
        ("without speaker", f"as in pass {description.without_speaker}"),
        ("adaptation", f"as in pass {last.name}, seed {description.seed}"),
        ("method options", ", ".join(f"{key} {value}" for key, value in method.items())),
        ("files", f"{len(paths)}, {size / 1e6:.1f} MB"),
    ]
    width = max(len(key) for key, _ in lines) + 2
    return [f"{key:{width}}{text}" for key, text in lines]


def _network(path: Path) -> str:
    """A network, in words."""
    from lhuc_asr.nnet.checkpoint import load_model

    network = load_model(path)
    size = f"{network.config.summary}, {network.pdf_count} pdfs"
    vector = f", a speaker vector of {network.vector_dimension} values" if network.vector_dimension else ""
    return f"{size}, {network.context}{vector}"


def _pass(plan: PassDescription) -> str:
    """A pass of a model, in words."""
    model = "Gaussian mixtures" if plan.network is None else f"network {plan.network}"
    features = f"{plan.features.dimension} {plan.features.kind} at {plan.features.sample_rate} Hz"
    adapted = ""
    if plan.method is not None and plan.targets is not None:
        on = "" if plan.method.on is None else f" on top of {plan.method.on},"
        adapted = f", by {plan.method.kind}{on} on {plan.targets.kind} targets of {plan.targets.source}"
    search = plan.search
    tuned = f"scale {search.acoustic_scale:g}, insertion penalty {search.insertion_penalty:g}, beam {search.beam:g}"
    return f"{model}, {features}{' in LDA space' if plan.in_space else ''}{adapted}; {tuned}"
