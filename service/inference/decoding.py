"""From an uploaded file to the pixels that a network was trained on."""

import io
import struct
import threading
import zlib
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageError
from service.inference.headers import ACCEPTED, Header, Refused, identify, read_orientation

if TYPE_CHECKING:
    from models.networks.preprocessing import Preprocessing

MAX_PIXELS = 24_000_000
"""A 24-megapixel photo. Decoding takes up to 16 bytes a pixel."""
LARGE_PIXELS = 4_000_000
"""Pictures above this are decoded one at a time, so that memory stays within bounds."""

_LARGE = threading.BoundedSemaphore(1)

# What Pillow's decoders have been seen to raise for damaged files; a bug in one of them must not look like ours.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    MemoryError,
    AssertionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,
)

# EXIF orientations 2 to 8, as what brings the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes, preprocessing: "Preprocessing", *, index: int = 0, name: str = "") -> NDArray[np.uint8]:
    """Decode one upload to (channels, source_size, source_size).

    An animation gives its first frame; transparent parts become white; EXIF orientation is undone; 16-bit values are
    rounded to 8. Of any other shape than a square the centre is taken: as resizing the short side (bilinear,
    antialiased) and cropping would, without ever making the long side. Colour profiles are not applied, as they are
    not in training. Raises ImageError, which names the image and what is wrong.
    """
    try:
        header = identify(data)
        _check_size(header.width, header.height)
        with _LARGE if header.width * header.height > LARGE_PIXELS else nullcontext():
            picture = _open(header, "L" if preprocessing.grayscale else "RGB")
            square = _resize(picture, preprocessing.source_size)
    except Refused as error:
        raise _image_error(str(error), index, name) from None
    except _DAMAGE as error:
        raise _image_error("is damaged or cut off and cannot be decoded", index, name) from error
    pixels = np.asarray(square)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], preprocessing.channels, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _image_error(what: str, index: int, name: str) -> ImageError:
    shown = f"image {index + 1}" + (f", '{name[:100]}'," if name else "")
    return ImageError(f"{shown} {what}", fix=f"send it as {ACCEPTED}", image=name, index=index)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise Refused(f"has no pixels: it is {width} x {height}")
    if width * height > MAX_PIXELS:
        raise Refused(
            f"has {width:,} x {height:,} pixels, {width * height / 1e6:,.0f} million; "
            f"at most {MAX_PIXELS // 1_000_000} million are read. Scale it down"
        )


def _open(header: Header, mode: str) -> Image.Image:
    """The first frame, upright, as RGB or L."""
    with Image.open(io.BytesIO(header.data), formats=[header.file_format]) as opened:
        _check_size(*opened.size)  # a GIF's frame may be larger than its header says
        opened.load()
        orientation = header.orientation
        if header.file_format == "WEBP":
            orientation = read_orientation(opened.info.get("exif", b"").removeprefix(b"Exif\x00\x00"))
        picture = _flatten(opened)
    if picture.mode != mode:
        picture = picture.convert(mode)
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _flatten(picture: Image.Image) -> Image.Image:
    """Without transparency, in 8 bits: L or RGB."""
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode in ("1", "L", "P", "RGB") and "transparency" not in picture.info:
        return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if picture.mode in ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "RGBX"):
        with_alpha = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(with_alpha, mask=with_alpha.getchannel("A"))
        return white
    if picture.mode in ("CMYK", "YCbCr"):
        return picture.convert("RGB")
    raise Refused(f"has pixels of a kind that is not read ({picture.mode})")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Pillow would clip everything above 255 to white."""
    values = np.asarray(picture).astype(np.uint32)
    gray = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if isinstance(transparent := picture.info.get("transparency"), int):
        gray[values == transparent] = 255
    return Image.fromarray(gray)


def _resize(picture: Image.Image, side: int) -> Image.Image:
    """The centre square at `side` x `side`."""
    short = min(picture.size)
    left, top = (picture.width - short) / 2, (picture.height - short) / 2
    box = (left, top, left + short, top + short)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box=box)
