"""Threads that wait: the setting reaches OpenMP before torch is imported, and what the user has set stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lhuc_asr.base.threads import SPINS, wait_briefly


def test_threads_sleep_after_a_short_spin() -> None:
    environment: dict[str, str] = {}
    wait_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPINS)}


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_has_set_stays(own: dict[str, str]) -> None:
    environment = dict(own)
    wait_briefly(environment)
    assert environment == own


def test_the_command_line_sets_it_before_torch_is_imported() -> None:
    """OpenMP reads it once, when torch loads it."""
    code = """
import os, sys
from lhuc_asr.cli.main import main
sys.argv = ["lhuc-asr", "--version"]
assert "torch" not in sys.modules
try:
    main()
except SystemExit:
    assert "torch" not in sys.modules
print(os.environ["GOMP_SPINCOUNT"])
"""
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=plain, check=True)
    assert done.stdout.splitlines()[-1] == str(SPINS)
