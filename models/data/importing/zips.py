"""The source for a zip: its directory is checked as a whole, then members are read in order."""

import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Self

from models.data.importing import source as limits
from models.data.importing.name_encodings import decode_names
from models.data.importing.names import parts_of, refusal, shown
from models.data.importing.source import (
    MAX_IMAGE_BYTES,
    MAX_TEXT_BYTES,
    Entry,
    Listing,
    Names,
    check_ratio,
    copy_file,
    too_many,
)
from models.errors import ArchiveError

MEMBER_HEAD = b"PK\x01\x02"
LOCAL_HEAD = b"PK\x03\x04"
LOCAL = struct.Struct("<4s2xH18xHH")
"""The local header before a member's content: signature, flags, lengths of the name and of the extra field."""
END, END64 = b"PK\x05\x06", b"PK\x06\x06"
MOST_EXTRA = 64
"""Bytes of times and owners that usually follow the name before a member's content."""
TAIL_BYTES = 65_535 + 22 + 20 + 56
"""Bytes at the end of a zip that hold its end records: a comment of up to 65,535 bytes and up to three records."""
DIRECTORY_BYTES_A_FILE = 400
ENCRYPTED, UTF8 = 0x1, 0x800
UNICODE_PATH = 0x7075
"""Info-ZIP's extra field: a version, the CRC-32 of the name that it stands for, the name in UTF-8."""
COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, KeyError, IndexError, OverflowError,
    NotImplementedError, RuntimeError, MemoryError, lzma.LZMAError,
)  # fmt: skip
"""What the zipfile module raises for damaged and malicious archives."""


class ZipSource:
    """The members of a zip."""

    kind = "zip"
    class_names: tuple[str, ...] | None = None

    def __init__(self, path: Path) -> None:
        self.listing = Listing()
        self._file = path.open("rb")
        try:
            _check_directory(self._file, path.stat().st_size)
            self._zip = zipfile.ZipFile(self._file)
            self._members = self._list(path.stat().st_size)
        except BROKEN as error:
            self._file.close()
            raise ArchiveError(
                f"the zip cannot be read: {shown(str(error)) or type(error).__name__}",
                fix="it was cut off or damaged on its way: send it again, or pack the folder again",
            ) from error
        except BaseException:
            self._file.close()
            raise

    def _list(self, packed: int) -> list[zipfile.ZipInfo]:
        members, names = list[zipfile.ZipInfo](), Names(self.kind)
        unpacked = stored = 0
        decoded, self.listing.warnings = _decode_names(self._zip.filelist)
        for index, (member, name) in enumerate(zip(self._zip.filelist, decoded, strict=True)):
            _check_member(member, name, index)
            parts = parts_of(name, index, self.kind)
            if name.endswith("/") or not parts:
                if member.file_size:
                    raise refusal(name, index, self.kind, "is a folder with a content")
                if parts:
                    self.listing.folders.add("/".join(parts))
                continue
            path = "/".join(parts)
            names.add(path, index)
            unpacked, stored = unpacked + member.file_size, stored + member.compress_size
            check_ratio(unpacked, packed, self.kind, path)
            self.listing.entries.append(Entry(path, member.file_size))
            members.append(member)
        if stored > packed:
            raise ArchiveError(
                f"the members of the zip have {stored:,} bytes together and the zip has {packed:,}: they overlap",
                fix="pack the images' folder again",
            )
        return members

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    def contents(self, wanted: Collection[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
        """See Source."""
        for number in sorted(wanted, key=lambda number: self._members[number].header_offset):
            try:
                yield number, self._read(number, MAX_IMAGE_BYTES)
            except ArchiveError as error:
                yield number, error

    def text(self, number: int) -> bytes:
        """See Source."""
        return self._read(number, MAX_TEXT_BYTES)

    def copy(self, wanted: Mapping[int, Path]) -> None:
        """See Source."""
        for number, path in wanted.items():
            member, name = self._members[number], self.listing.entries[number].name
            try:
                with self._zip.open(member) as opened:
                    copy_file(opened, path, name, member.file_size)
            except BROKEN as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's own, not the archive's
                raise ArchiveError(f"'{shown(name)}' cannot be unpacked: {error}", file=shown(name)) from error

    def _read(self, number: int, most: int) -> bytes:
        member, name = self._members[number], shown(self.listing.entries[number].name)
        if member.file_size > most:
            raise ArchiveError(f"'{name}' has {member.file_size:,} bytes; at most {most:,} are read", file=name)
        try:
            data = self._unpack(member)
        except BROKEN as error:
            reason = shown(" ".join(str(error).split())) or type(error).__name__
            raise ArchiveError(f"'{name}' cannot be unpacked: {reason}", file=name) from error
        if len(data) != member.file_size:
            raise ArchiveError(f"'{name}' does not have the size that the zip says", file=name)
        return data

    def _unpack(self, member: zipfile.ZipInfo) -> bytes:
        """A member's content, checked by its CRC. zipfile's own reading is several times slower for small files."""
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with self._zip.open(member) as opened:
                return opened.read(member.file_size + 1)
        if member.compress_size > member.file_size + (member.file_size >> 3) + 4096:
            raise zipfile.BadZipFile("it is larger packed than unpacked")
        file = self._file.fileno()
        # the whole member at once, as far as its head is as long as it usually is
        begun = LOCAL.size + len(member.filename) + MOST_EXTRA
        start = os.pread(file, begun + member.compress_size, member.header_offset)
        magic, flags, name_length, extra_length = LOCAL.unpack_from(start)
        if magic != LOCAL_HEAD:
            raise zipfile.BadZipFile("it does not begin where the directory says")
        if flags & ENCRYPTED:
            raise zipfile.BadZipFile("it is encrypted")
        begins = LOCAL.size + name_length + extra_length
        packed = start[begins : begins + member.compress_size]
        if len(packed) < member.compress_size:
            packed = os.pread(file, member.compress_size, member.header_offset + begins)
        if len(packed) != member.compress_size:
            raise EOFError("the zip ends within it")
        data = packed
        if member.compress_type == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.file_size + 1)
        if zlib.crc32(data) != member.CRC:
            raise zipfile.BadZipFile("its checksum is wrong")
        return data


def _decode_names(members: Sequence[zipfile.ZipInfo]) -> tuple[list[str], list[str]]:
    """The members' names, with slashes between their parts, and warnings about a guessed encoding."""
    stated = [_stated_name(member) for member in members]
    raw = [member.orig_filename.encode("cp437") for member, name in zip(members, stated, strict=True) if name is None]
    guessed, warnings = decode_names(raw, ZipSource.kind)
    following = iter(guessed)
    # a backslash is no part of a name: Windows' programs write it between folders, some beside slashes
    return [(next(following) if name is None else name).replace("\\", "/") for name in stated], warnings


def _stated_name(member: zipfile.ZipInfo) -> str | None:
    """A member's name where the zip says how it is encoded; None if it does not."""
    # not `filename`, which zipfile cuts at a NUL, and which newer versions decode from the extra field
    name = member.orig_filename
    if member.flag_bits & UTF8:
        return name
    return _unicode_path(member.extra, name.encode("cp437")) or (name if name.isascii() else None)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + length]
        if kind == UNICODE_PATH and field[:5] == struct.pack("<BI", 1, zlib.crc32(raw)):
            return field[5:].decode(errors="replace")
        place += 4 + length
    return None


