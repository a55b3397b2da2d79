"""Image format and size from a file's header, read before any decoder is called.

Only eight formats are ever opened. Of PNG, JPEG and GIF what decoding does not need (text, colour profiles, EXIF,
thumbnails, further frames) is left out before Pillow reads a file: compressed text that unpacks to gigabytes, or a
thousand EXIF entries that each claim the whole segment, then never reach it. The one thing wanted of them, the
orientation, is read here. A TIFF's entries are counted; HEIC and AVIF go to libheif and libavif as they are.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

FileFormat = Literal["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF"]
ACCEPTED = "PNG, JPEG, WebP, BMP, GIF, TIFF, HEIC or AVIF"

PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
MAX_PNG_CHUNKS = 65_536  # 24 million pixels in libpng's usual chunks of 8 kB are 9,000
PROGRESSIVE_FRAMES = {0xC2, 0xC6, 0xCA, 0xCE}  # ITU-T T.81, table B.1
MAX_JPEG_SCANS = 100  # a progressive photo has about 10; each costs a pass over the whole picture
MAX_BLOCKS = 20_000  # segments or blocks before the picture itself; a photo with a large colour profile has 50
MAX_TIFF_ENTRIES = 500  # a photo with everything a camera writes has 60
MAX_TIFF_PICTURE_ENTRY = 64 << 20  # bytes of one list of strips: eight million of them
MAX_RLE_BYTES = 1_000_000  # Pillow unpacks these run by run in Python: seconds a megabyte

TIFF_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">", b"II+\x00": "<", b"MM\x00+": ">"}
"""How a TIFF begins, and BigTIFF, and the order of its bytes."""
TIFF_SIZES = (1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)
"""Bytes of a value, by its type."""
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif"}
AVIF_BRANDS = {b"avif", b"avis"}
ANY_STILL = {b"mif1", b"mif2", b"msf1", b"miaf"}
"""Brands of either: the others in the list decide."""

OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "a PDF"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x01\x00", "an icon file"),
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
    """EXIF's: 1 to 8, 1 for upright. WebP's and AVIF's are read after opening; TIFF and HEIC are opened upright."""
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
        if data[:4] in TIFF_ORDERS:
            return _tiff(data)
        if data[4:8] == b"ftyp" and (kind := _still_brand(data)):
            return _bmff(data, kind)
    except (struct.error, IndexError):
        raise Refused("ends within its header") from None
    raise Refused(_what_else(data))


def _what_else(data: bytes) -> str:
    if not data:
        return "is empty"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((name for magic, name in OTHERS if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        found = "a video"
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


def _tiff(data: bytes) -> Header:
    """Read the first directory of a TIFF or BigTIFF: the size of its first page, and how much its entries claim."""
    order, big = TIFF_ORDERS[data[:4]], data[2:4] in (b"+\x00", b"\x00+")
    (directory,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, directory)
    if count > MAX_TIFF_ENTRIES:
        raise Refused(f"is a TIFF of {count:,} entries; at most {MAX_TIFF_ENTRIES} are read")
    entry, first = f"{order}{'HHQ' if big else 'HHI'}", directory + (8 if big else 2)
    step, head = (20, 12) if big else (12, 8)
    values: dict[int, int] = {}
    claimed = 0
    for number in range(count):
        place = first + step * number
        tag, kind, amount = struct.unpack_from(entry, data, place)
        size = amount * (TIFF_SIZES[kind] if kind < len(TIFF_SIZES) else 1)
        claimed += size if size > step - head else 0
        if kind in (3, 4, 16) and amount == 1:
            (values[tag],) = struct.unpack_from(f"{order}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", data, place + head)
    if claimed > min(len(data), MAX_TIFF_PICTURE_ENTRY):
        raise Refused("is a damaged TIFF: its entries claim more than there is")
    width, height, orientation = values.get(0x100, 0), values.get(0x101, 0), values.get(0x112, 1)
    return Header("TIFF", height, width, data) if 5 <= orientation <= 8 else Header("TIFF", width, height, data)


def _still_brand(data: bytes) -> FileFormat | None:
    """HEIF or AVIF by the brands in a file's first box; None for videos."""
    (length,) = struct.unpack_from(">I", data)
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, min(length, len(data), 256), 4))]
    for brand in brands:
        if brand in AVIF_BRANDS:
            return "AVIF"
        if brand in HEIF_BRANDS:
            return "HEIF"
        if brand not in ANY_STILL and brand == data[8:12]:
            return None
    return None


def _bmff(data: bytes, kind: FileFormat) -> Header:
    """The largest of the sizes that an HEIF or AVIF file's properties name (a grid, its tiles, a thumbnail)."""
    size, turned, left = (0, 0), False, [MAX_BLOCKS]
    for box, start, end in _boxes(data, 0, len(data), left):
        if box != b"meta":
            continue
        for inner, inner_start, inner_end in _boxes(data, start + 4, end, left):  # 4 bytes of version and flags
            if inner != b"iprp":
                continue
            for property_box, at, until in _boxes(data, inner_start, inner_end, left):
                if property_box != b"ipco":
                    continue
                for name, place, _ in _boxes(data, at, until, left):
                    if name == b"ispe":
                        found = struct.unpack_from(">II", data, place + 4)
                        size = max(size, (found[0], found[1]), key=lambda one: one[0] * one[1])
                    elif name == b"irot":
                        turned = bool(data[place] & 1)
    if size == (0, 0):
        raise Refused(f"is a damaged {'HEIC' if kind == 'HEIF' else kind}: its size is missing")
    width, height = reversed(size) if turned and kind == "HEIF" else size
    return Header(kind, width, height, data)


def _boxes(data: bytes, start: int, end: int, left: list[int]) -> Iterator[tuple[bytes, int, int]]:
    """The boxes between two places: name, and where the content begins and ends. `left` counts down over all calls."""
    while start + 8 <= end:
        left[0] -= 1
        if left[0] < 0:
            raise Refused(f"is made of more than {MAX_BLOCKS:,} boxes")
        length, name = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        stop = end if length == 0 else min(start + length, end)
        if length and length < head:
            raise Refused("is damaged: it holds a box without a length")
        yield name, start + head, stop
        start = stop


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
