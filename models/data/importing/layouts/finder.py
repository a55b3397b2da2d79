"""Resolves the ways in which tables, exports and lists refer to image files."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from typing import TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from models.data.importing.layouts.layout import Candidate
from models.data.importing.names import IMAGE_SUFFIXES, suffix_of

AMBIGUOUS = -1
MOST_DIGITS = 20
Key = TypeVar("Key", str, int)
UPLOADED = re.compile(r"(?:^|/)[0-9a-f]{8}-([^/]+)$")
"""Label Studio puts eight hexadecimal digits and a dash before the name of an uploaded file."""


class Finder:
    """Images by their path, by a path's end, by their name, and by their name without its suffix.

    As they are written first; if that finds none, whatever the capitals and the way in which accents are composed.
    """

    def __init__(self, images: Iterable[Candidate], *, before: "Finder | None" = None) -> None:
        """`before` is asked first; these images are where a name alone is meant that it has several times."""
        self._images = list(images)
        self._before = before

    @cached_property
    def _exact(self) -> "_Index":
        return _Index((one.parts, one.number) for one in self._images)

    @cached_property
    def _folded(self) -> "_Index":
        return _Index((tuple(map(_fold, one.parts)), one.number) for one in self._images)

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """Images by their names, where these are numbers."""
        numbers: dict[int, int] = {}
        for one in self._images:
            stem = one.parts[-1].rpartition(".")[0] or one.parts[-1]
            if stem.isdecimal() and len(stem) <= MOST_DIGITS:
                _note(numbers, int(stem), one.number)
        return numbers

    def find(self, written: str, folder: tuple[str, ...] = ()) -> int | None:
        """The number of the image that a table in `folder` means by a path, a name, or a name without suffix.

        None for none, or for more than one.
        """
        if self._before is not None:
            found = self._before.find(written, folder)
            if found is not None or "/" in written or "\\" in written:
                return found
        name = written.strip().replace("\\", "/").removeprefix("./")
        if "://" in name:
            name = unquote(urlsplit(name).path)
        if not name:
            return None
        found = self._exact.find(name, folder)
        if found is None:
            found = self._folded.find(_fold(name), tuple(map(_fold, folder)))
        if (
            found is None and name.isdecimal() and len(name) <= MOST_DIGITS
        ):  # a spreadsheet has taken the zeros before a number
            found = self._numbers.get(int(name))
            found = None if found == AMBIGUOUS else found
        if found is None and (uploaded := UPLOADED.search(name)) is not None:
            return self.find(uploaded[1])
        return found

    def find_address(self, address: str) -> int | None:
        """As `find`, for the address of an image in an annotation tool: /data/upload/3/ab-cat.jpg, ?d=cats/1.jpg."""
        parts = urlsplit(address)
        given = parse_qs(parts.query).get("d")
        for written in (given[0] if given else "", unquote(parts.path), address):
            if written and (found := self.find(written)) is not None:
                return found
        return None


class _Index:
    def __init__(self, images: Iterable[tuple[tuple[str, ...], int]]) -> None:
        self._paths: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._stems: dict[str, int] = {}
        self._endings: dict[str, int] = {}
        for parts, number in images:
            _note(self._paths, "/".join(parts), number)
            _note(self._names, parts[-1], number)
            _note(self._stems, parts[-1].rpartition(".")[0] or parts[-1], number)
            for start in range(1, len(parts) - 1):
                _note(self._endings, "/".join(parts[start:]), number)

    def find(self, name: str, folder: tuple[str, ...]) -> int | None:
        for start in range(len(folder), -1, -1):  # as the table sees it, and from the folders above it
            if (found := self._paths.get("/".join((*folder[:start], name)))) is not None:
                return None if found == AMBIGUOUS else found
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            return None
        for start in range(len(parts) - 1):  # a path on the machine where the table was written
            ending = "/".join(parts[start:])
            found = self._paths.get(ending, self._endings.get(ending))
            if found is not None and found != AMBIGUOUS:
                return found
        found = self._names.get(parts[-1], self._stems.get(parts[-1]))
        if found is None and suffix_of(parts[-1]) in IMAGE_SUFFIXES:  # the pictures were saved as another format since
            found = self._stems.get(parts[-1].rpartition(".")[0])
        return None if found == AMBIGUOUS else found


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _note(index: dict[Key, int], key: Key, number: int) -> None:
    index[key] = AMBIGUOUS if key in index else number
