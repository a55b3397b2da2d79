"""Small PNG files decoded together: the pixels that each has when it is decoded by itself, or it is left to that."""

import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from models.data.decoding import decode_upright, open_image
from models.data.small_png import decode_together
from tests.models.data.importing.archives import encoded, picture, png

SIDE = 9


def alone(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a file that is decoded by itself."""
    return decode_upright(open_image(data), SIDE, grayscale=None)


def filtered(kinds: list[int], gray: bool) -> bytes:
    """A PNG of random bytes whose rows have these filters."""
    channels = 1 if gray else 3
    random = np.random.default_rng(sum(kinds))
    rows = b"".join(bytes([kind]) + random.bytes(SIDE * channels) for kind in kinds)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0 if gray else 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4) for kind, data in chunks
    )


@pytest.mark.parametrize("gray", [True, False])
def test_every_filter_in_every_row_gives_the_pixels_of_a_file_alone(gray: bool) -> None:
    files = [filtered([(first + row * step) % 5 for row in range(SIDE)], gray) for first in range(5) for step in (0, 1)]
    found = decode_together(files, SIDE)
    assert sorted(found) == list(range(len(files)))
    for place, pixels in found.items():
        assert (pixels == alone(files[place])).all()


def test_files_of_all_kinds_beside_each_other_do_not_disturb_each_other() -> None:
    whole = png(1, SIDE, SIDE)
    turned = picture(2, SIDE, SIDE)
    orientation = turned.getexif()
    orientation[0x0112] = 6
    left_to_others = [
        encoded(turned, exif=orientation),
        whole[:-30],
        whole[:50] + bytes([whole[50] ^ 1]) + whole[51:],
        png(3, SIDE + 1, SIDE),
        encoded(picture(4, SIDE, SIDE), "JPEG"),
        encoded(picture(5, SIDE, SIDE).convert("P")),
        b"",
    ]
    plain = [whole, png(6, SIDE, SIDE, gray=True), png(7, SIDE, SIDE)]
    files = [plain[0], *left_to_others, *plain[1:]]
    found = decode_together(files, SIDE)
    assert sorted(found) == [0, len(files) - 2, len(files) - 1]
    assert all((found[place] == alone(files[place])).all() for place in found)


def test_a_filter_that_does_not_exist_leaves_every_file_to_itself() -> None:
    assert decode_together([png(1, SIDE, SIDE), filtered([0] * 8 + [9], gray=False)], SIDE) == {}


def test_rows_that_unpack_to_more_than_the_picture_has_are_left_alone() -> None:
    assert decode_together([filtered([0] * 400, gray=True), filtered([0] * 3, gray=True)], SIDE) == {}
