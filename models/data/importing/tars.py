"""The source for a tar, compressed or not: read once for the names, and again for the images."""

import lzma
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Self

from models.data.importing.name_encodings import decode_names
from models.data.importing.names import parts_of, refusal, shown
from models.data.importing.source import (
    MAX_IMAGE_BYTES,
    MAX_TEXTS_BYTES,
    Entry,
    Listing,
    Names,
    check_ratio,
    copy_file,
    is_text,
)
from models.errors import ArchiveError
from models.plain import is_unicode

BROKEN = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, OverflowError, KeyError)
"""What tarfile and the decompressors raise for a damaged file. UnicodeError is a ValueError."""


class _Whole(tarfile.TarInfo):
    """A member's header that detects truncation, since tarfile takes a tar that ends too early for a complete one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        """Read a header. Raises ReadError for an invalid one, and if the tar ends before its end-of-archive blocks."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the end, as it should be
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it ends too early, or is damaged ({error})") from error


class TarSource:
    """The members of a tar. A compressed one has no random access, so text files are kept from the first pass."""

    kind = "tar"
    class_names: tuple[str, ...] | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = path.stat().st_size
        self.listing = Listing()
        self._texts: dict[int, bytes] = {}
        self._numbers: dict[int, int] = {}
        """The entry's number by the member's place in the tar."""
        names, texts = Names(self.kind), 0
        stated = set[str]()
        for index, (tar, member) in enumerate(self._members()):
            parts = self._check(member, index)
            name = "/".join(parts)
            if "path" in member.pax_headers:
                stated.add(name)
            if member.isdir():
                if parts:
                    self.listing.folders.add(name)
                continue
            names.add(name, index)
            number = self._numbers[index] = len(self.listing.entries)
            self.listing.entries.append(Entry(name, member.size))
            if is_text(name, member.size) and texts + member.size <= MAX_TEXTS_BYTES:
                self._texts[number] = self._read(tar, member, name)
                texts += member.size
        self._decode_names(stated)

    def _decode_names(self, stated: set[str]) -> None:
        """Decode names that are not in UTF-8, which tarfile gives as surrogates for their bytes.

        If there is one, others that could be in UTF-8 are not either, but for those `stated` in the format's own way.
        """
        names = [entry.name for entry in self.listing.entries] + sorted(self.listing.folders)
        if all(map(is_unicode, names)):
            return
        unsure = [name for name in names if not name.isascii() and name not in stated]
        raw = [name.encode(errors="surrogateescape") for name in unsure]
        decoded, self.listing.warnings = decode_names(raw, self.kind)
        renamed = dict(zip(unsure, decoded, strict=True))
        entries = self.listing.entries
        entries[:] = [entry._replace(name=renamed.get(entry.name, entry.name)) for entry in entries]
        self.listing.folders = {renamed.get(folder, folder) for folder in self.listing.folders}

    def _check(self, member: tarfile.TarInfo, index: int) -> tuple[str, ...]:
        parts = parts_of(member.name, index, self.kind)
        if member.issym() or member.islnk():
            fix = "pack the files that links point to in their place (tar --dereference --hard-dereference)"
            raise refusal(member.name, index, self.kind, "is a link", fix)
        if member.issparse():
            raise refusal(member.name, index, self.kind, "is a sparse file", "pack it without tar's --sparse")
        if not member.isdir() and not member.isreg():
            raise refusal(member.name, index, self.kind, "is not a file")
        if not parts and not member.isdir():
            raise refusal(member.name, index, self.kind, "has no name")
        check_ratio(member.offset_data + member.size, self._packed, self.kind, member.name)
        return parts

    def _members(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        try:
            # a stream: a compressed tar is read once, from its start to its end, and no list of members is kept
            with tarfile.open(self._path, "r|*", tarinfo=_Whole, errorlevel=1) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every member
                    yield tar, member
        except BROKEN as error:
            raise _damaged(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def contents(self, wanted: Collection[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
        """See Source."""
        wanted = wanted if isinstance(wanted, set | frozenset) else set(wanted)
        left = len(wanted)
        for index, (tar, member) in enumerate(self._members()):
            number = self._numbers.get(index)
            if number is None or number not in wanted:
                continue
            name = shown(self.listing.entries[number].name)
            if member.size > MAX_IMAGE_BYTES:
                most = f"{member.size:,} bytes; at most {MAX_IMAGE_BYTES:,} are read"
                yield number, ArchiveError(f"'{name}' has {most}", file=name)
            else:
                yield number, self._read(tar, member, name)
            left -= 1
            if left == 0:
                return

    def _read(self, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
        try:
            file = tar.extractfile(member)
            data = file.read() if file is not None else b""
        except BROKEN as error:
            raise _damaged(error) from error
        if len(data) != member.size:
            raise ArchiveError(
                f"the tar ends within '{shown(name)}'", fix="it was cut off on its way: send it again", file=shown(name)
            )
        return data

    def copy(self, wanted: Mapping[int, Path]) -> None:
        """See Source. The tar is read once, whatever is wanted of it."""
        for index, (tar, member) in enumerate(self._members()):
            path = wanted.get(self._numbers.get(index, -1))
            if path is None:
                continue
            try:
                if (file := tar.extractfile(member)) is not None:
                    copy_file(file, path, member.name, member.size)
            except BROKEN as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # the disk's own, not the archive's
                raise _damaged(error) from error

    def text(self, number: int) -> bytes:
        """See Source."""
        if number not in self._texts:
            name = shown(self.listing.entries[number].name)
            raise ArchiveError(f"'{name}' is too large for a table of labels", file=name)
        return self._texts[number]


def _damaged(error: Exception) -> ArchiveError:
    return ArchiveError(
        f"the tar cannot be read: {shown(str(error)) or type(error).__name__}",
        fix="it was cut off or damaged on its way: send it again, or pack the folder again",
    )
