"""Compiled loops where their code can be kept, and where not."""

import numba
import pytest

from lhuc_asr.base.compiled import compiled


def double(value: int) -> int:
    return 2 * value


def test_a_compiled_function_does_what_it_did() -> None:
    assert compiled(double)(21) == 42


def test_nowhere_to_keep_the_code_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As numba does in a container that is read-only."""
    njit, asked = numba.njit, []

    def without_a_place(cache: bool = False, **options: bool) -> object:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_a_place)
    assert compiled(double)(21) == 42
    assert asked == [True, False]
