"""The list of a dataset's images: which file each came from. `files.jsonl`, a line an image, in the order of ids."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

FILES = "files.jsonl"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Where one image came from."""

    id: int
    """Its row: training images from 0 on, those of the test split behind them."""
    name: str
    """Path inside the archive."""
    split: str
    """train or test: which arrays it is in."""
    given: str | None
    """The split that the files themselves gave it: train, validation or test; None where they gave none."""
    group: str | None
    width: int
    """Of the picture in its file, in pixels, upright."""
    height: int


NAMES = tuple(field.name for field in fields(ImageRecord))


def write_files(path: Path, records: Iterable[ImageRecord]) -> None:
    """Write the list."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # dumps would make one for each line
    with path.open("w", encoding="utf-8") as file:
        file.writelines(encode({name: getattr(record, name) for name in NAMES}) + "\n" for record in records)


def read_files(folder: Path) -> Iterator[ImageRecord]:
    """The list of an imported dataset's images; nothing where it has none."""
    path = folder / FILES
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield ImageRecord(**json.loads(line))
