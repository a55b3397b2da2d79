"""Decoding of uploaded images into the pixels that a network was trained on.

Memory and time depend on the picture's size, not on the file's (34 bytes of WebP can claim 24 million pixels), so both
are known from the header before anything is decoded:

- a baseline JPEG, which is what cameras and phones write, is decoded at 1/2, 1/4 or 1/8 of its size by libjpeg itself:
  108 million pixels take 7 MB and a third of a second;
- anything else above a few million pixels is decoded in a process of its own (isolated.py), one at a time, which gives
  its memory back, can be ended, and keeps no lock of this process: Pillow holds Python's global interpreter lock while
  it decodes WebP.
"""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.data.image_headers import ACCEPTED, Header, Refused, identify, read_orientation
from models.data.small_png import open_small_png
from models.errors import ImageError
from models.preprocessing import Preprocessing

MILLION = 1_000_000
MAX_PIXELS: dict[str, int] = {
    "JPEG": 256 * MILLION,
    "PNG": 110 * MILLION,
    "BMP": 110 * MILLION,
    "GIF": 110 * MILLION,
    "WEBP": 50 * MILLION,
    "TIFF": 110 * MILLION,
    "HEIF": 64 * MILLION,
    "AVIF": 50 * MILLION,
}
"""Most pixels of a picture that are read, by format. Decoding takes 4 bytes a pixel, of WebP up to 12, of a baseline
JPEG at an eighth of its size 1/16."""
MAX_PROGRESSIVE_PIXELS = 110 * MILLION
"""The same for a progressive JPEG: its decoder holds all coefficients, 3 to 6 bytes a pixel."""
PIXELS_IN_THREAD = 8 * MILLION
VIDEO_PIXELS_IN_THREAD = MILLION
"""Larger pictures are decoded in a process of their own, but for baseline JPEGs. The second is for the formats that
come from video codecs."""
VIDEO_FORMATS = ("WEBP", "HEIF", "AVIF")
NAMES = {"HEIF": "HEIC"}
"""The usual name of a format, where Pillow has another one."""
BASELINE_SAVING = 4
"""A pixel of a baseline JPEG, decoded at a smaller size, costs a quarter of any other's or less."""
GAP = 3
"""Pictures are first brought to no less than this many times the final size in the cheapest way (libjpeg's scaled
decoding, means of blocks); the last step then weighs as if it saw every pixel. See `reducing_gap` in Pillow's docs."""
STRIP_PIXELS = 2 * MILLION

Image.MAX_IMAGE_PIXELS = (
    None  # the limits above are checked before Pillow sees a file; its own would warn at 89 million
)

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


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An upload whose header and size are accepted; not decoded yet."""

    data: bytes
    header: Header
    index: int
    """Its place in the request, from 0."""
    name: str

    @property
    def cost(self) -> int:
        """Cost of decoding, in pixels of a PNG; known from the header."""
        pixels = self.header.width * self.header.height
        baseline = self.header.file_format == "JPEG" and not self.header.progressive
        return pixels // BASELINE_SAVING if baseline else pixels

    @property
    def isolated(self) -> bool:
        """Whether to decode it in a separate process."""
        if self.header.file_format == "JPEG" and not self.header.progressive:
            return False
        return self.cost > (VIDEO_PIXELS_IN_THREAD if self.header.file_format in VIDEO_FORMATS else PIXELS_IN_THREAD)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height after EXIF rotation. A WebP's orientation is not known before it is opened."""
        width, height = self.header.width, self.header.height
        return (height, width) if self.header.orientation >= 5 else (width, height)

    def error(self, what: str) -> ImageError:
        """Build an error that names this image."""
        return _image_error(what, self.index, self.name)


def open_image(data: bytes, *, index: int = 0, name: str = "") -> ImageFile:
    """Recognise an upload and check its size, without decoding it. Raises ImageError, which names the image."""
    try:
        header = identify(data)
        _check_size(header, header.width, header.height)
    except Refused as error:
        raise _image_error(str(error), index, name) from None
    return ImageFile(data, header, index, name)


