"""The list of a dataset's images: which file each came from. `files.jsonl`, a line an image, in the order of ids."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring
from pathlib import Path

FILES = "files.jsonl"


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The origin of one image: its row, file and split."""

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


def write_files(path: Path, records: Iterable[ImageRecord]) -> None:
    """Write the list."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(map(_line, records))


def _line(one: ImageRecord) -> str:
    """A record as JSON, which takes JSON's own encoder for objects five times as long."""
    given, group = ("null" if text is None else encode_basestring(text) for text in (one.given, one.group))
    return (
        f'{{"id":{one.id},"name":{encode_basestring(one.name)},"split":{encode_basestring(one.split)},"given":{given},'
        f'"group":{group},"width":{one.width},"height":{one.height}}}\n'
    )


def read_files(folder: Path) -> Iterator[ImageRecord]:
    """The list of an imported dataset's images; nothing where it has none."""
    path = folder / FILES
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield ImageRecord(**json.loads(line))
