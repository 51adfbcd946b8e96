"""Stores: files by key, in a folder and behind a real server that speaks S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from lhuc_asr.base.object_store import ObjectStore, StoreError, open_store


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("bucket"))


def test_what_is_put_is_fetched(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert not store.has("deep/in/a")
    store.put(tmp_path / "a", "deep/in/a")
    assert store.has("deep/in/a")
    assert not store.has("deep/in")
    again = open_store(store.url)
    again.fetch("deep/in/a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == content


def test_what_is_put_again_is_replaced(store: ObjectStore, tmp_path: Path) -> None:
    for content in (b"longer than the other", b"other"):
        (tmp_path / "a").write_bytes(content)
        store.put(tmp_path / "a", "a")
    store.fetch("a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"other"


def test_a_file_that_is_not_there_is_named_and_leaves_the_target_as_it_was(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("before")
    with pytest.raises(StoreError, match=r"^[^\n]*a/b[^\n]*$"):
        store.fetch("a/b", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


@pytest.mark.parametrize("key", ["../a", "/etc/passwd", "a/../../b", "", "a\0b", "a\\b"])
def test_a_key_stays_in_the_store(key: str, store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    for use in (store.has, lambda key: store.put(tmp_path / "a", key), lambda key: store.fetch(key, tmp_path / "b")):
        with pytest.raises(StoreError, match="not a key of a store"):
            use(key)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/x", "gs://bucket/x: stores are s3://BUCKET/PREFIX, or a folder"),
        ("s3:///x", "s3:///x: names no bucket"),
    ],
)
def test_a_url_of_another_kind_is_refused(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_store(url)


def test_a_bucket_and_a_server_that_are_not_there_are_named(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    wrong = open_store("s3://another-bucket/x")
    for use in (lambda: wrong.put(tmp_path / "a", "a"), lambda: wrong.fetch("a", tmp_path / "b")):
        with pytest.raises(StoreError, match=r"s3://another-bucket/x: a cannot be .*; check the bucket, AWS"):
            use()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = open_store(bucket)
    with pytest.raises(StoreError, match=r"a cannot be looked up .*; check the bucket, AWS_ENDPOINT_URL"):
        away.has("a")


def test_all_files_are_listed_with_what_changes_with_their_content(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    for key in ("b/2", "a", "b/1"):
        store.put(tmp_path / "a", key)
    before = store.versions()
    assert list(before) == ["a", "b/1", "b/2"]
    assert open_store(store.url).versions() == before
    (tmp_path / "a").write_text("another")
    store.put(tmp_path / "a", "b/1")
    after = store.versions()
    assert [key for key in before if before[key] != after[key]] == ["b/1"]


def test_a_stored_file_is_read_where_it_lies_or_fetched_for_a_while(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    store.put(tmp_path / "a", "deep/a.txt")
    with store.reading("deep/a.txt") as path:
        assert path.name == "a.txt"
        assert path.read_text() == "one"
    assert path.exists() == (not store.url.startswith("s3://"))
    with pytest.raises(StoreError, match=r"deep/b\.txt cannot be read"), store.reading("deep/b.txt"):
        pass
