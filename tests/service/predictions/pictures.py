"""Picture files made for tests, good and bad."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.preprocessing import Preprocessing

SIZE = 32
COLOUR = Preprocessing(3, SIZE, SIZE, (0.5,) * 3, (0.25,) * 3, tuple("abcdefghij"))
GRAY = Preprocessing(1, SIZE, SIZE, (0.5,), (0.25,), tuple("abcdefghij"), grayscale=True)
GRAY_FOR_THREE = Preprocessing(3, SIZE, SIZE, (0.5,) * 3, (0.25,) * 3, tuple("abcdefghij"), grayscale=True)


def gradient(height: int = SIZE, width: int = SIZE) -> NDArray[np.uint8]:
    """(height, width, 3) in which every pixel and every direction is told apart."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), (3 * x + 5 * y) % 256], axis=2
    ).astype(np.uint8)


def gray_gradient() -> NDArray[np.uint8]:
    """(height, width)."""
    return gradient()[..., 2]


def encode(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """A file of the picture."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand, for what Pillow does not write. `rows` has a filter byte before each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_of(values: NDArray[Any], depth: int, color_type: int, *extra: bytes) -> bytes:
    """A PNG of 8- or 16-bit samples (height, width, channels)."""
    height, width = values.shape[:2]
    samples = values.astype(">u2" if depth == 16 else "u1")
    rows = b"".join(b"\x00" + row.tobytes() for row in samples)
    return png(width, height, depth, color_type, rows, *extra)


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data with an orientation, in either byte order."""
    start = b"II*\x00" if order == "<" else b"MM\x00*"
    body = struct.pack(f"{order}IH", 8, 1) + struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\x00\x00" + start + body + struct.pack(f"{order}I", 0)


STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels, -1),
}
"""How a camera stores an upright picture so that this orientation brings it upright again (TIFF 6.0, Orientation)."""
