"""Download of LibriSpeech and mini LibriSpeech from OpenSLR: resumed, verified, unpacked whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lhuc_asr.base.atomic import atomic_folder, atomic_path
from lhuc_asr.base.errors import DownloadError
from lhuc_asr.base.foreign import foreign_errors, one_line
from lhuc_asr.base.outputs import named
from lhuc_asr.base.runlog import progress
from lhuc_asr.corpus.http_file import fetch
from lhuc_asr.corpus.librispeech import AUDIO_ENDINGS

logger = logging.getLogger(__name__)

OPENSLR = "https://www.openslr.org/resources"

BLOCK_BYTES = 1 << 20

# FLAC cannot be compressed further: an unpacked subset is hardly larger than its archive.
UNPACKED_PER_ARCHIVE_BYTE = 1.1
# Transcripts alone, which are text, are five times their archive. Headers count too, for archives of tiny files.
MOST_UNPACKED_PER_ARCHIVE_BYTE = 5
LEAST_LIMIT = 1 << 24


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive of a subset.

    Attributes:
        resource: Number of the corpus at OpenSLR: 12 is LibriSpeech, 31 is mini LibriSpeech.
        recordings: Number of recordings in it.
        checksum: Algorithm and hexadecimal digest, "sha256:..." or "md5:...".
    """

    resource: int
    recordings: int
    checksum: str


# The SHA-256 sums are those of torchaudio 2.11 (datasets.librispeech), which has none for mini LibriSpeech. Its MD5
# sums are those on which several public preparation scripts agree, such as that of DeepSpeech.
ARCHIVES = {
    "dev-clean": Archive(12, 2703, "sha256:76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3"),
    "dev-other": Archive(12, 2864, "sha256:12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365"),
    "test-clean": Archive(12, 2620, "sha256:39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23"),
    "test-other": Archive(12, 2939, "sha256:d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29"),
    "train-clean-100": Archive(12, 28_539, "sha256:d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2"),
    "train-clean-360": Archive(12, 104_014, "sha256:146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf"),
    "train-other-500": Archive(12, 148_688, "sha256:ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2"),
    "dev-clean-2": Archive(31, 1089, "md5:6d7ab67ac6a1d2c993d050e16d61080d"),
    "train-clean-5": Archive(31, 1519, "md5:5df7d4e78065366204ca6845bb08f490"),
}

# Names that stand for several subsets: the training and the test set of mini LibriSpeech.
SETS = {"mini": ("train-clean-5", "dev-clean-2")}


def download_subsets(name: str, folder: Path, *, base_url: str = OPENSLR) -> list[Path]:
    """Download and unpack the subsets of a set, or one subset; those that are there are left as they are.

    Args:
        name: A key of ``SETS`` or ``ARCHIVES``.
        folder, base_url: As in ``download_librispeech``.

    Returns:
        The subsets' folders.

    Raises:
        DownloadError: As ``download_librispeech``; subsets that were finished before stay.
    """
    return [download_librispeech(subset, folder, base_url=base_url) for subset in SETS.get(name, (name,))]


