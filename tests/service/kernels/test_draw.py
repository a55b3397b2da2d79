"""Kernels are drawn with every weight at its position, in its colour, without resampling."""

import base64
import io
import json
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.errors import InvalidRequest
from service.kernels import tiles
from service.kernels.draw import MAX_JSON_VALUES, kernel_grid_json, render_kernels

RNG = np.random.default_rng(0)


def weight(*shape: int) -> np.ndarray:
    """A convolution's weight with random values."""
    return RNG.normal(size=shape).astype(np.float32)


def pixels_of(png: bytes) -> np.ndarray:
    """The PNG as (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGB"))


def contains(picture: np.ndarray, part: np.ndarray) -> bool:
    """Whether the part stands somewhere in the picture, pixel for pixel."""
    height, width = part.shape[:2]
    inner = picture[: len(picture) - height + 1, : picture.shape[1] - width + 1]
    corners = np.argwhere((inner == part[0, 0]).all(axis=2))
    return any((picture[y : y + height, x : x + width] == part).all() for y, x in corners)


@pytest.mark.parametrize(
    "shape", [(32, 3, 3, 3), (6, 1, 5, 5), (20, 10, 5, 5), (16, 64, 1, 1), (1, 3, 7, 7), (2, 3, 1, 5)]
)
@pytest.mark.parametrize("scaling", ["layer", "kernel"])
def test_the_png_holds_the_tiles_unblurred(shape: tuple[int, ...], scaling: str) -> None:
    kernels = weight(*shape)
    picture = pixels_of(render_kernels(kernels, title="#1 baseline", scaling=scaling, scale=6))
    grid = tiles.lay_out(kernels.astype(np.float64), scaling)
    gap = 1 if shape[2] * shape[3] == 1 else 2
    assert contains(picture, tiles.mosaic(grid, 6, gap))


def test_the_lightest_tile_is_told_from_the_white_sheet() -> None:
    picture = pixels_of(render_kernels(np.array([0.0, 1.0]).reshape(2, 1, 1, 1), title="#1 baseline", scale=4))
    white = np.full((4, 4, 3), 255, np.uint8)
    framed = np.pad(white, ((1, 1), (1, 1), (0, 0)), constant_values=tiles.FRAME[0])
    assert contains(picture, framed)


def test_the_svg_holds_the_same_picture_marked_as_not_to_be_smoothed() -> None:
    kernels = weight(8, 3, 3, 3)
    svg = render_kernels(kernels, title="#1 baseline", format="svg", scale=5).decode()
    [encoded] = re.findall(r"data:image/png;base64,([^\"]+)\"", svg)
    inside = pixels_of(base64.b64decode(re.sub(r"\s", "", encoded)))
    expected = tiles.mosaic(tiles.lay_out(kernels.astype(np.float64), "layer"), 5, 2)
    assert (inside == expected).all() or (inside[::-1] == expected).all()
    assert "image-rendering:crisp-edges;image-rendering:pixelated" in svg


def test_three_channels_become_red_green_and_blue() -> None:
    kernels = np.zeros((2, 3, 1, 1), dtype=np.float32)
    kernels[0, 0], kernels[1, 2] = 1.0, 0.5
    images = tiles.lay_out(kernels.astype(np.float64), "layer").images
    assert images[0, 0, 0].tolist() == [255, 0, 0]
    assert images[1, 0, 0].tolist() == [0, 0, 128]


def scaled(kernels: np.ndarray, scaling: str) -> np.ndarray:
    return tiles.scale(kernels, *tiles.look_through(kernels).limits(scaling))


def test_scaling_over_the_layer_and_by_kernel() -> None:
    kernels = np.array([[[[0.0, 1.0]]], [[[2.0, 4.0]]]])
    assert scaled(kernels, "layer").ravel().tolist() == [0, 0.25, 0.5, 1]
    assert scaled(kernels, "kernel").ravel().tolist() == [0, 1, 0, 1]


def test_a_kernel_is_all_of_an_output_channel() -> None:
    kernels = np.array([[[[0.0]], [[1.0]], [[4.0]]]])
    assert scaled(kernels, "kernel").ravel().tolist() == [0, 0.25, 1]


def test_constant_kernels_are_mid_grey_and_counted() -> None:
    kernels = weight(4, 3, 3, 3).astype(np.float64)
    kernels[2] = 0.25
    grid = tiles.lay_out(kernels, "kernel")
    assert grid.num_constant == 1
    assert (grid.images[2] == 128).all()
    assert (tiles.lay_out(np.zeros((2, 3, 3, 3)), "layer").images == 128).all()
    render_kernels(np.zeros((2, 3, 3, 3), dtype=np.float32), title="dead")


def test_weights_that_are_not_finite_stand_out_and_do_not_spoil_the_others() -> None:
    kernels = weight(4, 1, 3, 3).astype(np.float64)
    healthy = tiles.lay_out(kernels, "layer").images[1:]
    kernels[0, 0, 1, 1] = np.nan
    kernels[0, 0, 0, 0] = np.inf
    grid = tiles.lay_out(kernels, "kernel")
    assert grid.num_not_finite == 2
    assert tuple(grid.images[0, 1, 1]) == tuple(grid.images[0, 0, 0]) == tiles.NOT_FINITE
    assert grid.images[1:].shape == healthy.shape
    render_kernels(np.full((2, 3, 3, 3), np.nan, dtype=np.float32), title="diverged")


def test_huge_layers_are_cut_and_say_so() -> None:
    svg = render_kernels(weight(256, 128, 3, 3), title="#1", format="svg").decode()
    assert "the first 64 of 256 output channels and the first 64 of 128 input channels" in svg
    grid = tiles.lay_out(np.zeros((2000, 1, 3, 3)), "layer")
    assert len(grid.images) == tiles.MAX_KERNELS


@settings(max_examples=30)
@given(st.integers(1, 1024))
def test_a_grid_has_room_for_every_kernel_and_no_empty_row(count: int) -> None:
    grid = tiles.lay_out(np.zeros((count, 1, 1, 1)), "layer")
    assert (grid.rows - 1) * grid.columns < count <= grid.rows * grid.columns


def test_what_has_no_kernels_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"shape \(10, 84\) has no kernels"):
        render_kernels(weight(10, 84), title="linear")
    with pytest.raises(InvalidRequest, match="scaling is 'global'"):
        render_kernels(weight(2, 3, 3, 3), title="t", scaling="global")
    with pytest.raises(InvalidRequest, match="scale is 0"):
        render_kernels(weight(2, 3, 3, 3), title="t", scale=0)
    with pytest.raises(InvalidRequest, match="30312 x 30312 pixels"):
        render_kernels(weight(64, 64, 7, 7), title="t", scale=64)


def test_the_json_form_gives_the_very_weights_and_their_limits() -> None:
    kernels = weight(5, 3, 3, 3)
    kernels[1] = 0.1
    document = json.loads(json.dumps(kernel_grid_json(kernels, layer="features.0", epoch=4, scaling="kernel")))
    values = np.array([kernel["values"] for kernel in document["kernels"]], dtype=np.float32)
    assert (values == kernels).all()
    assert document["shape"] == [5, 3, 3, 3]
    assert document["mode"] == "rgb"
    assert [kernel["constant"] for kernel in document["kernels"]] == [False, True, False, False, False]
    assert document["kernels"][0]["minimum"] == kernels[0].min()
    assert (document["minimum"], document["maximum"]) == (kernels.min(), kernels.max())


def test_the_json_form_is_json_whatever_the_weights_are() -> None:
    kernels = weight(2, 3, 3, 3)
    kernels[0, 0, 0, 0] = np.nan
    document = kernel_grid_json(kernels, layer="features.0")
    assert document["kernels"][0]["values"][0][0][0] is None
    json.dumps(document, allow_nan=False)
    huge = kernel_grid_json(np.zeros((600, 512, 3, 3), dtype=np.float32), layer="x")
    assert huge["shown"] == MAX_JSON_VALUES // (512 * 9)


def test_a_layer_is_looked_through_in_parts_however_large_it_is() -> None:
    """21 million weights of one value, which take no memory here and 170 MB as the numbers that are computed with."""
    kernels = np.broadcast_to(np.float32(0.5), (16, 4096, 18, 18))
    tracemalloc.start()
    try:
        grid = tiles.lay_out(kernels, "kernel")
        document = kernel_grid_json(kernels, layer="features.0")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000_000
    assert (grid.num_constant, len(grid.images)) == (16, 16 * 64)
    assert document["shape"] == [16, 4096, 18, 18]


def test_parts_tell_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = weight(30, 3, 5, 5)
    kernels[3, 0, 0, 0] = np.inf
    kernels[7] = np.nan
    kernels[11] = 4.5
    whole = tiles.look_through(kernels)
    monkeypatch.setattr(tiles, "CHUNK_VALUES", 200)
    parts = tiles.look_through(kernels)
    assert (parts.lowest == whole.lowest).all()
    assert (parts.highest == whole.highest).all()
    assert (parts.constant == whole.constant).all()
    assert (parts.minimum, parts.maximum, parts.num_not_finite) == (whole.minimum, whole.maximum, 76)
    assert whole.maximum == 4.5
    assert np.flatnonzero(whole.constant).tolist() == [11]
