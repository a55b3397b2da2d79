"""Small pictures and archives for tests of the import."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models.data.importing import ImportOptions, ImportReport, import_archive

Contents = Mapping[str, bytes]


def picture(seed: int = 0, width: int = 12, height: int = 12, *, gray: bool = False) -> Image.Image:
    """Noise, different for each seed."""
    shape = (height, width) if gray else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(seed: int = 0, width: int = 12, height: int = 12, *, gray: bool = False) -> bytes:
    """A PNG file of noise, different for each seed."""
    return encoded(picture(seed, width, height, gray=gray))


def photos(*names: str) -> dict[str, bytes]:
    """A small PNG under each of these names, each different."""
    return {name: png(number) for number, name in enumerate(names)}


def classes(*names: str, per_class: int = 3, above: str = "") -> dict[str, bytes]:
    """So many PNG files in a folder for each class."""
    return photos(*(f"{above}{name}/{number}.png" for name in names for number in range(per_class)))


def make_zip(path: Path, contents: Contents) -> Path:
    """A zip; a name that ends with a slash is a folder."""
    with zipfile.ZipFile(path, "w") as file:
        for name, data in contents.items():
            file.writestr(name, data)
    return path


def make_tar(path: Path, contents: Contents, mode: str = "w") -> Path:
    """A tar; a name that ends with a slash is a folder."""
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            file.addfile(member, io.BytesIO(data))
    return path


def make_folder(path: Path, contents: Contents) -> Path:
    """The files in a folder."""
    for name, data in contents.items():
        place = path / name
        if name.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    return path


def run(source: Path, destination: Path, **options: Any) -> ImportReport:
    """Import with one decoder, without telling anybody."""
    settings = {"name": "photos", "threads": 1, **options}
    return import_archive(source, destination, ImportOptions(**settings), lambda what, done, total: None)


def counts(report: ImportReport) -> dict[str, tuple[int, int, int]]:
    """Images of each class in training, validation and test."""
    return {one.name: (one.train, one.validation, one.test) for one in report.classes}
