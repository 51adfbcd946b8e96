"""Arguments and options that several verbs have, each with its help."""

from __future__ import annotations

import inspect
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


def _model_folder(given: str) -> Path:
    """The folder of a model that is named by its folder, or by the name that it is installed under."""
    from lhuc_asr.recognizer.installed import model_folder

    return model_folder(given)


ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        parser=_model_folder,
        help="Folder of a model that export made, or of a finished experiment; or the name of an installed model.",
    ),
]
Channel = Annotated[
    int | None,
    typer.Option(
        "--channel", metavar="N", min=1, help="The recordings' channel to take, from 1; default: all, mixed down"
    ),
]
Vad = Annotated[
    bool,
    typer.Option(
        "--vad/--no-vad",
        help="Cut long recordings at the pauses of a detector of voice activity (extra vad), or of their levels.",
    ),
]
Person = Annotated[
    str | None,
    typer.Option(
        "--speaker",
        metavar="NAME|FILE",
        help="The person: the file that adapt wrote, or the name of a file NAME.safetensors in this folder or in "
        "speakers/; default: an unknown person",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="File to write, or a folder (ending in / if it is new) for one file per recording, each written as soon "
        "as it is finished; default: the terminal, likewise",
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Device of the network: cpu, cuda, cuda:1.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="Cores to use; default: all, or OMP_NUM_THREADS"),
]
Tensorboard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Write the curves of the training to tensorboard/ in the experiment's folder."),
]


class FigureFormat(StrEnum):
    """A format of figures."""

    PNG = "png"
    PDF = "pdf"
    SVG = "svg"


FigureFormats = Annotated[
    FigureFormat,
    typer.Option("--format", help="Format of the figures; pdf and svg are written beside PNG."),
]


def paragraphs(verb: object) -> str:
    """A verb's docstring, each paragraph one line: help would break the lines of all but the first as they are here."""
    return "\n\n".join(" ".join(each.split()) for each in (inspect.getdoc(verb) or "").split("\n\n"))


def take_threads(threads: int | None) -> None:
    """Let the network use so many threads; None leaves torch's choice."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
