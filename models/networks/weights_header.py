"""Reads the description in a weights file's header, without its tensors and without torch."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from models.errors import CorruptFile
from models.plain import JsonObject

LONGEST_HEADER = 2**26


@dataclass(frozen=True)
class WeightsHeader:
    """The shape of each tensor, the classes, the network's spec."""

    shapes: dict[str, tuple[int, ...]]
    class_names: tuple[str, ...]
    model: JsonObject


def read_header(path: Path) -> WeightsHeader:
    """Read the header of a weights file (safetensors: its length as 8 bytes, then JSON). Raises CorruptFile."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, LONGEST_HEADER)))
        about = json.loads(header.pop("__metadata__")["epochal"])
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        return WeightsHeader(shapes, tuple(about["preprocessing"]["class_names"]), about["model"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise CorruptFile(f"{path.name} is not a weights file: {error}") from error
