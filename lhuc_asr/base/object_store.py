"""Files by key, for machines that share no disk: in a folder that all of them see, or in storage that speaks S3.

A file appears under its key whole or not at all, and is never changed afterwards; two machines that write one key write
the same content, so that it does not matter who comes last. A key is a relative path with forward slashes.

A store is as trustworthy as those who may write to it. What is fetched is checked by whoever knows its hash.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import LhucError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.foreign import foreign_errors
from lhuc_asr.base.hashed_folder import is_inside
from lhuc_asr.base.plain_file import check_plain_file

SCHEME = "s3"
# HTTP's answer to a question for what is not there.
NOT_THERE = 404


# A server that does not answer is an error after a minute and a half at most.
WAITING: dict[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "retries": {"max_attempts": 3, "mode": "standard"},
}


class StoreError(LhucError, OSError):
    """A store cannot be reached, or lacks a file."""


class ObjectStore(ABC):
    """Files by key.

    Attributes:
        url: Where the files are.
        remedy: What to do where they cannot be reached.
    """

    url: str
    remedy: ClassVar[str]

    @abstractmethod
    def put(self, path: Path, key: str) -> None:
        """Store a file; one that is there already is replaced.

        Raises:
            StoreError: The store cannot be written to.
        """

    @abstractmethod
    def fetch(self, key: str, path: Path) -> None:
        """Write a stored file to a path, whole or not at all.

        Raises:
            StoreError: The file is missing, or the store cannot be read.
        """

    @abstractmethod
    def has(self, key: str) -> bool:
        """Whether there is a file under a key.

        Raises:
            StoreError: The store cannot be reached.
        """

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """All files: their keys, and what is different for another content under the same key; sorted.

        Raises:
            StoreError: The store cannot be reached.
        """

    @contextmanager
    def reading(self, key: str) -> Iterator[Path]:
        """A path at which a stored file can be read while the block runs.

        Raises:
            StoreError: As of ``fetch``.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder) / checked_key(key).name
            self.fetch(key, path)
            yield path

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        with foreign_errors(StoreError, f"{self.url}: {what}", self.remedy):
            yield


def open_store(url: str) -> ObjectStore:
    """The store at a URL.

    Args:
        url: ``s3://bucket/prefix``, or the path of a folder. Credentials, region and endpoint of S3 are those of its
            own configuration: environment variables such as ``AWS_ENDPOINT_URL``, and ``~/.aws``.

    Raises:
        StoreError: The URL is of another kind, or names no bucket.
        MissingExtraError: The URL is of S3, and its library is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == SCHEME:
        return S3Store(url)
    if "://" in url:
        raise StoreError(f"{url}: stores are {SCHEME}://BUCKET/PREFIX, or a folder that all machines see")
    return FolderStore(Path(url))


class FolderStore(ObjectStore):
    """Files in a folder.

    Args:
        folder: The folder, made when it is first written to.
    """

    remedy = "check that all machines have the same folder there"

    def __init__(self, folder: Path) -> None:
        self.url = str(folder.absolute())
        self._folder = folder.absolute()

    def put(self, path: Path, key: str) -> None:
        """Store a file; see ``ObjectStore``."""
        place = self._place(key)
        with self._reached(f"{key} cannot be written"):
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, place)

    def fetch(self, key: str, path: Path) -> None:
        """Write a stored file to a path; see ``ObjectStore``."""
        place = self._place(key)
        with self._reached(f"{key} cannot be read"):
            _copy(place, path)

    def has(self, key: str) -> bool:
        """Whether there is a file under a key; see ``ObjectStore``."""
        return self._place(key).is_file()

    def versions(self) -> dict[str, str]:
        """All files; see ``ObjectStore``."""
        with self._reached("cannot be listed"):
            files = sorted(path for path in self._folder.rglob("*") if path.is_file())
            states = [(path, path.stat()) for path in files]
        return {
            path.relative_to(self._folder).as_posix(): f"{state.st_size} {state.st_mtime_ns}" for path, state in states
        }

    @contextmanager
    def reading(self, key: str) -> Iterator[Path]:
        """The file itself; see ``ObjectStore``."""
        place = self._place(key)
        with self._reached(f"{key} cannot be read"):
            check_plain_file(place)
        yield place

    def _place(self, key: str) -> Path:
        return self._folder / checked_key(key)


class S3Store(ObjectStore):
    """Files in a bucket of S3, or of a server that speaks its protocol.

    Args:
        url: ``s3://bucket/prefix``; the prefix may be empty.

    Raises:
        StoreError: The URL names no bucket.
        MissingExtraError: boto3 is not installed.
    """

    remedy = "check the bucket, AWS_ENDPOINT_URL and the credentials"

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.netloc:
            raise StoreError(f"{url}: names no bucket; give {SCHEME}://BUCKET/PREFIX")
        with extra("cluster"):
            import boto3
            from botocore.config import Config
        self.url = url.rstrip("/")
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        with foreign_errors(StoreError, f"{url}: cannot be opened", "set region and credentials as for other programs"):
            self._client: Any = boto3.client("s3", config=Config(**WAITING))

    def put(self, path: Path, key: str) -> None:
        """Store a file; see ``ObjectStore``."""
        with self._reached(f"{key} cannot be written"):
            self._client.upload_file(str(path), self._bucket, self._name(key))

    def fetch(self, key: str, path: Path) -> None:
        """Write a stored file to a path; see ``ObjectStore``."""
        with atomic_path(path) as temporary, self._reached(f"{key} cannot be read"):
            self._client.download_file(self._bucket, self._name(key), str(temporary))

    def has(self, key: str) -> bool:
        """Whether there is a file under a key; see ``ObjectStore``."""
        with self._reached(f"{key} cannot be looked up"):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._name(key))
            except self._client.exceptions.ClientError as error:
                if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == NOT_THERE:
                    return False
                raise
        return True

    def versions(self) -> dict[str, str]:
        """All files; see ``ObjectStore``."""
        start = f"{self._prefix}/" if self._prefix else ""
        with self._reached("cannot be listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=start)
            files = [(each["Key"], each["Size"], each["ETag"]) for page in pages for each in page.get("Contents", ())]
        return {name.removeprefix(start): f"{size} {tag}" for name, size, tag in sorted(files)}

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}".lstrip("/")


def checked_key(key: str) -> PurePosixPath:
    """A key as a path.

    Raises:
        StoreError: It leads out of the store.
    """
    if not is_inside(key):
        raise StoreError(f"{key!r}: not a key of a store, which is a relative path")
    return PurePosixPath(key)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
