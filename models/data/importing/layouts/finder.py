"""Resolves the ways in which tables, exports and lists refer to image files."""

from collections.abc import Iterable
from urllib.parse import parse_qs, unquote, urlsplit

from models.data.importing.layouts.layout import Candidate

AMBIGUOUS = -1


class Finder:
    """Finds images by their path, the end of their path, their name, or their name without suffix."""

    def __init__(self, images: Iterable[Candidate]) -> None:
        self._paths: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._stems: dict[str, int] = {}
        self._endings: dict[str, int] = {}
        for one in images:
            self._paths[one.name] = one.number
            _note(self._names, one.parts[-1], one.number)
            _note(self._stems, one.parts[-1].rpartition(".")[0] or one.parts[-1], one.number)
            for start in range(1, len(one.parts) - 1):
                _note(self._endings, "/".join(one.parts[start:]), one.number)

    def find(self, written: str, folder: tuple[str, ...] = ()) -> int | None:
        """The number of the image that a table in `folder` refers to by a path, a name, or a name without suffix.

        None for none, or for more than one.
        """
        name = written.strip().replace("\\", "/").removeprefix("./")
        if not name:
            return None
        for start in range(len(folder), -1, -1):  # as the table sees it, and from the folders above it
            if (found := self._paths.get("/".join((*folder[:start], name)))) is not None:
                return found
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts:
            return None
        for start in range(len(parts) - 1):  # a path on the machine where the table was written
            ending = "/".join(parts[start:])
            found = self._paths.get(ending, self._endings.get(ending))
            if found is not None and found != AMBIGUOUS:
                return found
        found = self._names.get(parts[-1], self._stems.get(parts[-1]))
        return None if found == AMBIGUOUS else found

    def find_address(self, address: str) -> int | None:
        """As `find`, for the address of an image in an annotation tool: /data/upload/3/ab-cat.jpg, ?d=cats/1.jpg."""
        parts = urlsplit(address)
        given = parse_qs(parts.query).get("d")
        for written in (given[0] if given else "", unquote(parts.path), address):
            if written and (found := self.find(written)) is not None:
                return found
        # Label Studio puts eight hexadecimal digits and a dash before the name of an uploaded file
        name = unquote(parts.path).rpartition("/")[2]
        start, dash, rest = name.partition("-")
        return self.find(rest) if dash and len(start) == 8 else None


def _note(index: dict[str, int], key: str, number: int) -> None:
    index[key] = AMBIGUOUS if key in index else number
