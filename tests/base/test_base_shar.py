"""Lhotse Shar: what the library wrote is read, the same cuts are the same bytes, and damaged files are refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lhuc_asr.base.errors import FeatureError
from lhuc_asr.base.shar import Datum, ShardWriter, array_bytes, array_in, read_field, shards_in

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def _tar(path: Path, *files: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_fields_that_lhotse_wrote_are_read(tmp_path: Path) -> None:
    """One cut with features and one without; ids with slashes and dots."""
    from lhotse import Features, MonoCut
    from lhotse.features.io import NumpyFilesWriter
    from lhotse.shar import SharWriter

    (tmp_path / "arrays").mkdir()
    with NumpyFilesWriter(tmp_path / "arrays") as arrays, SharWriter(tmp_path, {"features": "numpy"}) as shar:
        key = arrays.write("matrix", MATRIX)
        place = {"storage_type": arrays.name, "storage_path": str(arrays.storage_path), "storage_key": key}
        shape = {"num_frames": 4, "num_features": 3, "frame_shift": 0.01, "sampling_rate": 16000}
        features = Features(type="fbank", **shape, start=0, duration=0.04, channels=0, recording_id="r", **place)
        shar.write(MonoCut("ann/1.a", start=0, duration=0.04, channel=0, features=features))
        shar.write(MonoCut("ben/2", start=0, duration=0.04, channel=0))
    assert shards_in(path.name for path in tmp_path.iterdir()) == {
        "000000": {"cuts": "cuts.000000.jsonl.gz", "features": "features.000000.tar"}
    }
    (first, datum), (second, nothing) = read_field(tmp_path / "features.000000.tar", FeatureError)
    assert (first, second, nothing) == ("ann/1.a", "ben/2", None)
    assert datum is not None
    assert datum.manifest["num_frames"] == 4
    np.testing.assert_array_equal(array_in(datum, first, FeatureError), MATRIX)


def _written(folder: Path, number: int = 3) -> Path:
    with ShardWriter(folder, number, ("features",)) as shard:
        for name in ("ä/1", "b"):
            shard.write({"id": name, "text": "größer"}, {"features": (".npy", array_bytes(MATRIX), {"of": name})})
    return shard.files["features"]


def test_the_same_cuts_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = _written(tmp_path / name)
    one, two = (sorted(path.read_bytes() for path in (tmp_path / name).iterdir()) for name in ("one", "two"))
    assert one == two
    assert [name for name, _ in read_field(path, FeatureError)] == ["ä/1", "b"]
    lines = gzip.decompress((path.parent / "cuts.000003.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["größer", "größer"]


def test_only_files_of_shards_count_and_they_are_in_the_order_of_their_numbers() -> None:
    names = [
        "cuts.10.jsonl",
        "cuts.9.jsonl.gz",
        "a.9.tar",
        "a.9.tar.gz",
        "x/cuts.1.jsonl",
        "cuts.jsonl",
        "README",
        "a.9.wav",
    ]
    assert list(shards_in(names).items()) == [
        ("9", {"cuts": "cuts.9.jsonl.gz", "a": "a.9.tar"}),
        ("10", {"cuts": "cuts.10.jsonl"}),
    ]


def _link(path: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("a.npy")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    return path


def _claims(path: Path) -> Path:
    """A file that says it has ten gigabytes."""
    entry = tarfile.TarInfo("a.npy")
    entry.size = 10 << 30
    path.write_bytes(entry.tobuf() + b"x" * 1024)
    return path


def _sparse(path: Path) -> Path:
    """A file of a gigabyte of nothing, in a tar file of some kilobytes."""
    entry = tarfile.TarInfo("a.npy")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398], header[398:410] = b"00000000000 "[:12], b"00000000000 "[:12]
    header[483:495] = b"10000000000 "
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(bytes(header) + b"\0" * 1024)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "cannot be read (No such file or directory); copy it again"),
        (lambda path: path.write_text("hello"), "cannot be read (truncated header); copy it again"),
        (lambda path: _tar(path, ("a.npy", b"")), "'a' has no manifest after it"),
        (lambda path: _tar(path, ("a.npy", b""), ("b.json", b"{}")), "'a' has no manifest after it"),
        (lambda path: _tar(path, ("a.npy", b""), ("a.txt", b"{}")), "'a' has no manifest after it"),
        (lambda path: _tar(path, ("a.npy", b""), ("a.json", b"[]")), "'a' has no manifest after it"),
        (lambda path: _tar(path, ("a.npy", b""), ("a.json", b"{")), "the manifest of 'a': "),
        (lambda path: _tar(path, ("a.npy", b""), ("a.json", b" " * (2 << 20))), "'a.json' of 2097152 bytes"),
        (_link, "'a.npy' is not a file"),
        (_claims, "'a.npy' of 10737418240 bytes, at most "),
        (_sparse, "'a.npy' is not a file"),
        (lambda path: path.write_bytes(gzip.compress(_written(path.parent).read_bytes())), "is compressed; unpack it"),
        (lambda path: path.write_bytes(_written(path.parent).read_bytes()[:700]), "cannot be read further"),
    ],
)
def test_what_is_not_a_field_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "features.0.tar"
    make(path)
    with pytest.raises(FeatureError) as failure:
        list(read_field(path, FeatureError))
    assert message in str(failure.value)
    assert str(path) in str(failure.value)


def test_an_array_that_is_none_is_refused() -> None:
    pickled = io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    for ending, data, message in (
        (".npy", pickled.getvalue(), "not a NumPy file"),
        (".npy", b"\x93NUMPY\x01\x00\xff\xff", "not a NumPy file"),
        (".llc", b"", "an array as '.llc', expected '.npy'; write it with SharWriter and the field as numpy"),
    ):
        with pytest.raises(FeatureError, match=f"here: {message}"):
            array_in(Datum("a", ending, data, {}), "here", FeatureError)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6), length=st.integers(0, 6000))
def test_whatever_bytes_change_only_our_error_is_raised(tmp_path: Path, changes: Any, length: int) -> None:
    content = bytearray(_written(tmp_path).read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / "changed.tar").write_bytes(content[:length])
    try:
        for _, datum in read_field(tmp_path / "changed.tar", FeatureError):
            if datum is not None:
                array_in(datum, "here", FeatureError)
    except FeatureError:
        pass
