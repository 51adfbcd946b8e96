"""Models that are installed as packages, and found by their names.

A package names its model in the group ``lhuc_asr.models`` of entry points, with its module: the model is the folder
``model`` in that. ``lhuc-asr package`` writes such packages (``packaging.py``).
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from lhuc_asr.base.errors import ExperimentError

GROUP, FOLDER = "lhuc_asr.models", "model"


def installed_models() -> dict[str, Path]:
    """Folders of the models that are installed, by their names.

    Raises:
        ExperimentError: Two packages have models of one name.
    """
    folders: dict[str, Path] = {}
    for entry in sorted(entry_points(group=GROUP)):
        folder = Path(str(files(entry.module) / FOLDER))
        if folders.setdefault(entry.name, folder) != folder:
            raise ExperimentError(
                f"{entry.name}: two packages have a model of this name, in {folders[entry.name]} and {folder}; "
                "uninstall one of them"
            )
    return folders


def model_folder(given: str | Path) -> Path:
    """The folder of a model that a user names: itself, or that of the model that is installed under the name.

    Args:
        given: A folder, or the name of an installed model. A folder of that name comes first; anything else is
            returned unchanged.
    """
    path = Path(given)
    return path if path.exists() or path.name != str(given) else installed_models().get(path.name, path)


def check_model_folder(path: Path) -> None:
    """Refuse what is not a folder.

    Raises:
        ExperimentError: It is none; the message names the models that are installed.
    """
    if path.is_dir():
        return
    known = ", ".join(installed_models())
    raise ExperimentError(
        f"{path}: not a folder; give one that lhuc-asr export made, or an experiment's"
        + (f", or the name of an installed model: {known}" if known else "; no model is installed under a name")
    )
