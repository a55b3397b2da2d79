"""Shared by all figures: colours, the lock on matplotlib, and deterministic PNG encoding.

matplotlib draws, without pyplot, which keeps every figure of the process alive. Its settings and its font cache are
global, so one figure is drawn at a time; a draw takes about as long as the lock would be waited for anyway, because it
holds the interpreter throughout.
"""

import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from models.errors import InvalidRequest
from service.drawing.text import FONT

Format = Literal["png", "svg"]
FORMATS: tuple[Format, ...] = ("png", "svg")

# Okabe and Ito (2008), told apart with every kind of colour blindness; their yellow is left out as too light on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#3A3A3A")
TRAIN_COLOR, VALIDATION_COLOR = PALETTE[0], PALETTE[1]
INK, MUTED, FAINT = "#1F1F1F", "#6A6A6A", "#E3E3E3"
WARNING = "#B00020"
DPI = 160
STRIP_ROWS = 64

STYLE: Any = {"font.family": [FONT], "svg.fonttype": "path", "svg.hashsalt": "epochal"}

matplotlib.rcdefaults()  # not those of a matplotlibrc in the working directory or the user's configuration
matplotlib.rcParams.update(STYLE)  # once: a context for each figure took a twentieth of its time

_DRAWING = threading.Lock()


@contextmanager
def drawing() -> Iterator[None]:
    """Context manager around all use of matplotlib: one figure at a time."""
    with _DRAWING:
        yield


def png(pixels: NDArray[np.uint8], dpi: int) -> bytes:
    """Encode pixels of shape (height, width, 3) as PNG (https://www.w3.org/TR/png-3/), rows unfiltered.

    Lines on white compress as well without a filter as with one, and choosing filters row by row, which Pillow cannot
    be kept from, takes as long as all the rest.
    """
    height, width, _ = pixels.shape
    per_metre = round(dpi / 0.0254)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),  # 8 bits of red, green and blue
        (b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
        (b"tEXt", b"Software\0Epochal"),
        (b"IDAT", _compressed(pixels)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _compressed(pixels: NDArray[np.uint8]) -> bytes:
    """Compress rows in strips, each after its filter byte 0 (none). Strips reuse memory: fresh pages cost time.

    zlib's fastest level took a third of a picture's time for the same size; ISA-L takes a tenth of that.
    """
    height, width, _ = pixels.shape
    compressor = isal_zlib.compressobj(1)
    rows = np.zeros((min(height, STRIP_ROWS), 1 + 3 * width), np.uint8)
    parts = []
    for top in range(0, height, STRIP_ROWS):
        strip = pixels[top : top + STRIP_ROWS]
        filled = rows[: len(strip)]
        colours = filled[:, 1:].reshape(strip.shape)  # splitting an axis is a view, so what follows writes into rows
        for channel in range(3):  # seven times as fast as all three at once
            colours[:, :, channel] = strip[:, :, channel]
        parts.append(compressor.compress(filled.data))
    return b"".join((*parts, compressor.flush()))


def check_format(file_format: str) -> None:
    """Check the picture format. Raises InvalidRequest."""
    if file_format not in FORMATS:
        raise InvalidRequest(
            f"format is '{file_format[:20]}'; a figure is drawn as png or svg", fix="ask for png or svg"
        )
