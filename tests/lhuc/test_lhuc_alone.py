"""lhuc/ beside torch, numpy and safetensors: a process that refuses every other library."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from house_rules import normalised

import lhuc_asr

# Only what these bring may be imported.
LIBRARIES = ("torch", "numpy", "safetensors")

REFUSING = "import json, sys; sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))\n"

ALL_OF_IT = """
from pathlib import Path
import torch
from torch import nn
import lhuc_asr.lhuc as lhuc

assert all(getattr(lhuc, name) is not None for name in lhuc.__all__)
folder = Path(sys.argv[2])
torch.manual_seed(1)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
x, y = torch.randn(6, 4), torch.randint(0, 3, (6,))
with torch.no_grad():
    before = model(x)

bank = lhuc.attach(model, sites=nn.ReLU, speakers=["alice", "bob"])
optimizer = bank.optimizer("sgd", lr=0.8)
with bank.rows(["alice"] * 3 + ["bob"] * 3):
    nn.functional.cross_entropy(model(x), y).backward()
optimizer.step()
bank.save(folder / "speakers")
with bank.speaker("alice"), torch.no_grad():
    adapted = model(x)
assert not torch.equal(adapted, before)

bank.add(["carol"])
lhuc.adapt(model, bank, [lhuc.Batch(torch.randn(2, 9, 4), ["carol"] * 2)], lhuc.Entropy(), steps=1)
bank.detach()
again = lhuc.SpeakerBank.load(folder / "speakers", model)
with again.speaker("alice"), torch.no_grad():
    assert torch.equal(model(x), adapted)
folded = lhuc.fold(again, "alice")
again.detach()
with torch.no_grad():
    assert torch.allclose(folded(x), adapted, atol=1e-6)
    assert torch.equal(model(x), before)
print("adapted, saved, read, folded")
"""


def others(distributions: tuple[str, ...]) -> set[str]:
    """Import names of all that is installed but the distributions, what they require, and this package."""
    wanted = {normalised(lhuc_asr.__name__)}
    todo = list(distributions)
    while todo:
        if (name := normalised(todo.pop())) not in wanted:
            wanted.add(name)
            todo += required(name)
    tops = packages_distributions().items()
    return {top for top, owners in tops if wanted.isdisjoint(map(normalised, owners))}


def required(distribution: str) -> Iterator[str]:
    """Names of the distributions that one needs, those of its extras left out; one that is not installed has none."""
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        return
    for line in lines:
        if "extra ==" not in line:
            yield re.match(r"[\w.-]+", line)[0]


def refusing(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process in which every other library is refused."""
    refused = json.dumps(sorted(others(LIBRARIES)))
    return subprocess.run(
        [sys.executable, "-c", REFUSING + code, refused, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_amplitudes_need_torch_numpy_and_safetensors_only(tmp_path: Path) -> None:
    ran = refusing(ALL_OF_IT, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "adapted, saved, read, folded"


@pytest.mark.parametrize("name", ["pydantic", "soundfile", "scipy", "typer", "yaml"])
def test_the_check_refuses_other_libraries(name: str) -> None:
    ran = refusing(f"import {name}")
    assert f"ModuleNotFoundError: import of {name} halted" in ran.stderr


def test_the_command_says_what_it_needs() -> None:
    ran = refusing("from lhuc_asr.cli.entry import main; sys.argv[1:] = ['--version']; main()")
    assert ran.returncode == 1
    assert ran.stderr.strip() == (
        "lhuc-asr: error: typer is not installed; the command needs all of lhuc_asr: pip install lhuc_asr, "
        "without --no-deps"
    )
