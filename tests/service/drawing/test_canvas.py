"""Pixels written as a PNG file are decoded unchanged."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from service.drawing.canvas import png

PICTURES = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(np.uint8, (*size, 3)))


@settings(deadline=None)
@given(PICTURES)
def test_pixels_come_back_as_they_were(pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(png(pixels, 160)), formats=["PNG"]) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), pixels)


def test_the_file_is_sound_and_says_how_large_a_pixel_is() -> None:
    data = png(np.zeros((3, 5, 3), np.uint8), 160)
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()  # every checksum
        assert image.size == (5, 3)
        assert np.allclose(image.info["dpi"], (160, 160), atol=0.02)
        assert image.info["Software"] == "Epochal"


def test_part_of_a_larger_picture_can_be_drawn() -> None:
    whole = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
    with Image.open(io.BytesIO(png(whole[:, :, :3], 72))) as image:
        assert np.array_equal(np.asarray(image), whole[:, :, :3])
