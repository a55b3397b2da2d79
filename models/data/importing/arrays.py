"""An array on disk that grows row by row, in any order, without being in memory: a .npy file written by `pwrite`."""

import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.errors import StorageFull
from models.files import FREE_SPACE, storage_errors

CHUNK_BYTES = 16 << 20
SPARE_BYTES = 64 << 20
"""Bytes that must stay free on the disk beside the images."""


@dataclass(frozen=True)
class ImageFile:
    """A .npy file of uint8 images (rows, channels, side, side), whose rows are written one by one."""

    path: Path
    rows: int
    channels: int
    side: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one image."""
        return self.channels * self.side * self.side

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole file."""
        return len(self.header()) + self.rows * self.row_bytes

    def header(self, rows: int | None = None) -> bytes:
        """The .npy header. It has the same length for every number of rows, since NumPy pads it."""
        buffer = io.BytesIO()
        shape = (self.rows if rows is None else rows, self.channels, self.side, self.side)
        np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return buffer.getvalue()

    def create(self) -> None:
        """Create the file at its full size. Raises StorageFull if the disk has too little space."""
        with storage_errors(f"{self.path.name} cannot be written"), self.path.open("wb") as file:
            file.write(self.header())
            file.flush()
            if self.rows and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, self.num_bytes)
            else:
                file.truncate(self.num_bytes)

    def rows_at(self, mode: str = "r+") -> npt.NDArray[np.uint8]:
        """The images, memory-mapped."""
        shape = (self.rows, self.channels, self.side, self.side)
        if not self.rows:
            return np.zeros(shape, dtype=np.uint8)
        return np.memmap(self.path, dtype=np.uint8, mode=mode, offset=len(self.header()), shape=shape)  # type: ignore[call-overload, no-any-return]

    def widened(self, path: Path, written: npt.NDArray[np.bool_]) -> "ImageFile":
        """A copy with three channels at another path: the gray images written so far are repeated in each channel."""
        wide = ImageFile(path, self.rows, 3, self.side)
        wide.create()
        target, own = wide.rows_at(), self.rows_at()
        for row in np.flatnonzero(written):
            target[row] = own[row]
        return wide

    def keep(self, kept: npt.NDArray[np.bool_]) -> "ImageFile":
        """Remove the rows that are not kept; the others move up in order."""
        places = np.flatnonzero(kept)
        if len(places) < self.rows:
            images = self.rows_at()
            step = max(1, CHUNK_BYTES // self.row_bytes)
            first = int(np.argmin(kept))  # rows before the first gap stay where they are
            for start in range(first, len(places), step):
                part = places[start : start + step]
                images[start : start + len(part)] = images[part]
            with self.path.open("r+b") as file:
                file.write(self.header(len(places)))
                file.truncate(len(self.header()) + len(places) * self.row_bytes)
        return ImageFile(self.path, len(places), self.channels, self.side)


def check_free_space(folder: Path, num_bytes: int, what: str) -> None:
    """Raise StorageFull unless this many bytes and a reserve are free on the disk."""
    free = shutil.disk_usage(folder).free
    if num_bytes + SPARE_BYTES > free:
        raise StorageFull(
            f"{what} take {num_bytes / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free on the disk of {folder}",
            fix=f"{FREE_SPACE}, or choose a smaller image_size",
        )
