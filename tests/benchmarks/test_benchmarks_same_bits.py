"""The comparison of two runs, benchmarks/same_bits.py, finds each kind of difference and no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

HYPOTHESES = "exp/demo/decode/test/lhuc/hypotheses.jsonl"
ALIGNMENT = "exp/demo/hmm/mono/train.ali"
NETWORK = "exp/demo/am/si/model.safetensors"
SPEAKER = "exp/demo/speakers/lhuc/test/alice.safetensors"
PREPARED = "exp/demo/speakers/prepared/moments-{}/moments.safetensors"
ADAPTED, TRANSCRIPT = "offline/demo_speaker.safetensors", "offline/demo_after.txt"
FIRST_HASH, SECOND_HASH = "0123abcd", "fedc9876"


@pytest.fixture
def differences(script: Callable[[str], ModuleType]) -> Callable[[Path, Path], tuple[list[str], int]]:
    compare: Callable[[Path, Path], tuple[list[str], int]] = script("same_bits").differences
    return compare


def write(path: Path, content: bytes | dict[str, np.ndarray], **description: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file(content, path, metadata=description)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, as two runs of the same commands leave them: each names its own place in its texts."""
    for side in ("before", "after"):
        folder = tmp_path / side
        generator = np.random.default_rng(1)
        write(folder / "done.json", b"[]")
        write(folder / HYPOTHESES, b'{"utterance": "a-1", "words": "ONE TWO", "cost": 123.25}\n')
        write(folder / ALIGNMENT, generator.integers(0, 9, 50, dtype=np.int32).tobytes())
        write(folder / TRANSCRIPT, f'[{{"path": "{folder.resolve()}/demo_recordings/a.flac"}}]'.encode())
        for name in (NETWORK, SPEAKER, ADAPTED, PREPARED.format(FIRST_HASH)):
            write(folder / name, {"r": generator.standard_normal(8).astype(np.float32), "n": np.arange(3)})
    return tmp_path / "before", tmp_path / "after"


def test_equal_runs_do_not_differ(differences, sides: tuple[Path, Path]) -> None:
    assert differences(*sides) == ([], 7)


def test_nothing_is_not_equal_to_nothing(differences, tmp_path: Path) -> None:
    """The script fails where it compared no file."""
    assert differences(tmp_path / "nowhere", tmp_path / "neither") == ([], 0)


@pytest.mark.parametrize("name", [HYPOTHESES, ALIGNMENT, TRANSCRIPT])
def test_a_changed_byte_is_found(differences, sides: tuple[Path, Path], name: str) -> None:
    content = bytearray((sides[1] / name).read_bytes())
    content[-5] ^= 1  # in the hypotheses, a digit of the cost
    (sides[1] / name).write_bytes(content)
    assert differences(*sides) == ([f"{name}: differs"], 7)


@pytest.mark.parametrize("name", [NETWORK, SPEAKER, ADAPTED, PREPARED.format(FIRST_HASH)])
@pytest.mark.parametrize("change", ["bit", "type", "shape", "name", "zero"])
def test_a_changed_tensor_is_found(differences, sides: tuple[Path, Path], name: str, change: str) -> None:
    tensors = load_file(sides[1] / name)
    r = tensors.pop("r")
    match change:
        case "bit":
            r.view(np.uint32)[3] ^= 1
        case "type":
            r = r.view(np.int32)
        case "shape":
            r = r.reshape(2, 4)
        case "zero":  # equal as a number, not as bits
            tensors["n"] = tensors["n"].astype(np.float64)
    if change == "zero":
        for side, zero in zip(sides, (0.0, -0.0), strict=True):
            write(side / name, {"r": np.full(8, zero, np.float32)})
    else:
        write(sides[1] / name, {**tensors, "renamed" if change == "name" else "r": r})
    assert differences(*sides)[0] == [f"{name.replace(f'-{FIRST_HASH}', '')}: differs"]


def test_a_changed_description_is_not_a_difference(differences, sides: tuple[Path, Path]) -> None:
    for name in (NETWORK, SPEAKER, ADAPTED):
        write(sides[1] / name, load_file(sides[1] / name), format="lhuc-speaker-2", technique="lhuc")
    assert differences(*sides) == ([], 7)


@pytest.mark.parametrize("name", [HYPOTHESES, ALIGNMENT, TRANSCRIPT, NETWORK, SPEAKER, ADAPTED])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_on_one_side_only_is_found(differences, sides: tuple[Path, Path], name: str, missing: int) -> None:
    (sides[missing] / name).unlink()
    assert differences(*sides) == ([f"{name}: only in {sides[1 - missing]}"], 6)


def test_preparations_are_compared_whatever_their_hash(differences, sides: tuple[Path, Path]) -> None:
    folder = (sides[1] / PREPARED.format(FIRST_HASH)).parent
    folder.rename(folder.with_name(f"moments-{SECOND_HASH}"))
    assert differences(*sides) == ([], 7)
    path = sides[1] / PREPARED.format(SECOND_HASH)
    write(path, {**load_file(path), "r": np.zeros(8, np.float32)})
    assert differences(*sides) == (["exp/demo/speakers/prepared/moments/moments.safetensors: differs"], 7)


def test_preparations_of_one_kind_are_compared_together(differences, sides: tuple[Path, Path]) -> None:
    """Two of the same kind with other options: the order of the hashes says nothing."""
    name = "exp/demo/speakers/prepared/moments/moments.safetensors"
    for side, hashes in zip(sides, (("00000000", "ffffffff"), ("ffffffff", "00000000")), strict=True):
        shutil.rmtree((side / PREPARED.format(FIRST_HASH)).parent)
        for value, each in enumerate(hashes):
            write(side / PREPARED.format(each), {"r": np.full(8, value, np.float32)})
    assert differences(*sides) == ([], 8)
    write(sides[1] / PREPARED.format("00000000"), {"r": np.full(8, 7, np.float32)})
    assert differences(*sides) == ([f"{name}: differs"], 8)
    shutil.rmtree((sides[1] / PREPARED.format("00000000")).parent)
    assert differences(*sides)[0] == [f"{name}: only in {sides[0]}"]
