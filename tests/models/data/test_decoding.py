"""Uploads: every way of storing a picture gives the same pixels; other files are refused."""

import io
import struct
import tracemalloc
import zlib
from dataclasses import replace
from functools import cache

import anyio
import numpy as np
import pillow_heif
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from models.data.decoding import MAX_PIXELS, decode_image, decode_upright, open_image
from models.data.image_headers import MAX_JPEG_SCANS, identify, read_orientation
from models.data.isolated import decode_isolated
from models.data.small_png import open_small_png
from models.errors import ImageError
from models.preprocessing import Preprocessing
from tests.service.predictions.pictures import (
    COLOUR,
    GRAY,
    GRAY_FOR_THREE,
    SIZE,
    STORED,
    chunk,
    encode,
    exif,
    gradient,
    gray_gradient,
    png,
    png_of,
)

pillow_heif.register_heif_opener()  # to write it

RGB = gradient()
L = gray_gradient()
ALPHA = np.where(np.arange(SIZE)[:, None] + np.arange(SIZE) > SIZE, 255, 0).astype(np.uint8)
RGB_ON_WHITE = np.where(ALPHA[..., None] > 0, RGB, 255).astype(np.uint8)
L_AS_RGB = np.repeat(L[..., None], 3, axis=2)
L_ON_WHITE = np.repeat(np.where(ALPHA > 0, L, 255)[..., None], 3, axis=2).astype(np.uint8)
FEW = (RGB // 64 * 64).astype(np.uint8)  # 64 colours at most: a palette holds them exactly


def decode(data: bytes, preprocessing: Preprocessing = COLOUR, index: int = 0, name: str = "") -> NDArray[np.uint8]:
    """The upload as (channels, height, width)."""
    return decode_image(open_image(data, index=index, name=name), preprocessing)


def decoded(data: bytes) -> NDArray[np.uint8]:
    """The upload as (height, width, channels)."""
    return decode(data).transpose(1, 2, 0)


def palette_png(with_alpha: bool) -> bytes:
    """An exact palette image, with one transparent entry if asked."""
    colours = np.unique(FEW.reshape(-1, 3), axis=0)
    index = np.array([[np.flatnonzero((colours == pixel).all(axis=1))[0] for pixel in row] for row in FEW])
    extra = [chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    if with_alpha:
        extra.append(chunk(b"tRNS", b"\x00"))  # entry 0, black
    return png_of(index, 8, 3, *extra)


FEW_ON_WHITE = np.where((FEW == 0).all(axis=2, keepdims=True), 255, FEW).astype(np.uint8)
ONE_BIT = np.where(L > 127, 255, 0).astype(np.uint8)

EXACT = {
    "png": (encode(Image.fromarray(RGB), "PNG"), RGB),
    "bmp": (encode(Image.fromarray(RGB), "BMP"), RGB),
    "bmp-palette": (encode(Image.fromarray(L), "BMP"), L_AS_RGB),
    "webp-lossless": (encode(Image.fromarray(RGB), "WEBP", lossless=True), RGB),
    "gif": (encode(Image.fromarray(FEW).quantize(64, method=Image.Quantize.MEDIANCUT), "GIF"), FEW),
    "palette": (palette_png(False), FEW),
    "palette-alpha": (palette_png(True), FEW_ON_WHITE),
    "tiff": (encode(Image.fromarray(RGB), "TIFF"), RGB),
    "tiff-lzw": (encode(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "tiff-big": (encode(Image.fromarray(RGB), "TIFF", big_tiff=True), RGB),
    "tiff-l": (encode(Image.fromarray(L), "TIFF"), L_AS_RGB),
    "tiff-16": (encode(Image.fromarray(L.astype(np.uint16) * 257), "TIFF"), L_AS_RGB),
    "tiff-alpha": (encode(Image.fromarray(np.dstack([RGB, ALPHA])), "TIFF"), RGB_ON_WHITE),
    "tiff-palette": (encode(Image.fromarray(FEW).quantize(64, method=Image.Quantize.MEDIANCUT), "TIFF"), FEW),
    "tiff-one-bit": (
        encode(Image.fromarray(ONE_BIT).convert("1"), "TIFF", compression="group4"),
        np.repeat(ONE_BIT[..., None], 3, axis=2),
    ),
    "l": (encode(Image.fromarray(L), "PNG"), L_AS_RGB),
    "la": (encode(Image.merge("LA", [Image.fromarray(L), Image.fromarray(ALPHA)]), "PNG"), L_ON_WHITE),
    "rgba": (encode(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG"), RGB_ON_WHITE),
    "webp-alpha": (encode(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", lossless=True, exact=True), RGB_ON_WHITE),
    "one-bit": (encode(Image.fromarray(ONE_BIT).convert("1"), "PNG"), np.repeat(ONE_BIT[..., None], 3, axis=2)),
    "one-bit-bmp": (encode(Image.fromarray(ONE_BIT).convert("1"), "BMP"), np.repeat(ONE_BIT[..., None], 3, axis=2)),
    "gray-16": (png_of(L[..., None].astype(np.uint32) * 257, 16, 0), L_AS_RGB),
    "rgb-16": (png_of(RGB.astype(np.uint32) * 257, 16, 2), RGB),
    "la-16": (png_of(np.dstack([L, ALPHA]).astype(np.uint32) * 257, 16, 4), L_ON_WHITE),
    "rgba-16": (png_of(np.dstack([RGB, ALPHA]).astype(np.uint32) * 257, 16, 6), RGB_ON_WHITE),
    "gray-transparent": (
        png_of(L[..., None], 8, 0, chunk(b"tRNS", struct.pack(">H", int(L[3, 3])))),
        np.where(L[3, 3] == L_AS_RGB, 255, L_AS_RGB),
    ),
    "gray-16-transparent": (
        png_of(L[..., None].astype(np.uint32) * 257, 16, 0, chunk(b"tRNS", struct.pack(">H", int(L[3, 3]) * 257))),
        np.where(L[3, 3] == L_AS_RGB, 255, L_AS_RGB),
    ),
    "rgb-transparent": (
        png_of(RGB, 8, 2, chunk(b"tRNS", struct.pack(">HHH", *map(int, RGB[5, 5])))),
        np.where((RGB[5, 5] == RGB).all(axis=2, keepdims=True), 255, RGB),
    ),
}


@pytest.mark.parametrize("case", EXACT)
def test_every_lossless_form_gives_the_right_pixels(case: str) -> None:
    data, expected = EXACT[case]
    assert (decoded(data) == expected).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_small_png_is_what_pillows_plugin_reads_or_left_to_it(mode: str) -> None:
    picture = Image.fromarray(RGB).convert(mode)
    whole = identify(encode(picture, "PNG")).data
    read = open_small_png(whole, *picture.size)
    assert read is not None
    assert (np.asarray(read) == np.asarray(picture)).all()
    for place in range(24, whole.index(b"IEND") - 4):
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        assert open_small_png(damaged, *picture.size) is None, place
        assert open_small_png(whole[:place], *picture.size) is None, place


def test_every_bit_of_16_is_rounded_not_clipped() -> None:
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint32).reshape(SIZE, SIZE, 1)
    expected = np.rint(values[..., 0] / 257)
    assert (decoded(png_of(values, 16, 0))[..., 0] == expected).all()


@pytest.mark.parametrize("file_format", ["HEIF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_what_phones_write_is_close_to_the_picture(file_format: str, mode: str) -> None:
    smooth = np.stack([np.linspace(30, 200, SIZE)[None].repeat(SIZE, 0)] * 3, axis=2).astype(np.uint8)
    data = encode(Image.fromarray(smooth).convert(mode), file_format, quality=100)
    assert np.abs(decoded(data).astype(int) - smooth).max() <= 4


def test_a_tiff_gives_its_first_page() -> None:
    pages = [Image.fromarray(255 - RGB), Image.new("L", (9, 9))]
    assert (decoded(encode(Image.fromarray(RGB), "TIFF", save_all=True, append_images=pages)) == RGB).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_are_close_to_the_picture(mode: str) -> None:
    smooth = np.stack([np.linspace(30, 200, SIZE)[None].repeat(SIZE, 0)] * 3, axis=2).astype(np.uint8)
    data = encode(Image.fromarray(smooth).convert(mode), "JPEG", quality=98)
    assert np.abs(decoded(data).astype(int) - smooth).max() <= 4


def test_a_jpeg_gives_what_its_decoder_gives() -> None:
    data = encode(Image.fromarray(RGB), "JPEG", quality=80, comment=b"hello", dpi=(72, 72))
    assert (decoded(data) == np.asarray(Image.open(io.BytesIO(data)))).all()
    progressive = encode(Image.fromarray(RGB), "JPEG", quality=80, progressive=True)
    assert (decoded(progressive) == np.asarray(Image.open(io.BytesIO(progressive)))).all()


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    pixels = np.full((SIZE, SIZE, 4), (10, 100, 200, 128), dtype=np.uint8)
    expected = np.rint((np.array([10, 100, 200]) * 128 + 255 * 127) / 255)
    assert np.abs(decoded(encode(Image.fromarray(pixels), "PNG"))[0, 0] - expected).max() <= 1


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(file_format: str) -> None:
    first, second = Image.fromarray(FEW), Image.fromarray(255 - FEW)
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(first, file_format, save_all=True, append_images=[second], duration=50, **options)
    still = encode(first, file_format, **options)
    assert (decoded(data) == decoded(still)).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_gives_the_same_pixels(file_format: str, orientation: int, order: str) -> None:
    upright = np.kron(gradient(4, 4), np.ones((16, 16, 1))).astype(np.uint8)  # flat squares: JPEG keeps them
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
        "HEIF": {"quality": -1},
    }.get(file_format, {})
    data = encode(stored, file_format, exif=exif(orientation, order), **options)
    difference = np.abs(decoded(data).astype(int) - decoded(encode(Image.fromarray(upright), "PNG")))
    assert difference.max() <= {"JPEG": 2, "AVIF": 3, "HEIF": 3}.get(file_format, 0)


def test_an_orientation_that_makes_no_sense_is_upright() -> None:
    assert [read_orientation(exif(value)[6:]) for value in (0, 9, 65535)] == [1, 1, 1]
    assert read_orientation(b"") == read_orientation(b"II*\x00\xff\xff\xff\xff") == 1
    assert read_orientation(b"MM\x00*\x00\x00\x00\x08\xff\xff") == 1


def test_gray_networks_get_gray_in_as_many_channels_as_they_want() -> None:
    data = encode(Image.fromarray(L), "PNG")
    assert (decode(data, GRAY) == L[None]).all()
    assert (decode(data, GRAY_FOR_THREE) == np.repeat(L[None], 3, axis=0)).all()
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    assert (decode(encode(Image.fromarray(RGB), "PNG"), GRAY)[0] == luma).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (2, 3), (7, 300), (500, 400), (31, 33)])
def test_any_shape_becomes_the_right_size(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), (250, 120, 3), dtype=np.uint8)
    assert (decoded(encode(Image.fromarray(pixels), "PNG")) == (250, 120, 3)).all()


def test_the_centre_square_is_what_counts() -> None:
    wide = np.zeros((40, 100, 3), dtype=np.uint8)
    wide[:, 30:70] = 200
    pixels = decoded(encode(Image.fromarray(wide), "PNG"))
    assert (pixels[:, 1:-1] == 200).all()  # antialiasing looks a pixel beyond the edge, as resizing the whole would
    assert (pixels > 150).all()


def test_a_picture_is_padded_or_stretched_if_the_training_images_were() -> None:
    wide = np.full((20, 80, 3), 200, dtype=np.uint8)
    wide[:, :20] = 100
    data = encode(Image.fromarray(wide), "PNG")
    padded = decode(data, replace(COLOUR, fit="pad"))[0]
    height = SIZE // 4
    top = (SIZE - height) // 2
    assert (padded[:top] == 0).all()
    assert (padded[top + height :] == 0).all()
    assert (padded[top : top + height] >= 100).all()
    assert (padded[top : top + height, 0] == 100).all()
    stretched = decode(data, replace(COLOUR, fit="stretch"))[0]
    assert (stretched[:, 0] == 100).all()
    assert (stretched[:, -1] == 200).all()
    assert (stretched[:, SIZE // 4 + 1 :] == 200).all()


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (2, 3), (900, 400)])
def test_any_shape_can_be_fitted(shape: tuple[int, int], fit: str) -> None:
    pixels = np.full((*shape, 3), (250, 120, 3), dtype=np.uint8)
    found = decode(encode(Image.fromarray(pixels), "PNG"), replace(COLOUR, fit=fit))
    assert found.shape == (3, SIZE, SIZE)
    assert found[0].max() == 250


def test_resizing_is_antialiased_and_leaves_the_right_size_alone() -> None:
    stripes = np.zeros((320, 320, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decoded(encode(Image.fromarray(stripes), "PNG")).astype(int) - 127).max() <= 8


# What is refused


def refusal_of(data: bytes) -> ImageError:
    """The error that this upload meets."""
    with pytest.raises(ImageError) as caught:
        decode(data, COLOUR, index=2, name="cat.png")
    error = caught.value
    assert error.status == 422
    assert error.detail.startswith("image 3, 'cat.png', ")
    assert error.extra == {"image": "cat.png", "index": 2}
    return error


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"\x00", "of no known kind"),
        (bytes(range(256)) * 40, "of no known kind"),
        (b"<!DOCTYPE html><html>hello</html>", "is a web page"),
        (b"  \n<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "is an SVG drawing"),
        (b"<?xml version='1.0'?><svg/>", "is an SVG drawing"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is PostScript"),
        (b"SIMPLE  =                    T" + b" " * 2850, "is a FITS file"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "is JPEG 2000"),
        (b"\xff\x4f\xff\x51\x00\x2f", "is JPEG 2000"),
        (encode(Image.fromarray(RGB), "ICO"), "is an icon file"),
        (b"II*\x00\x08\x00\x00\x00\xff\xff", "is a TIFF of 65,535 entries"),
        (b"MM\x00*\x00\x00\x00\x08\x00\x01" + b"\x01\x1c\x00\x02\x7f\xff\xff\xff\x00\x00\x00\x08", "claim more"),
        (b"II+\x00\x08\x00\x00\x00", "ends within its header"),
        (b"\x00\x00\x00\x14ftypisom\x00\x00\x00\x00mp42", "is a video"),
        (b"\x00\x00\x00\x18ftypavif" + bytes(12) + b"\x00\x00\x00\x08meta", "is a damaged AVIF"),
        (encode(Image.fromarray(RGB), "PPM"), "of no known kind"),
        (b"\x00\x00\x00\x18ftypheic", "is a damaged HEIC"),
        (b"\x89PNG\r\n\x1a\n", "is a damaged PNG"),
        (b"\xff\xd8\xff", "ends within its header"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8X", "ends within its header"),
        (b"GIF89a", "ends within its header"),
        (b"BM" + b"\x00" * 12, "ends within its header"),
    ],
    ids=range(23),
)
def test_what_is_no_picture_of_the_known_kinds_is_named_and_refused(data: bytes, what: str) -> None:
    assert what in refusal_of(data).detail


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_refused(file_format: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), file_format)
    refusal_of(data[: int(kept * len(data))])


@cache
def smooth(width: int, height: int) -> Image.Image:
    """A picture of waves, a few pixels long and more, as photos have them."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / a) + np.sin(y / b) + np.sin((x + y) / c) for a, b, c in ((9, 31, 57), (23, 7, 90), (41, 80, 5))]
    return Image.fromarray(np.clip(127 + 40 * np.stack(waves, axis=2), 0, 255).astype(np.uint8))


LARGE = {
    "JPEG": {"quality": 95},
    "PNG": {"compress_level": 1},
    "BMP": {},
    "GIF": {},
    "WEBP": {"lossless": True, "method": 0, "quality": 0},
}
FAST = Image.Quantize.FASTOCTREE  # Pillow's usual way of choosing 64 colours takes seconds


@pytest.mark.parametrize("file_format", LARGE)
def test_a_large_picture_is_made_smaller_in_cheap_steps_and_looks_the_same(file_format: str) -> None:
    picture = smooth(1800, 1400)
    data = encode(
        picture.quantize(64, method=FAST) if file_format == "GIF" else picture, file_format, **LARGE[file_format]
    )
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    left = (1800 - 1400) / 2
    for side in (32, 224):
        expected = whole.resize((side, side), Image.Resampling.BILINEAR, box=(left, 0, left + 1400, 1400))
        square = decode_upright(open_image(data), side, grayscale=False)
        difference = np.abs(square.astype(int) - np.asarray(expected))
        assert difference.mean() < 1.5  # of 255
        assert difference.max() <= 10


@pytest.mark.parametrize("millions", [24, 108])
def test_photos_of_any_camera_are_read_in_little_memory(millions: int) -> None:
    height = round((millions * 750_000) ** 0.5)
    photo = encode(Image.new("RGB", (height * 4 // 3, height), (200, 100, 50)), "JPEG")
    before = psutil.Process().memory_info().rss
    pixels = decoded(photo)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 3
    assert psutil.Process().memory_info().rss - before < 50e6


LARGER = {
    "PNG": (10_000, 10_800),
    "WEBP": (8_000, 6_000),
}


@pytest.mark.parametrize("file_format", LARGER)
def test_the_largest_pictures_are_decoded_in_a_process_of_their_own(file_format: str) -> None:
    options = LARGE[file_format]
    width, height = LARGER[file_format]
    image = open_image(encode(Image.new("RGB", (width, height), (200, 100, 50)), file_format, **options))
    assert image.isolated
    before = psutil.Process().memory_info().rss
    pixels = anyio.run(decode_isolated, image, COLOUR)
    assert (pixels == np.array([200, 100, 50])[:, None, None]).all()
    assert psutil.Process().memory_info().rss - before < 50e6


def test_a_damaged_large_picture_is_named_as_any_other() -> None:
    data = encode(Image.effect_noise((3000, 2800), 50), "PNG", compress_level=1)
    image = open_image(data[: len(data) // 2], index=2, name="cat.png")
    assert image.isolated
    with pytest.raises(ImageError, match=r"^image 3, 'cat.png', is damaged or cut off") as caught:
        anyio.run(decode_isolated, image, COLOUR)
    assert caught.value.extra == {"image": "cat.png", "index": 2}


def test_what_a_picture_costs_is_known_from_its_header() -> None:
    webp = encode(Image.new("RGB", (6000, 4000)), "WEBP", lossless=True)
    assert len(webp) < 2000
    assert open_image(webp).cost == 24_000_000
    jpeg = Image.new("RGB", (2000, 1000))
    assert open_image(encode(jpeg, "JPEG")).cost == 500_000
    assert open_image(encode(jpeg, "JPEG", progressive=True)).cost == 2_000_000


def huge(file_format: str) -> bytes:
    """A small file that claims 100,000 x 100,000 pixels, or as many as its format can say."""
    if file_format == "PNG":
        return png(100_000, 100_000, 8, 2, b"\x00")
    if file_format == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c"
    if file_format == "BMP":
        head = struct.pack("<IiiHHIIiiII", 40, 100_000, -100_000, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head
    if file_format == "WEBP":
        canvas = struct.pack("<I", 0)[:4] + b"\xff\xff\xff" * 2
        return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    data = bytearray(encode(Image.fromarray(RGB), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


@cache
def bombs() -> dict[str, bytes]:
    """Small files that would cost a careless reader hundreds of megabytes."""
    text = chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"a" * 100_000_000, 1))
    many = b"".join(chunk(b"zTXt", b"k%d\x00\x00" % n + zlib.compress(b"a" * 1_000_000)) for n in range(60))
    profile = chunk(b"iCCP", b"icc\x00\x00" + zlib.compress(b"a" * 100_000_000, 1))
    row = b"\x00" + bytes(3)
    # 5,000 EXIF entries that each claim the whole segment
    entries = b"".join(struct.pack("<HHII", tag, 7, 60_000, 0) for tag in range(5000))
    segment = b"Exif\x00\x00II*\x00" + struct.pack("<IH", 8, 5000) + entries
    jpeg = encode(Image.fromarray(RGB), "JPEG")
    return {
        "text": png(1, 1, 8, 2, row, text),
        "texts": png(1, 1, 8, 2, row, many),
        "profile": png(1, 1, 8, 2, row, profile),
        "pixels": png(1, 1, 8, 2, row + bytes(100_000_000)),
        "exif": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
    }


def growth_of(data: bytes) -> tuple[float, float]:
    """Megabytes that decoding adds: Python's own at their peak, and what the process holds afterwards."""
    process = psutil.Process()
    before = process.memory_info().rss
    tracemalloc.start()
    try:
        decode(data)
    except ImageError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak / 1e6, (process.memory_info().rss - before) / 1e6


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_header_that_claims_too_much_is_refused_from_the_header(file_format: str) -> None:
    data = huge(file_format)
    assert "million are read" in refusal_of(data).detail
    assert max(growth_of(data)) < 5


@pytest.mark.parametrize("name", ["text", "texts", "profile", "pixels", "exif"])
def test_bombs_cost_no_memory(name: str) -> None:
    data = bombs()[name]
    assert len(data) < 2_000_000
    assert max(growth_of(data)) < 20


def test_files_that_would_keep_a_python_loop_busy_are_refused() -> None:
    gif = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    assert "more than 20,000 blocks" in refusal_of(gif + b"\x21\xfe\x00" * 1_000_000).detail
    assert "more than 20,000 blocks" in refusal_of(gif + b"\x21\xfe" + b"\x01a" * 1_000_000 + b"\x00").detail
    assert "more than 20,000 segments" in refusal_of(b"\xff\xd8" + b"\xff" * 3_000_000).detail
    assert "more than 20,000 segments" in refusal_of(b"\xff\xd8" + b"\xff\xe5\x00\x02" * 1_000_000).detail
    chunks = chunk(b"abCd", b"") * 100_000
    assert "more than 65,536 chunks" in refusal_of(png(1, 1, 8, 2, bytes(4), chunks)).detail
    runs = struct.pack("<IiiHHIIiiII", 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 2, 0) + bytes(8) + b"\x01\x00" * 1_000_000
    assert "run-length encoded" in refusal_of(b"BM" + struct.pack("<IHHI", 62, 0, 0, 62) + runs).detail


def test_comments_of_a_gif_are_left_out_and_its_transparency_is_not() -> None:
    frame = Image.fromarray(FEW).quantize(64, method=Image.Quantize.MEDIANCUT)
    black = int(np.asarray(frame)[(FEW == 0).all(axis=2)][0])
    data = encode(frame, "GIF", comment=b"x" * 3000, transparency=black)
    assert (decoded(data) == FEW_ON_WHITE).all()


def test_a_gif_whose_frame_is_larger_than_its_header_says_is_refused() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x44\x01\x00\x3b"
    refusal_of(screen + frame)


def test_the_limit_is_on_pixels_not_on_sides() -> None:
    assert decoded(png(100_000, 1, 1, 0, bytes(1 + 100_000 // 8))).shape == (SIZE, SIZE, 3)
    refusal_of(png(MAX_PIXELS["PNG"] + 1, 1, 1, 0, bytes(1)))
    refusal_of(png(0, 5, 8, 0, b""))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    jpeg = encode(Image.fromarray(RGB), "JPEG", progressive=True)
    place = jpeg.rindex(b"\xff\xda")
    refusal_of(jpeg[:place] + jpeg[place:-2] * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")


SAMPLES = [
    data
    for file_format in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF")
    for data in (encode(Image.fromarray(FEW), file_format), encode(Image.fromarray(L), file_format))
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=8))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(data: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        pixels = decode(bytes(damaged))
    except ImageError:
        return
    assert pixels.shape == (3, SIZE, SIZE)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"", *(data[:64] for data in SAMPLES)]), st.binary(max_size=200))
def test_any_bytes_behind_a_good_beginning_are_refused_cleanly(start: bytes, rest: bytes) -> None:
    try:
        decode(start + rest)
    except ImageError as error:
        assert error.detail.startswith("image 1 ")  # noqa: PT017
