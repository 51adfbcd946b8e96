"""``lhuc-asr speakers list|show|merge|pack|delete``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

speakers = typer.Typer(help="List, show, copy and delete the files of adapted speakers.", no_args_is_help=True)


@speakers.command("list")
def list_speakers(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Speakers' files, or folders of them.")],
) -> None:
    """List speakers: name, hash of the network, what is kept of them, standard deviation of amplitudes, file."""
    from lhuc_asr.recognizer.speaker_files import files_of_speakers

    files = files_of_speakers(paths)
    width = max((len(file.speaker) for file in files), default=0)
    kind_width = max((len(file.holds) for file in files), default=0)
    for file in files:
        rows = file.spreads() if file.amplitudes is not None else []
        spread = f"{sum(row.deviation for row in rows) / len(rows):.3f}" if rows else f"{'-':>5}"
        typer.echo(f"{file.speaker:{width}}  {file.model[:12]}  {file.holds:{kind_width}}  {spread}  {file.path}")


@speakers.command("show")
def show(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File of a speaker.")],
) -> None:
    """Show what is kept of one speaker: amplitudes, layer by layer, or the numbers of another method."""
    from lhuc_asr.recognizer.speaker_file import SpeakerFile

    file = SpeakerFile.load(path)
    typer.echo(f"speaker     {file.speaker or 'none: the speaker-independent row'}")
    typer.echo(f"network     {file.model.partition(':')[0]}")
    typer.echo(f"holds       {file.holds}")
    if file.amplitudes is not None:
        typer.echo(f"amplitude   {file.amplitudes.amplitude}")
    typer.echo(f"extras      {', '.join(sorted(file.extras)) or 'none'}")
    rows = file.spreads()
    what = "tensor" if file.amplitudes is None else "site"
    width = max(map(len, [what, *(row.name for row in rows)]))
    typer.echo(f"{what:{width}}  count   mean  deviation  lowest  highest")
    for row in rows:
        numbers = f"{row.count:5}  {row.mean:5.3f}  {row.deviation:9.3f}  {row.lowest:6.3f}  {row.highest:7.3f}"
        typer.echo(f"{row.name:{width}}  {numbers}")


@speakers.command("merge")
def merge(
    into: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to copy to; it is made if it does not exist.")],
    sources: Annotated[list[Path], typer.Argument(metavar="PATH", help="Speakers' files, or folders of them.")],
) -> None:
    """Copy speakers' files into one folder: all, or none. No other file is replaced."""
    from lhuc_asr.recognizer import speaker_files

    typer.echo(f"{into}: {', '.join(speaker_files.merge(into, sources))}")


@speakers.command("pack")
def pack(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="File to write; one that is there is replaced.")],
    sources: Annotated[list[Path], typer.Argument(metavar="PATH", help="Speakers' files, archives, or folders.")],
) -> None:
    """Write the amplitudes of many speakers into one file, from which lhuc-asr serve reads those that it needs."""
    from lhuc_asr.recognizer import speaker_files

    typer.echo(f"{archive}: {speaker_files.pack(archive, sources)} speakers")


@speakers.command("delete")
def delete(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of speakers' files.")],
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names of the speakers.")],
) -> None:
    """Delete the files that hold the speakers, whatever the files are called. If one is missing, none is deleted."""
    from lhuc_asr.recognizer import speaker_files

    for path in speaker_files.delete(folder, names):
        typer.echo(f"{path}: deleted")
