"""Unpacking of backups from untrusted sources: the archive is validated before anything is written.

First only the tar headers are read: names, kinds, sizes. Then the database, which records the expected files and
their sizes; then the files. Anything else is refused with one line.
"""

import hashlib
import io
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from models.errors import Conflict, CorruptFile, EpochalError
from models.files import compare_digests
from service.cli import backup_datasets
from service.cli.backup_database import list_records
from service.cli.backup_datasets import DATASETS

if TYPE_CHECKING:
    from models.store.artifacts import ArtifactRecord

DATABASE, EXPERIMENTS = "epochal.db", "experiments"
FOLDER = re.compile(rf"{EXPERIMENTS}(/[0-9]{{1,19}}(/[A-Za-z0-9][A-Za-z0-9._-]{{0,254}})?)?")
FILE = re.compile(rf"{EXPERIMENTS}/[0-9]{{1,19}}(/[A-Za-z0-9][A-Za-z0-9._-]{{0,254}}){{1,2}}")
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
MAX_MEMBERS = 1_000_000
MAX_HEAD_BYTES = 1 << 20
SPARE_BYTES = 64 << 20
"""Bytes that must stay free on the disk after unpacking."""
BROKEN = (
    tarfile.TarError, EOFError, OSError, ValueError, IndexError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip
"""What the tarfile module raises of an archive that was made to break it."""


class BackupFailed(EpochalError):
    """A backup could not be made consistently, or a file is not a valid backup."""

    code = "backup-failed"
    title = "The backup failed"


@dataclass(frozen=True, slots=True)
class Member:
    """A file in the archive: offset and size of its bytes."""

    offset: int
    num_bytes: int


class Unpacked(NamedTuple):
    """The content of a backup beside its database."""

    artifacts: int
    datasets: int
    """Versions of uploaded datasets."""


def unpack(file: Path, folder: Path) -> Unpacked:
    """Unpack a backup into an empty folder. Raises BackupFailed if it is not a complete backup of a lab."""
    from models.store.inspection import inspect

    try:
        members = read_heads(file)
        database = members.pop(DATABASE, None)
        if database is None:
            raise BackupFailed(f"{file} holds no {DATABASE}")
        _check_room(folder, database.num_bytes + sum(member.num_bytes for member in members.values()))
        with file.open("rb") as archive:
            _copy(archive, database, folder / DATABASE)
            inspect(folder / DATABASE)
            images = {name: members.pop(name) for name in list(members) if name.startswith(f"{DATASETS}/")}
            versions = _versions(folder, images)
            places = _places(folder, members)
            for record, member in places:
                _copy(archive, member, record.file(folder / EXPERIMENTS), record.sha256)
            for name, member in images.items():
                _copy(archive, member, folder / name)
            backup_datasets.check_restored(folder, versions)
    except (CorruptFile, Conflict) as error:
        raise BackupFailed(f"{file} is not a backup to restore: {error.detail}", fix=error.fix) from error
    return Unpacked(len(places), len(versions))


def read_heads(file: Path) -> dict[str, Member]:
    """List an archive's members from its headers. Raises BackupFailed for anything that a backup does not hold."""
    total = file.stat().st_size
    found: dict[str, Member] = {}
    folders: set[str] = set()
    try:
        with _Heads(file) as raw, tarfile.open(fileobj=raw, mode="r:") as archive:
            reached = -1
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it would keep a million of them
                name = member.name
                if archive.offset <= reached:  # a negative size leads back
                    raise BackupFailed(f"the size of {name[:80]!r} in the archive is {member.size}")
                reached = archive.offset
                _check_member(member)
                if name in found or name in folders:
                    raise BackupFailed(f"the archive holds {name[:80]!r} twice")
                if len(found) + len(folders) >= MAX_MEMBERS:
                    raise BackupFailed(f"the archive holds more than {MAX_MEMBERS:,} files")
                if member.isdir():
                    folders.add(name)
                    continue
                if member.offset_data + member.size > total:
                    raise BackupFailed(f"{file} is not a whole backup: it ends within {name[:80]!r}")
                found[name] = Member(member.offset_data, member.size)
    except BROKEN as error:
        raise BackupFailed(f"{file} is not a whole backup: {_one_line(error)}") from error
    return found


def _check_member(member: tarfile.TarInfo) -> None:
    name = member.name
    known = name == DATABASE or FILE.fullmatch(name) or backup_datasets.FILE.fullmatch(name)
    if member.isdir():
        known = FOLDER.fullmatch(name) or backup_datasets.FOLDER.fullmatch(name)
    plain = member.type in PLAIN and not member.issparse()
    if not known or not plain or member.size < 0 or (member.isdir() and member.size):
        raise BackupFailed(f"the archive holds {member.name[:80]!r}, which no backup has")


class _Heads(io.FileIO):
    """File object for reading tar headers only: a header that claims gigabytes is refused before allocation."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes. Raises ReadError for more than a header has."""
        if size is None or not 0 <= size <= MAX_HEAD_BYTES:
            raise tarfile.ReadError(f"a head of {size} bytes")
        return super().read(size) or b""


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes + SPARE_BYTES > free:
        raise BackupFailed(
            f"unpacked it takes {num_bytes:,} bytes, and {free:,} are free in {folder.parent}",
            fix="Free some space, or restore to another disk: --data-dir.",
        )


def _places(folder: Path, members: dict[str, Member]) -> list[tuple["ArtifactRecord", Member]]:
    """Match the database's artifacts with the archive's members; neither may have more than the other."""
    left = dict(members)
    places = []
    for record in list_records(folder):
        record.file(folder / EXPERIMENTS)  # raises for one that leads anywhere else
        member = left.pop(f"{EXPERIMENTS}/{record.path}", None)
        if member is None:
            raise BackupFailed(f"the archive lacks {record.path!r}, which its database names")
        if member.num_bytes != record.num_bytes:
            raise BackupFailed(
                f"{record.path!r} has {member.num_bytes:,} bytes in the archive, {record.num_bytes:,} in its database"
            )
        places.append((record, member))
    for name in left:
        raise BackupFailed(f"the archive holds {name[:80]!r}, which its database does not name")
    return places


def _versions(folder: Path, members: dict[str, Member]) -> dict[str, backup_datasets.Version]:
    """The versions of datasets that the archive holds, by their folders; its database has to name each."""
    known = {version.folder: version for version in backup_datasets.list_versions(folder)} if members else {}
    found: dict[str, backup_datasets.Version] = {}
    for name in members:
        path = name.rpartition("/")[0]
        if path not in known:
            raise BackupFailed(f"the archive holds {name[:80]!r}, which its database does not name")
        found[path] = known[path]
    return found


def _copy(archive: IO[bytes], member: Member, target: Path, sha256: str | None = None) -> None:
    """Write one file, checking its digest if known."""
    target.parent.mkdir(parents=True, exist_ok=True)
    archive.seek(member.offset)
    left, digest = member.num_bytes, hashlib.sha256()
    with target.open("xb") as copy:
        while left and (piece := archive.read(min(left, 1 << 20))):
            digest.update(piece)
            copy.write(piece)
            left -= len(piece)
    if sha256 is not None:
        compare_digests(target.name, digest.hexdigest(), sha256)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