def download_librispeech(subset: str, folder: Path, *, base_url: str = OPENSLR, checksum: str | None = None) -> Path:
    """Download and unpack one subset; an existing one is left as it is.

    Args:
        subset: A key of ``ARCHIVES``; "dev-clean-2" and "train-clean-5" are mini LibriSpeech.
        folder: Folder for ``LibriSpeech/<subset>`` and the tables of the corpus (SPEAKERS.TXT).
        base_url: Address of the ``resources`` folder of OpenSLR or of a mirror.
        checksum: Checksum in place of the known one, for a mirror that packs its own archives.

    Returns:
        The subset's folder.

    Raises:
        DownloadError: The subset is unknown, or half there; the disk is too small, the download fails for good, or the
            archive has another checksum.
    """
    if subset not in ARCHIVES:
        raise DownloadError(f"LibriSpeech has no subset {subset!r}; expected one of {', '.join((*SETS, *ARCHIVES))}")
    destination = folder / "LibriSpeech" / subset
    algorithm, _, digest = (checksum or ARCHIVES[subset].checksum).partition(":")
    if algorithm not in ("md5", "sha256") or not digest:
        raise DownloadError(f"checksum {checksum!r}: expected 'sha256:DIGEST' or 'md5:DIGEST'")
    with named(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if destination.is_dir():
        if checksum is None:  # what another archive holds is not known
            _check_whole(destination, ARCHIVES[subset].recordings)
        logger.info("%s is there already", destination)
        return destination
    archive = folder / f"{subset}.tar.gz"
    for path in (destination, archive):
        # An archive that is a file may stand there: an earlier attempt was killed between fetching and unpacking.
        if os.path.lexists(path) and not (path == archive and path.is_file()):
            raise DownloadError(f"{path}: is in the way of the download; move it away")
    url = f"{base_url.rstrip('/')}/{ARCHIVES[subset].resource}/{archive.name}"
    if not archive.exists():
        fetch(url, archive, UNPACKED_PER_ARCHIVE_BYTE)
    _verify(archive, algorithm, digest, url)
    _unpack(archive, destination)
    archive.unlink()
    return destination


def _check_whole(folder: Path, expected: int) -> None:
    """Refuse a subset that another program, or a copy that was broken off, left half there."""
    recordings = sum(1 for path in folder.rglob("*") if path.suffix.lower() in AUDIO_ENDINGS)
    if recordings < expected:
        raise DownloadError(
            f"{folder}: {recordings} recordings, expected {expected}: the subset is not whole; delete the folder, and "
            "download it again"
        )


def _verify(archive: Path, algorithm: str, expected: str, url: str) -> None:
    """Check the digest of the archive; a wrong archive is deleted, since continuing the download would not mend it."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    if digest != expected.lower():
        archive.unlink()
        raise DownloadError(
            f"{url}: {algorithm} {digest}, expected {expected}: damaged on the way or another file; "
            "it was deleted, download it again"
        )


def _unpack(archive: Path, destination: Path) -> None:
    """Unpack ``LibriSpeech/<subset>/...`` to ``destination``, and the files beside the subset next to it."""
    remedy = "delete it to fetch it again"
    with atomic_folder(destination) as temporary:
        with (
            foreign_errors(DownloadError, f"{archive}: cannot be unpacked", remedy),
            _Stream(archive) as stream,
            tarfile.open(fileobj=stream, mode="r:") as tar,
        ):
            for member in progress(_members(tar), f"unpacking {archive.name} (files)"):
                path = _safe_path(member, archive)
                if path.parts[:2] == ("LibriSpeech", destination.name):
                    _extract(tar, member, PurePosixPath(*path.parts[2:]), temporary, archive)
                elif path.parts[:-1] == ("LibriSpeech",) and (table := tar.extractfile(member)):
                    with atomic_path(destination.parent / path.name) as target, target.open("wb") as file:
                        shutil.copyfileobj(table, file)
                elif path.parts != ("LibriSpeech",):
                    raise DownloadError(
                        f"{archive}: {_shown(member)} does not belong to LibriSpeech/{destination.name}"
                    )
        if not any(temporary.iterdir()):
            raise DownloadError(f"{archive}: holds no LibriSpeech/{destination.name}")


class _Stream(gzip.GzipFile):
    """The unpacked bytes of an archive; one that is made to fill the disk or the memory is refused."""

    def __init__(self, archive: Path) -> None:
        super().__init__(archive, "rb")
        self._limit = LEAST_LIMIT + MOST_UNPACKED_PER_ARCHIVE_BYTE * archive.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Read bytes; tarfile reads names and the like in one piece, however long they say they are."""
        if size is None or not 0 <= size <= BLOCK_BYTES or self.tell() > self._limit:
            raise tarfile.ReadError("unpacks to far more than a corpus of speech does")
        return super().read(size)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while member := tar.next():
        yield member
        tar.members.clear()  # type: ignore[attr-defined] # tarfile would keep them all


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, inner: PurePosixPath, folder: Path, archive: Path) -> None:
    if member.isfile() and os.path.lexists(folder / inner):
        raise DownloadError(f"{archive}: {_shown(member)} is there twice; delete the archive")
    tar.extract(member.replace(name=str(inner)), folder, filter="data")


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    """The path of a member, refused if it leaves the folder or is neither a file nor a folder.

    The data filter of tarfile would make an absolute path relative; here it is a sign of a hostile archive.
    """
    path = PurePosixPath(member.name)
    is_plain = member.isdir() or (member.isfile() and not member.issparse())
    if path.is_absolute() or ".." in path.parts or not is_plain:
        raise DownloadError(
            f"{archive}: {_shown(member)} is a link, has holes, or leads out of the archive; delete the archive"
        )
    return path


def _shown(member: tarfile.TarInfo) -> str:
    return one_line(repr(member.name))
