"""The interface of a source of images (folder, zip, tar, parquet): a list of entries and a stream of their contents.

Nothing is unpacked to disk: names inside an archive are never paths on this machine. An archive's directory is checked
as a whole before any content is read.
"""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from models.data.importing.names import Split, refusal, shown, suffix_of
from models.errors import ArchiveError
from models.text import plural

MAX_ENTRIES = 500_000
"""The most files of an archive; each takes half a kilobyte of memory."""
MAX_IMAGE_BYTES = 256 << 20
MAX_TEXT_BYTES = 64 << 20
"""The most bytes of one table or JSON file."""
MAX_TEXTS_BYTES = 512 << 20
"""The most bytes of all tables and JSON files together."""
TEXT_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".cls", ".txt"}
MAX_RATIO = 200
"""The largest ratio of unpacked to packed size: photos hardly shrink, drawings of few colours by a factor of 100."""
NESTED = re.compile(r"[^/.]\.(zip|rar|7z|tm|tar(?:\.(?:gz|bz2|xz))?|tgz|tbz2|txz)[. ]*$", re.IGNORECASE)
TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
FREE_RATIO_BYTES = 1 << 30
"""Up to this unpacked size the ratio is not checked."""


class Entry(NamedTuple):
    """One file, before it is read. Its index in `Source.entries` is its number."""

    name: str
    """Path inside the archive, with slashes; unique."""
    size: int
    label: str | None = None
    """The class, if the source has it (parquet)."""
    split: Split | None = None
    group: str | None = None


@dataclass
class Listing:
    """The entries of a source, in storage order."""

    entries: list[Entry] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    """Paths of folders that the archive names, empty ones among them."""
    archives: frozenset[str] = frozenset()
    """Names of the entries that are archives, whose own files are listed as if in a folder: `train.zip/1.png`."""
    warnings: list[str] = field(default_factory=list)
    """What the report has to say of the listing: names whose encoding was guessed."""


class Source(Protocol):
    """An open archive, folder or parquet file."""

    kind: str
    """In messages: zip, tar, folder, parquet file."""
    listing: Listing
    class_names: tuple[str, ...] | None
    """The classes in order, if the source has them."""

    def contents(self, wanted: Collection[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
        """Yield the contents of the entries with these numbers, in storage order.

        For an entry that cannot be read, the error is yielded in place of its content.
        """

    def text(self, number: int) -> bytes:
        """The content of a small file of text: a table, JSON, a label. Raises ArchiveError."""

    def copy(self, wanted: Mapping[int, Path]) -> None:
        """Copy entries of any size, by their numbers, to files of this machine. Raises ArchiveError."""


class Names:
    """Checks that an archive's names are unique and not too many, while they are listed."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._seen: set[str] = set()

    def add(self, name: str, index: int) -> None:
        """Raises ArchiveError for a name that was there, and past MAX_ENTRIES."""
        if name in self._seen:
            raise refusal(name, index, self._kind, "occurs twice")
        if len(self._seen) == MAX_ENTRIES:
            raise too_many(self._kind)
        self._seen.add(name)


def too_many(kind: str) -> ArchiveError:
    """The error for an archive with more than MAX_ENTRIES files."""
    return ArchiveError(
        f"the {kind} holds more than {plural(MAX_ENTRIES, 'file')}, which is the most that is read",
        fix="leave out what is not an image of the dataset, or import a part of it",
    )


def copy_file(source: IO[bytes], path: Path, name: str, size: int) -> None:
    """Copy an entry of a stated size to `path`. Raises ArchiveError if its size differs."""
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
        if target.tell() != size:
            raise ArchiveError(f"'{shown(name)}' does not have the size that is stated", file=shown(name))


def check_ratio(unpacked: int, packed: int, kind: str, name: str) -> None:
    """Raise ArchiveError if an archive unpacks to more than images would (a zip bomb)."""
    if unpacked > max(FREE_RATIO_BYTES, MAX_RATIO * packed):
        raise ArchiveError(
            f"the {kind} of {packed:,} bytes unpacks to more than {unpacked:,} ({MAX_RATIO} times as much, reached at "
            f"'{shown(name)}'), far more than images do",
            fix="pack the images as PNG or JPEG files",
            file=shown(name),
        )


def is_text(name: str, size: int) -> bool:
    """Whether a file may be a table or a label; these are read while an archive without random access is listed."""
    return suffix_of(name) in TEXT_SUFFIXES and size <= MAX_TEXT_BYTES


def nested_archive(name: str) -> str | None:
    """The kind of archive that a file's name says, None for anything else."""
    found = NESTED.search(name)
    if found is None:
        return None
    kind = found[1].casefold()
    return kind if kind in ("zip", "rar", "7z", "tm") else "tar"


def without_archive_suffix(name: str) -> str:
    """`train.tar.gz` as `train`: what an archive inside of another is called as a folder."""
    ending = next((end for end in TAR_SUFFIXES if name.casefold().endswith(end)), suffix_of(name))
    return name[: len(name) - len(ending)] or name
