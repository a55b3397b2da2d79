"""IDX files, the format of MNIST and datasets like it: a header that gives the shape, then the values."""

import gzip
import struct
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from models.data.sources import Arrays, SourceFailed

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
"""The order in which these datasets list their four files."""


def read_idx(file: Path | IO[bytes]) -> npt.NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes: two zeros, a type code, the number of dimensions, their sizes."""
    try:
        with gzip.open(file) as content:
            zeros, kind, rank = struct.unpack(">HBB", content.read(4))
            if zeros != 0 or kind != 8:
                raise SourceFailed(f"{file} is not an IDX file of unsigned bytes")
            shape: tuple[int, ...] = struct.unpack(f">{rank}I", content.read(4 * rank))
            return np.frombuffer(content.read(), dtype=np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise SourceFailed(f"{file} could not be read: {error}") from error


def put_values(arrays: Arrays, field: str, name: str, values: npt.NDArray[np.uint8]) -> None:
    """Write what a file holds into one of the four arrays. Raises SourceFailed where the counts differ."""
    target = getattr(arrays, field)
    if values.size != target.size:
        raise SourceFailed(f"{name} holds {values.size} values, not {target.size}")
    target[:] = values.reshape(target.shape)