def decode_image(image: ImageFile, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode one upload to (channels, source_size, source_size).

    An animation gives its first frame; transparent parts become white; EXIF orientation is undone; 16-bit values are
    rounded to 8. Any other shape becomes a square by `preprocessing.fit`; by default the centre is taken: as resizing
    the short side (bilinear, antialiased) and cropping would, without ever making the long side. Colour profiles are
    not applied, as they are not in training. Raises ImageError, which names the image and what is wrong.
    """
    square = decode_upright(image, preprocessing.source_size, grayscale=preprocessing.grayscale, fit=preprocessing.fit)
    return to_channels(square, preprocessing.channels)


def decode_upright(image: ImageFile, side: int, *, grayscale: bool | None, fit: str = "crop") -> NDArray[np.uint8]:
    """Decode the first frame to a square, upright: (side, side, 3), or (side, side) if `grayscale`.

    `fit` says what becomes of any other shape: `crop` keeps the centre, `pad` adds black, `stretch` keeps neither side.
    `grayscale` None keeps a picture of gray as (side, side) and gives any other as (side, side, 3). Raises ImageError.
    """
    try:
        return _decode(image.header, side, grayscale, fit)
    except Refused as error:
        raise image.error(str(error)) from None
    except _DAMAGE as error:
        raise image.error("is damaged or cut off and cannot be decoded") from error


def _decode(header: Header, side: int, grayscale: bool | None, fit: str) -> NDArray[np.uint8]:
    if header.file_format == "PNG" and (small := open_small_png(header.data, header.width, header.height)) is not None:
        return _as_square(small, small.width, small.height, side, grayscale, fit, header.orientation)
    if header.file_format in ("HEIF", "AVIF"):
        _load_codecs()
    with Image.open(io.BytesIO(header.data), formats=[header.file_format]) as opened:
        _check_size(header, *opened.size)  # a GIF's frame may be larger than its header says
        if header.file_format == "JPEG":
            opened.draft(None, (GAP * side, GAP * side))  # None keeps the mode
        opened.load()
        orientation = header.orientation
        if header.file_format in ("WEBP", "AVIF"):
            orientation = read_orientation(opened.info.get("exif", b"").removeprefix(b"Exif\x00\x00"))
        picture, factor = _flatten(opened, side)
        width, height = opened.width / factor, opened.height / factor
    return _as_square(picture, width, height, side, grayscale, fit, orientation)


def _as_square(
    picture: Image.Image, width: float, height: float, side: int, grayscale: bool | None, fit: str, orientation: int
) -> NDArray[np.uint8]:
    mode = picture.mode if grayscale is None else "L" if grayscale else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    square = _to_square(picture, width, height, side, fit)
    if orientation in _UPRIGHT:
        square = square.transpose(_UPRIGHT[orientation])
    shape = (side, side) if square.mode == "L" else (side, side, 3)
    return np.frombuffer(square.tobytes(), dtype=np.uint8).reshape(shape)  # asarray takes twice as long


@cache
def _load_codecs() -> None:
    """Register HEIC with Pillow (0.05 s), and limit libheif and libavif to the calling thread."""
    import pillow_heif
    from PIL import AvifImagePlugin

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _to_square(picture: Image.Image, width: float, height: float, side: int, fit: str) -> Image.Image:
    """Resize to (side, side). `width` and `height` are the picture's without what reducing it rounded up."""
    if picture.size == (side, side) == (width, height):
        return picture
    if fit == "pad":
        scale = side / max(width, height)
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        black = Image.new(picture.mode, (side, side))
        inner = picture.resize(size, Image.Resampling.BILINEAR, box=(0, 0, width, height))
        black.paste(inner, ((side - size[0]) // 2, (side - size[1]) // 2))
        return black
    left = top = 0.0
    if fit == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        width = height = short
    box = (left, top, min(left + width, picture.width), min(top + height, picture.height))
    return picture.resize((side, side), Image.Resampling.BILINEAR, box=box)


def to_channels(square: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Transpose (side, side, 3) or (side, side) to (channels, side, side)."""
    if square.ndim == 2:
        return np.repeat(square[None], channels, axis=0)
    return np.ascontiguousarray(square.transpose(2, 0, 1))


def _image_error(what: str, index: int, name: str) -> ImageError:
    shown = f"image {index + 1}" + (f", '{name[:100]}'," if name else "")
    return ImageError(f"{shown} {what}", fix=f"send it as {ACCEPTED}", image=name, index=index)


def _check_size(header: Header, width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise Refused(f"has no pixels: it is {width} x {height}")
    kind: str = header.file_format
    most = MAX_PIXELS[kind]
    if header.progressive:
        kind, most = "progressive JPEG", MAX_PROGRESSIVE_PIXELS
    if width * height > most:
        raise Refused(
            f"has {width:,} x {height:,} pixels, {width * height / MILLION:,.0f} million; "
            f"at most {most // MILLION} million are read of a {NAMES.get(kind, kind)}. Scale it down"
        )


def _flatten(picture: Image.Image, side: int) -> tuple[Image.Image, int]:
    """Convert to 8 bits (L or RGB) without transparency. Returns the image and the factor it was reduced by.

    A large picture is worked on in strips, each brought to its means of blocks at once: beside the decoder's own copy
    of the picture there is never a second one.
    """
    factor = min(picture.size) // (GAP * side)
    if picture.width * picture.height <= STRIP_PIXELS or factor < 2:
        return _flatten_all(picture), 1
    rows = max(1, STRIP_PIXELS // picture.width // factor) * factor
    strips = (
        _flatten_all(picture.crop((0, top, picture.width, min(top + rows, picture.height)))).reduce(factor)
        for top in range(0, picture.height, rows)
    )
    parts = [np.asarray(strip) for strip in strips]
    return Image.fromarray(np.concatenate(parts)), factor


def _flatten_all(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    if picture.mode in ("1", "P") and "transparency" not in picture.info:
        return picture.convert("L" if picture.mode == "1" else "RGB")
    if picture.mode in ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "RGBX"):
        with_alpha = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = Image.new("RGB", picture.size, "white")
        white.paste(with_alpha, mask=with_alpha.getchannel("A"))
        return white
    if picture.mode in ("CMYK", "YCbCr"):
        return picture.convert("RGB")
    raise Refused(f"has pixels of a kind that is not read ({picture.mode})")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Convert from 16 bits by scaling, where Pillow would clip at 255."""
    values = np.asarray(picture).astype(np.uint32)
    gray = ((values * 255 + 32767) // 65535).astype(np.uint8)
    if isinstance(transparent := picture.info.get("transparency"), int):
        gray[values == transparent] = 255
    return Image.fromarray(gray)
