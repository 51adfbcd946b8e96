"""``lhuc-asr package MODEL OUT --name NAME --notice FILE --license SPDX``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lhuc_asr.cli.options import ModelFolder


def package(
    model: ModelFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the package's project to write.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What users will call the model.")],
    notice: Annotated[
        Path,
        typer.Option(
            "--notice", metavar="FILE", help="Markdown that says what the model was made of, and under which terms."
        ),
    ],
    license_expression: Annotated[
        str, typer.Option("--license", metavar="SPDX", help="The model's licence, such as CC-BY-4.0.")
    ],
) -> None:
    """Make a Python package of a model, so that who installs it can name it: lhuc-asr adapt NAME.

    pip install OUT installs it; pip wheel OUT makes one file of it.
    """
    from lhuc_asr.recognizer import packaging

    description = packaging.package(model, out, name, notice, license_expression)
    typer.echo(f"{out}: {name}, of {description.experiment}; pip install {out}")
