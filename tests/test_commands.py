"""Every command that a page gives is one of today's command line, with options and settings that exist.

A page gives commands as lines of its ``sh`` blocks and in code within its text. They are parsed here, not run;
test_docs.py runs those of some pages. Results may be of an earlier version, whose command has changed since. Then the
page says so before the command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import LhucError
from lhuc_asr.cli import main as command_line
from lhuc_asr.cli.recipes import recipe_file
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.ppnet.recommender import RecommenderConfig
from lhuc_asr.study.run import KNOWN

ROOT = Path(__file__).parents[1]
UsageError = typer.BadParameter.__base__  # click's or, in later versions, typer's own
PROGRAM = r"(?:\.venv/bin/)?lhuc-asr"
# The mark that a page puts before a command of an earlier version.
EARLIER = "*Of an earlier version:* "


@dataclass(frozen=True)
class Command:
    """A command of a page: its words after the program's name, and whether the page says that it is an earlier one."""

    words: list[str]
    earlier: bool


def commands(text: str) -> Iterator[Command]:
    """The commands of a page."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for typed in line.split(" | "):
                words = shlex.split(typed, comments=True)
                if words and re.fullmatch(PROGRAM, words[0]):
                    yield Command(words[1:], earlier=False)
    for code in re.finditer(r"`([^`]+)`", "".join(text.split("```")[::2])):
        if re.match(rf"{PROGRAM}\s", code[1]):
            yield Command(shlex.split(" ".join(code[1].split()))[1:], code.string[: code.start()].endswith(EARLIER))


def pages() -> list[Path]:
    """The pages that give commands; those of the changelog are each version's own."""
    written = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*/*.md")]
    return [p for p in written if p.name != "CHANGELOG.md" and any(commands(p.read_text(encoding="utf-8")))]


def fault(words: list[str]) -> str | None:
    """What the command line, or a recipe, would say against a command; None where nothing is wrong."""
    command = get_command(command_line.app)
    if len(words) == 1 and words[0].startswith("-"):
        known = {option for parameter in command.params for option in parameter.opts}
        return None if words[0] in known else f"no option {words[0]}"
    try:
        while words and hasattr(command, "resolve_command"):
            _, command, words = command.resolve_command(typer.Context(command), words)
        if not words:  # a verb alone, in a sentence
            return None
        given = command.make_context(command.name, list(words)).params
        if command.name in ("run", "train"):
            read_recipe(command.name, given["recipe"], given["overrides"])
        unknown = set(given["experiment"] or ()) - {*KNOWN, "NAME"} if command.name == "benchmark" else None
        return f"no series {unknown}" if unknown else None
    except UsageError as error:
        return error.format_message()
    except LhucError as error:
        return str(error)


def read_recipe(verb: str, recipe: Path, overrides: list[str]) -> None:
    """Read a recipe of the repository, by its folder or its name; an experiment's settings are in its own folder."""
    if recipe.parts[0] == "exp":
        assert not overrides, "whose settings are these?"
        return
    inside = ROOT / recipe
    config = {"run": ExperimentConfig, "train": RecommenderConfig}[verb]
    load_config(config, recipe_file(inside if inside.exists() else recipe), overrides or [])


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_commands(page: Path) -> None:
    for command in commands(page.read_text(encoding="utf-8")):
        said = fault(command.words)
        assert (said is not None) == command.earlier, (command, said)
        assert not command.earlier or page.name == "RESULTS.md", "a page tells today's commands"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian recipes/demo", "trian"),
        ("adapt model --speeker alice a.wav", "--speeker"),
        ("export exp/an4", "OUT"),
        ("transcribe model a.wav --format docx", "docx"),
        ("run recipes/demo lhuc.sweps=3", "did you mean 'sweeps'"),
        ("run deemo", "not the name of a recipe"),
        ("ppnet train ppnet_synthetic trainer.epoch=3", "did you mean 'epochs'"),
        ("benchmark exp/demo -e minutes", "no series"),
        ("speakers list", None),  # a verb alone
        ("run demo lhuc.sweeps=3", None),
    ],
)
def test_a_mistake_in_a_command_is_seen(typed: str, said: str | None) -> None:
    complaint = fault(typed.split())
    assert complaint is None if said is None else said in complaint


def test_commands_are_found_in_blocks_and_in_code_but_not_in_comments() -> None:
    block = "```sh\n# lhuc-asr no\ncat a | .venv/bin/lhuc-asr transcribe \\\n m -  # lhuc-asr no\n```\n"
    given = list(commands(block + f"`lhuc-asr info\nm`, `ls lhuc-asr`, {EARLIER}`lhuc-asr toy`"))
    assert given == [
        Command(["transcribe", "m", "-"], earlier=False),
        Command(["info", "m"], earlier=False),
        Command(["toy"], earlier=True),
    ]
