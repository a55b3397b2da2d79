"""Archives inside an archive or a folder, read as folders: shards of WebDataset, `train.zip` beside `test.zip`.

Each is copied to the disk, since it is looked through and read separately; its own files are not unpacked. Archives
inside of those are refused.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from models.data.importing import source as limits
from models.data.importing.arrays import check_free_space
from models.data.importing.names import is_junk, shown
from models.data.importing.source import Entry, Listing, Source, check_ratio, nested_archive, too_many
from models.errors import ArchiveError
from models.files import make_folder, remove_tree, storage_errors
from models.text import plural

KINDS = ("zip", "tar", "tm")
"""Archives that are read inside of others, as `nested_archive` calls them."""
MOST_ARCHIVES = 500
"""An open zip holds a file descriptor, and a process may have 1,024."""

Open = Callable[[Path, str], AbstractContextManager[Source]]
"""Opens an archive at a path, which messages call by a name."""


class NestedSource:
    """A source with the files of the archives in it: `train.zip/cat/1.png`."""

    class_names: tuple[str, ...] | None = None

    def __init__(self, outer: Source, inner: Sequence[tuple[str, Source]], packed: int) -> None:
        """`inner` are the names of archives among the entries of `outer`, and what they hold.

        `packed` is how many bytes everything has that was sent.
        """
        self.kind = outer.kind
        self._sources = [outer, *(source for _, source in inner)]
        self._firsts = [0]
        """The number of each source's first entry, and behind them the number of all."""
        self.listing = Listing(archives=frozenset(name for name, _ in inner))
        unpacked = 0
        for prefix, source in (("", outer), *((f"{name}/", source) for name, source in inner)):
            if len(self.listing.entries) + len(source.listing.entries) > limits.MAX_ENTRIES:
                raise too_many(self.kind)
            for entry in source.listing.entries:
                unpacked += entry.size if prefix else 0
                check_ratio(unpacked, packed, self.kind, prefix + entry.name)
                self.listing.entries.append(Entry(prefix + entry.name, entry.size))
            of = f"'{shown(prefix[:-1])}': " if prefix else ""
            self.listing.warnings += [of + one for one in source.listing.warnings]
            self.listing.folders |= {prefix + folder for folder in source.listing.folders}
            self._firsts.append(len(self.listing.entries))

    def contents(self, wanted: Collection[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
        """See Source."""
        numbers = sorted(wanted)
        for source, first, end in zip(self._sources, self._firsts, self._firsts[1:], strict=False):
            own = {number - first for number in numbers[bisect_left(numbers, first) : bisect_left(numbers, end)]}
            if not own:
                continue
            for number, data in source.contents(own):
                whole = self.listing.entries[first + number].name
                if isinstance(data, ArchiveError):
                    short = shown(source.listing.entries[number].name)
                    detail = data.detail.replace(f"'{short}'", f"'{shown(whole)}'", 1)
                    data = ArchiveError(detail, fix=data.fix, file=shown(whole))
                yield first + number, data

    def text(self, number: int) -> bytes:
        """See Source."""
        place = bisect_right(self._firsts, number) - 1
        return self._sources[place].text(number - self._firsts[place])

    def copy(self, wanted: Mapping[int, Path]) -> None:
        """See Source."""
        for source, first, end in zip(self._sources, self._firsts, self._firsts[1:], strict=False):
            own = {number - first: path for number, path in wanted.items() if first <= number < end}
            if own:
                source.copy(own)


@contextmanager
def archives_inside(outer: Source, packed: int, work: Path, open_archive: Open) -> Iterator[Source]:
    """The source with the files of the archives inside it; the source itself where it has none.

    They are copied into the folder `work` first; `packed` is how many bytes were sent. Raises ArchiveError and
    StorageFull.
    """
    found = [
        (number, entry)
        for number, entry in enumerate(outer.listing.entries)
        if nested_archive(entry.name) in KINDS and not is_junk(tuple(entry.name.split("/")))
    ]
    if not found:
        yield outer
        return
    if len(found) > MOST_ARCHIVES:
        raise ArchiveError(
            f"the {outer.kind} holds {plural(len(found), 'archive')}, and at most {MOST_ARCHIVES} are read",
            fix="unpack them, or join their files in fewer archives",
            file=shown(found[MOST_ARCHIVES][1].name),
        )
    remove_tree(work)
    make_folder(work)
    check_free_space(
        work, sum(entry.size for _, entry in found), f"{plural(len(found), 'archive')} in the {outer.kind}"
    )
    copies = {number: work / str(number) for number, _ in found}
    with storage_errors("the archives inside cannot be copied"):
        outer.copy(copies)
    with ExitStack() as stack:
        inner = [
            (entry.name, stack.enter_context(_opened(open_archive, copies[number], entry.name)))
            for number, entry in found
        ]
        yield NestedSource(outer, inner, packed)


@contextmanager
def _opened(open_archive: Open, path: Path, name: str) -> Iterator[Source]:
    """An inner archive; errors say which it is."""
    stack = ExitStack()
    try:
        source = stack.enter_context(open_archive(path, name))
    except ArchiveError as error:
        detail = error.detail if shown(name) in error.detail else f"'{shown(name)}': {error.detail}"
        inside = str(error.extra.get("file", ""))
        whole = f"{name}/{inside}" if inside and not inside.startswith(shown(name)) else name
        raise ArchiveError(detail, fix=error.fix, file=shown(whole)) from error
    with stack:
        yield source
