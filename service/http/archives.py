"""Reads the images in an uploaded zip: the directory is checked as a whole first, and nothing is written to disk.

Every error names the member. Sizes are bounded by the zip's directory; a member that unpacks to more is cut off there
and fails its checksum.
"""

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import InvalidRequest, TooLarge
from models.text import plural
from service.http.errors import BadRequest, shown

HEAD_OF_A_MEMBER = b"PK\x01\x02"
"""The signature of each entry of a zip's directory."""
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
"""The signature of a zip."""
MAX_ENTRIES = 5_000
"""The most entries of a directory; checked first, since zipfile makes an object of each."""
MAX_NAME = 1_000
COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
LEFT_BY_SYSTEMS = re.compile(
    r"__MACOSX/|(.*/)?(\.DS_Store|\._[^/]*|(eh)?thumbs\.db|desktop\.ini)$", re.IGNORECASE | re.DOTALL
)
"""Names of the files that macOS and Windows leave beside images."""
ENCRYPTED = 0x1
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, KeyError, IndexError, OverflowError,
    NotImplementedError, RuntimeError, MemoryError,
)  # fmt: skip
"""What the zipfile module raises for damaged and malicious archives."""
FIX = "put image files into the zip, in folders or not, and nothing else"


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip whose members were checked and not unpacked yet."""

    zip: zipfile.ZipFile
    members: Sequence[zipfile.ZipInfo]

    @property
    def num_bytes(self) -> int:
        """The size of all members unpacked."""
        return sum(member.file_size for member in self.members)

    def unpack(self) -> list[tuple[str, bytes]]:
        """Names and contents, in the archive's order. Raises InvalidRequest for one that is damaged or itself a zip."""
        return [(member.filename, self._read(index, member)) for index, member in enumerate(self.members)]

    def _read(self, index: int, member: zipfile.ZipInfo) -> bytes:
        try:
            with self.zip.open(member) as opened:
                data = opened.read(member.file_size + 1)
        except BROKEN as error:
            raise _refusal(index, member.filename, f"cannot be unpacked: {_one_line(error)}") from error
        if len(data) != member.file_size:
            raise _refusal(index, member.filename, "does not have the size that the zip says")
        if data.startswith(ZIP):
            raise _refusal(index, member.filename, "is a zip itself, and zips in zips are not unpacked")
        return data


def open_archive(data: bytes, *, max_members: int, max_bytes: int) -> Archive:
    """Check a zip's directory: names, kinds and sizes of all members; folders and files that systems leave are skipped.

    Raises BadRequest for an invalid zip; InvalidRequest for one without members, or with a path outside the archive, a
    link or an encrypted member; TooLarge for too many members or bytes.
    """
    if data.count(HEAD_OF_A_MEMBER) > MAX_ENTRIES:
        raise TooLarge(
            f"the zip holds more than {MAX_ENTRIES:,} members; at most {max_members} images are read at once",
            fix="send fewer in one request",
        )
    try:
        opened = zipfile.ZipFile(io.BytesIO(data))
    except BROKEN as error:
        raise BadRequest(f"the body is not a zip that can be read: {_one_line(error)}", fix=FIX) from error
    members, seen, total = list[zipfile.ZipInfo](), set[str](), 0
    for index, member in enumerate(opened.infolist()):
        _check_member(index, member)
        if member.is_dir() or LEFT_BY_SYSTEMS.match(member.filename):
            continue
        if member.filename in seen:
            raise _refusal(index, member.filename, "occurs twice")
        seen.add(member.filename)
        total += member.file_size
        if len(members) == max_members:
            name = shown(member.filename)
            raise TooLarge(
                f"the zip holds more than {max_members} files: {name!r} is one too many",
                fix="send fewer in one request",
            )
        if total > max_bytes:
            raise TooLarge(
                f"unpacked, {shown(member.filename)!r} ({plural(member.file_size, 'byte')}) makes {total:,} bytes of "
                f"the zip, of which at most {max_bytes:,} are read",
                fix="send fewer or smaller images, or raise EPOCHAL_MAX_UPLOAD_MB",
            )
        members.append(member)
    if not members:
        raise InvalidRequest("the zip holds no files", fix=FIX)
    return Archive(opened, members)


def _check_member(index: int, member: zipfile.ZipInfo) -> None:
    name = member.orig_filename  # zipfile cuts a name at a NUL, and turns backslashes around on Windows
    if not name or len(name) > MAX_NAME or "\0" in name:
        raise _refusal(index, name, "has no name that a file can have")
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        raise _refusal(index, name, "has an absolute name")
    if ".." in re.split(r"[/\\]", name):
        raise _refusal(index, name, "has a name that leads out of the zip")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refusal(index, name, "is a link" if kind == stat.S_IFLNK else "is not a file")
    if member.is_dir() and member.file_size:
        raise _refusal(index, name, "is a folder with a content")
    if member.flag_bits & ENCRYPTED:
        raise _refusal(index, name, "is encrypted")
    if member.compress_type not in COMPRESSIONS:
        raise _refusal(index, name, "is compressed in a way that is not read (stored and deflated members are)")


def _refusal(index: int, name: str, what: str) -> InvalidRequest:
    name = shown(name)
    return InvalidRequest(f"member {index + 1} of the zip, {name!r}, {what}", fix=FIX, index=index, image=name)


def _one_line(error: BaseException) -> str:
    return shown(" ".join(str(error).split())) or type(error).__name__
