"""A model as a Python package: a project that pip installs, so that the model is found by its name.

pyproject.toml               names the model (``installed.py``), its licence, and what it is
README.md                    the user's notice: what the model was made of, and under which terms
lhuc_asr_model_NAME/         an empty module, with the model's folder

The folder is a whole model: it works as well without being installed.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

from lhuc_asr.base.atomic import atomic_folder
from lhuc_asr.base.errors import ConfigError, OutputError
from lhuc_asr.base.plain_file import check_plain_file
from lhuc_asr.base.version import __version__
from lhuc_asr.recognizer.installed import FOLDER, GROUP
from lhuc_asr.recognizer.model_folder import MODELS, ModelDescription, read_model

# Names of modules, of entry points and of distributions alike.
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST_NAME = 50
LICENSE = re.compile(r"[A-Za-z0-9.+()-]+( [A-Za-z0-9.+()-]+)*")
PROJECT_FILE, NOTICE_FILE = "pyproject.toml", "README.md"
HASH_LETTERS = 8

PROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "{version}"
description = "A speech recognizer that adapts to a speaker: the model {name} of lhuc_asr"
readme = "{notice}"
license = "{license}"
license-files = ["{notice}"]
requires-python = ">=3.11"
dependencies = ["lhuc_asr>={made_by}"]

[project.entry-points."{group}"]
{name} = "{module}"

[tool.hatch.build]
ignore-vcs = true
only-include = ["{module}"]
"""


def package(model: Path, out: Path, name: str, notice: Path, license_expression: str) -> ModelDescription:
    """Write the project of a model's package.

    Args:
        model: The model's folder.
        out: The folder to write, whole or not at all.
        name: What users will call the model: small letters, digits and ``_``.
        notice: Text that says what the model was made of and under which terms, Markdown.
        license_expression: SPDX expression of the licence, such as ``CC-BY-4.0``.

    Raises:
        ConfigError: The name or the licence cannot be used, or the notice is not a text.
        ExperimentError: The folder is not a model's.
        OutputError: ``out`` is there already, or cannot be written.
    """
    if NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"--name {name!r}: expected small letters, digits and single _ between them, such as my_model"
        )
    if LICENSE.fullmatch(license_expression) is None:
        raise ConfigError(f"--license {license_expression!r}: expected an SPDX expression, such as CC-BY-4.0")
    text = _notice(notice)
    description, files = read_model(model)
    module = f"lhuc_asr_model_{name}"
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out}: is there already; choose another folder, or remove it")
    content = PROJECT.format(
        distribution=module.replace("_", "-"),
        # The network's hash makes a new network a new version.
        version=f"{__version__}+{description.network[:HASH_LETTERS]}",
        made_by=description.made_by,
        name=name,
        notice=NOTICE_FILE,
        license=license_expression,
        group=GROUP,
        module=module,
    )
    tomllib.loads(content)  # what was checked cannot break it
    with atomic_folder(out) as new:
        (new / PROJECT_FILE).write_text(content, encoding="utf-8")
        (new / NOTICE_FILE).write_text(text, encoding="utf-8")
        folder = new / module / FOLDER
        for file, path in files.by_name.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / file)
        (new / module / "__init__.py").write_text(f'"""The model {name} of lhuc_asr; README.md has its terms."""\n')
        MODELS.write(folder, description.model_copy(update={"files": {}}))
    return description


def _notice(path: Path) -> str:
    try:
        check_plain_file(path)
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--notice {path}: cannot be read ({error}); give a text that states the terms") from error
    if not text:
        raise ConfigError(f"--notice {path}: is empty; say what the model was made of, and under which terms")
    return text + "\n"
