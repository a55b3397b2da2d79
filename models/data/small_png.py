"""Decodes small PNG files of the plainest kind (8 bits, gray or RGB) without Pillow's plugin for PNG.

Of a 28 x 28 picture's 80 us in Pillow 60 are the plugin's, which reads a file chunk by chunk. Here the chunks are found
at once and go to the same decoder, which takes many files of one size as one picture. Anything else is left to the
plugin.
"""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.data.image_headers import Refused, identify

MOST_PIXELS = 256 * 256
"""Pixels of a picture up to which the plugin's time matters."""
MOST_PIXELS_TOGETHER = 64 * 64
"""Pixels of a picture up to which the time of a call matters, which is saved by decoding many in one."""
MODES = {b"\x08\x00\x00\x00\x00": "L", b"\x08\x02\x00\x00\x00": "RGB"}
"""The mode by depth, colour type, compression, filter and interlacing."""
FIRST_CHUNK = 33
"""Where the chunk after the header begins."""


def open_small_png(data: bytes, width: int, height: int) -> Image.Image | None:
    """Decode a PNG of this size whose other chunks than the picture's were left out; None for one that is not plain.

    None too for a damaged one, whose fault the plugin then names.
    """
    mode = MODES.get(data[24:29])
    if mode is None or width * height > MOST_PIXELS or (packed := _packed_rows(data)) is None:
        return None
    try:
        return Image.frombytes(mode, (width, height), packed, "zip", mode, 0)
    except ValueError:
        return None


def decode_together(files: Sequence[bytes], side: int) -> dict[int, npt.NDArray[np.uint8]]:
    """Decode those of these files that are small plain PNGs of side x side pixels and upright, by their places.

    The pixels are (side, side) or (side, side, 3). Files of any other kind, and damaged ones, are not among them.

    A row of a PNG refers to the row above it, and the first one to a row of zeros. So the rows of all pictures, each
    behind a row of zeros, are one tall picture, and decoding that takes one call.
    """
    if side * side > MOST_PIXELS_TOGETHER:
        return {}
    found: dict[int, npt.NDArray[np.uint8]] = {}
    size = struct.pack(">II", side, side)
    for kind, mode in MODES.items():
        rows: dict[int, bytes] = {}
        num_bytes = (1 + side * len(mode)) * side
        for place, data in enumerate(files):
            if data[16:29] == size + kind and (unpacked := _rows_of(data, num_bytes)) is not None:
                rows[place] = unpacked
        if rows:
            found |= _decode_rows(rows, mode, side)
    return found


def _rows_of(data: bytes, num_bytes: int) -> bytes | None:
    """The rows of an upright PNG, each with its filter before it; None if they have another number of bytes."""
    try:
        header = identify(data)
    except Refused:
        return None
    if header.file_format != "PNG" or header.orientation != 1 or (packed := _packed_rows(header.data)) is None:
        return None
    unpacking = zlib.decompressobj()
    try:
        rows = unpacking.decompress(packed, num_bytes + 1)
    except zlib.error:
        return None
    return rows if len(rows) == num_bytes and unpacking.eof else None


def _decode_rows(rows: dict[int, bytes], mode: str, side: int) -> dict[int, npt.NDArray[np.uint8]]:
    row_bytes = side * len(mode)
    zeros = bytes(1 + row_bytes)
    tall = zlib.compress(b"".join(part for one in rows.values() for part in (zeros, one)), 0)  # 0: stored as it is
    try:
        picture = Image.frombytes(mode, (side, len(rows) * (side + 1)), tall, "zip", mode, 0)
    except ValueError:  # one of them has a filter that there is not
        return {}
    shape = (len(rows), side + 1, side) if mode == "L" else (len(rows), side + 1, side, 3)
    pixels = np.frombuffer(picture.tobytes(), dtype=np.uint8).reshape(shape)[:, 1:]
    return dict(zip(rows, pixels, strict=True))


def _packed_rows(data: bytes) -> bytes | None:
    """The compressed rows of a PNG that has no chunks but header, picture and end; None for a damaged one."""
    if not _is_whole(data, 8):
        return None
    pieces, place = [], FIRST_CHUNK
    while data[place + 4 : place + 8] == b"IDAT" and _is_whole(data, place):
        end = place + 8 + int.from_bytes(data[place : place + 4])
        pieces.append(data[place + 8 : end])
        place = end + 4
    return b"".join(pieces) if data[place + 4 : place + 8] == b"IEND" else None


def _is_whole(data: bytes, place: int) -> bool:
    """Whether a chunk is there to its end, with the right checksum."""
    end = place + 8 + int.from_bytes(data[place : place + 4])
    return data[end : end + 4] == zlib.crc32(data[place + 4 : end]).to_bytes(4)