def _check_member(member: zipfile.ZipInfo, name: str, index: int) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refusal(name, index, "zip", "is a link" if kind == stat.S_IFLNK else "is not a file")
    if member.flag_bits & ENCRYPTED:
        raise refusal(name, index, "zip", "is encrypted", "pack the images without a password")
    if member.compress_type not in COMPRESSIONS:
        raise refusal(
            name, index, "zip", f"is compressed by method {member.compress_type}, which is not read",
            "pack the images' folder with an ordinary zip (deflate)",
        )  # fmt: skip


def _check_directory(file: BinaryIO, size: int) -> None:
    """Check the number of files in the zip's directory before the zipfile module makes an object of each."""
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read()
    place = tail.rfind(END)
    if place < 0:
        raise zipfile.BadZipFile("it has no directory at its end")
    count, length = struct.unpack_from("<HI", tail, place + 10)
    if (place64 := tail.rfind(END64, 0, place)) >= 0:
        count, length = struct.unpack_from("<QQ", tail, place64 + 32)
    # a directory may hold more than the count says: what its length leaves room for is what is read
    if count > limits.MAX_ENTRIES or length > limits.MAX_ENTRIES * DIRECTORY_BYTES_A_FILE or length > size:
        raise too_many("zip")
    file.seek(max(0, size - len(tail) + (place64 if place64 >= 0 else place) - length))
    found, carry, left = 0, b"", length
    while left > 0 and (block := file.read(min(1 << 20, left))):
        found += (carry + block).count(MEMBER_HEAD)
        carry, left = block[-(len(MEMBER_HEAD) - 1) :], left - len(block)
    if found > 2 * limits.MAX_ENTRIES:
        raise too_many("zip")
    file.seek(0)
