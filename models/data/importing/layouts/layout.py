"""Types of a recognised layout: the samples with their classes, splits and groups."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from models.data.importing.names import Split, class_name, is_junk, may_be_image, natural_key
from models.data.importing.source import Entry, Listing, nested_archive, without_archive_suffix


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image."""

    entry: int
    """Its number in the listing."""
    label: str
    split: Split | None = None
    group: str | None = None


@dataclass
class Layout:
    """The recognised meaning of a source's files."""

    name: str
    """A short name for the report, for example "class folders"."""
    samples: list[Sample]
    class_names: tuple[str, ...] | None = None
    """The classes in the order that the files state; None for the natural order of their names."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Images that are left out, by name, with the reason."""
    warnings: list[str] = field(default_factory=list)
    empty_classes: list[str] = field(default_factory=list)
    """Classes that the files name without having images of them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be an image."""

    number: int
    name: str
    """As in the listing."""
    parts: tuple[str, ...]
    """The path's parts, with archives inside of the source called as folders."""


@dataclass(frozen=True)
class Files:
    """A source's files, sorted for the recognisers."""

    entries: Sequence[Entry]
    images: list[Candidate]
    others: list[Candidate]
    """Files that are neither images nor junk: tables, texts."""
    folders: set[str]
    read: Callable[[int], bytes]
    """Reads a small text file. Raises ArchiveError."""

    @classmethod
    def of(cls, listing: Listing, read: Callable[[int], bytes]) -> "Files":
        """Sort the files of a listing by their names."""
        images, others = list[Candidate](), list[Candidate]()
        for number, entry in enumerate(listing.entries):
            parts = tuple(entry.name.split("/"))
            if is_junk(parts) or entry.name in listing.archives:
                continue
            if listing.archives:
                parts = as_folders(parts, listing.archives)
            (images if may_be_image(entry.name) else others).append(Candidate(number, entry.name, parts))
        paths = [as_folders(tuple(folder.split("/")), listing.archives) for folder in listing.folders]
        folders = {"/".join(parts) for parts in paths if not is_junk(parts)}
        return cls(listing.entries, images, others, folders, read)


def as_folders(parts: tuple[str, ...], archives: Collection[str]) -> tuple[str, ...]:
    """A path in which an archive among the parts is called as a folder would be: `train.zip/cat` as `train/cat`."""
    for place, part in enumerate(parts[:-1]):
        if nested_archive(part) and "/".join(parts[: place + 1]) in archives:
            return (*parts[:place], without_archive_suffix(part), *parts[place + 1 :])
    return parts


def ordered(labels: set[str]) -> tuple[str, ...]:
    """Classes in the natural order of their names: class2 before class10."""
    return tuple(sorted(labels, key=natural_key))


def sample(number: int, label: str, split: Split | None = None, group: str | None = None) -> Sample:
    """A sample whose class has its name as it is stored."""
    return Sample(number, class_name(label), split, group)
