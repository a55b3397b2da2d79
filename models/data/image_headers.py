"""Image format and size from a file's header, read before any decoder is called.

Only five formats are ever opened. What decoding does not need (text, colour profiles, EXIF, thumbnails, further
frames) is left out before Pillow reads a file: compressed text that unpacks to gigabytes, or a thousand EXIF entries
that each claim the whole segment, then never reach it. The one thing wanted of them, the orientation, is read here.
"""

import struct
from dataclasses import dataclass
from typing import Literal

FileFormat = Literal["PNG", "JPEG", "WEBP", "BMP", "GIF"]
ACCEPTED = "PNG, JPEG, WebP, BMP or GIF"

PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
MAX_PNG_CHUNKS = 65_536  # 24 million pixels in libpng's usual chunks of 8 kB are 9,000
PROGRESSIVE_FRAMES = {0xC2, 0xC6, 0xCA, 0xCE}  # ITU-T T.81, table B.1
MAX_JPEG_SCANS = 100  # a progressive photo has about 10; each costs a pass over the whole picture
MAX_BLOCKS = 20_000  # segments or blocks before the picture itself; a photo with a large colour profile has 50
MAX_RLE_BYTES = 1_000_000  # Pillow unpacks these run by run in Python: seconds a megabyte

OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "a PDF"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"8BPS", "a Photoshop file"),
    (b"PK\x03\x04", "a ZIP archive"),
)


class Refused(Exception):
    """A file is refused; the message follows the image's name: "is empty"."""


@dataclass(frozen=True, slots=True)
class Header:
    """Format, size and orientation of a file. `data` is the file without metadata."""

    file_format: FileFormat
    width: int
    height: int
    data: bytes
    orientation: int = 1
    """EXIF's: 1 to 8, 1 for upright. WebP's is read after opening."""
    progressive: bool = False
    """A JPEG whose decoder has to hold the coefficients of the whole picture."""


def identify(data: bytes) -> Header:
    """Identify a file by its content. Raises Refused for other formats and invalid headers."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data)
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return _gif(data)
        if data[:2] == b"BM":
            return _bmp(data)
    except (struct.error, IndexError):
        raise Refused("ends within its header") from None
    raise Refused(_what_else(data))


def _what_else(data: bytes) -> str:
    if not data:
        return "is empty"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((name for magic, name in OTHERS if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        found = "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC" if data[8:11] == b"hei" else "a video"
    elif start.startswith((b"<!doctype html", b"<html")):
        found = "a web page"
    elif start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        found = "an SVG drawing" if b"<svg" in start else "an XML file"
    return f"is {found or 'of no known kind'}; it has to be {ACCEPTED}"


def _png(data: bytes) -> Header:
    if data[8:16] != b"\x00\x00\x00\rIHDR":
        raise Refused("is a damaged PNG: it does not begin with its header")
    width, height = struct.unpack_from(">II", data, 16)
    pieces, orientation, place, count = [data[:8]], 1, 8, 0
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if kind in PNG_KEPT or end > len(data):  # a cut chunk is left for the decoder to complain about
            pieces.append(data[place:end])
        elif kind == b"eXIf":
            orientation = read_orientation(data[place + 8 : end - 4])
        place, count = end, count + 1
        if count > MAX_PNG_CHUNKS:
            raise Refused(f"is a PNG of more than {MAX_PNG_CHUNKS:,} chunks")
        if kind == b"IEND":
            break
    return Header("PNG", width, height, b"".join(pieces), orientation)


def _jpeg(data: bytes) -> Header:
    """Walk the segments up to the first scan; keep all but the application's own, and of those JFIF's and Adobe's."""
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise Refused(f"is a JPEG of more than {MAX_JPEG_SCANS} scans")
    pieces, orientation, size, place = [data[:2]], 1, None, 2
    progressive = False
    for _ in range(MAX_BLOCKS):
        marker = struct.unpack_from(">BB", data, place)
        if marker[0] != 0xFF:
            raise Refused("is a damaged JPEG: its segments do not follow each other")
        kind = marker[1]
        if kind == 0xFF:  # a fill byte
            place += 1
            continue
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # no length follows
            place += 2
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        if kind == 0xDA:
            pieces.append(data[place:])
            if size is None:
                raise Refused("is a damaged JPEG: its size is missing")
            return Header("JPEG", size[0], size[1], b"".join(pieces), orientation, progressive)
        if kind == 0xD9 or length < 2:
            raise Refused("is a damaged JPEG: it ends before its picture")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and size is None:
            height, width = struct.unpack_from(">HH", data, place + 5)
            size = (width, height)
            progressive = kind in PROGRESSIVE_FRAMES
        segment = data[place : place + 2 + length]
        if kind == 0xE1 and segment[4:10] == b"Exif\x00\x00" and orientation == 1:
            orientation = read_orientation(segment[10:])
        if not (0xE1 <= kind <= 0xED or kind in (0xEF, 0xFE)):
            pieces.append(segment)
        place += 2 + length
    raise Refused(f"is a JPEG of more than {MAX_BLOCKS:,} segments")


def _gif(data: bytes) -> Header:
    """Walk the blocks up to the first frame; keep the last graphic control extension."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    start = place = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    control, block = b"", place
    inside = False  # an extension, whose parts are each preceded by their length, 0 for the end
    for _ in range(MAX_BLOCKS):
        if inside:
            inside = data[place] > 0
            place += 1 + data[place]
            if not inside and data[block + 1] == 0xF9:
                control = data[block:place]
        elif data[place] == 0x21:
            inside, block, place = True, place, place + 2
        elif data[place] == 0x2C:
            return Header("GIF", width, height, data[:start] + control + data[place:])
        else:
            raise Refused("is a damaged GIF, or one without a picture")
    raise Refused(f"is a GIF of more than {MAX_BLOCKS:,} blocks before its picture")


def _webp(data: bytes) -> Header:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        struct.unpack_from("<6x", data, 24)
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise Refused("is a damaged WebP: it does not begin with its picture")
    return Header("WEBP", width, height, data)


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    elif 40 <= header_size <= 124:
        width, height, compression = struct.unpack_from("<ii4xI", data, 18)
        if compression in (1, 2) and len(data) > MAX_RLE_BYTES:
            raise Refused("is a run-length encoded BMP of more than a megabyte; such files are read up to there")
    else:
        raise Refused("is a damaged BMP, or of a kind that is not read")
    return Header("BMP", width, abs(height), data)  # a negative height means that rows run downwards


def read_orientation(exif: bytes) -> int:
    """Read the orientation from EXIF data (a TIFF header and its first directory); 1 if missing or invalid."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
