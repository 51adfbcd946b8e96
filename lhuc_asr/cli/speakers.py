"""``lhuc-asr speakers list|show|merge|delete``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

speakers = typer.Typer(help="List, show, copy and delete the files of adapted speakers.", no_args_is_help=True)


@speakers.command("list")
def list_speakers(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Speakers' files, or folders of them.")],
) -> None:
    """List speakers: name, hash of the network, standard deviation of the amplitudes, file."""
    from lhuc_asr.recognizer.speaker_files import speaker_states, spreads

    states = speaker_states(paths)
    width = max((len(state.speaker) for state in states.values()), default=0)
    for path, state in states.items():
        rows = spreads(state)
        spread = sum(row.deviation for row in rows) / len(rows)
        typer.echo(f"{state.speaker:{width}}  {state.model[:12]}  {spread:.3f}  {path}")


@speakers.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File of a speaker.")],
) -> None:
    """Show the amplitudes of one speaker, layer by layer."""
    from lhuc_asr.lhuc.speaker import SpeakerState
    from lhuc_asr.recognizer.speaker_files import spreads

    state = SpeakerState.load(path)
    typer.echo(f"speaker     {state.speaker or 'none: the speaker-independent row'}")
    typer.echo(f"network     {state.model.partition(':')[0]}")
    typer.echo(f"amplitude   {state.amplitude}")
    typer.echo(f"extras      {', '.join(sorted(state.extras)) or 'none'}")
    rows = spreads(state)
    width = max(len("site"), *(len(row.site) for row in rows))
    typer.echo(f"{'site':{width}}  units   mean  deviation  lowest  highest")
    for row in rows:
        numbers = f"{row.units:5}  {row.mean:.3f}  {row.deviation:9.3f}  {row.lowest:6.3f}  {row.highest:7.3f}"
        typer.echo(f"{row.site:{width}}  {numbers}")


@speakers.command("merge")
def merge(
    into: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to copy to; it is made if it does not exist.")],
    sources: Annotated[list[Path], typer.Argument(metavar="PATH", help="Speakers' files, or folders of them.")],
) -> None:
    """Copy speakers' files into one folder: all, or none. No other file is replaced."""
    from lhuc_asr.recognizer import speaker_files

    typer.echo(f"{into}: {', '.join(speaker_files.merge(into, sources))}")


@speakers.command("delete")
def delete(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of speakers' files.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of the speakers.")],
) -> None:
    """Delete the files that hold the speakers, whatever the files are called. If one is missing, none is deleted."""
    from lhuc_asr.recognizer import speaker_files

    for path in speaker_files.delete(folder, names):
        typer.echo(f"{path}: deleted")
