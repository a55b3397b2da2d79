"""Text as outlines: choice of font, measurement, and truncation to a width.

DejaVu Sans comes with matplotlib, so that every machine draws the same. For what it lacks (Chinese, Japanese, Korean,
Devanagari, Thai, many emoji) an installed font is taken, whichever has the character; where none has it, a PNG shows a
box and the log says once what to install. An SVG holds such text as text, so that the reader's own fonts draw it.
"""
# mypy: disable-error-code="no-untyped-call"
# matplotlib's fonts state no types

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from matplotlib import font_manager
from matplotlib.font_manager import FontEntry, FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.path import Path
from matplotlib.textpath import text_to_path

logger = logging.getLogger(__name__)
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns of every font without a bold weight

FONT = "DejaVu Sans"
SPACE = 0.318
"""Width of a space, in font sizes."""
KEPT_WORDS, KEPT_LENGTH = 1024, 16
FIGURES = frozenset("0123456789.,%#@-+:e")
"""Characters that DejaVu Sans sets without kerning: a figure is composed of its characters, since few figures recur."""
MAX_CHARACTERS = 2000
MAX_FONTS = 256
"""Maximum number of fonts searched: some 10 ms each, once."""
BOX, CUT, LEFT_TO_RIGHT = "\u25a1", "\u2026", "\u200e"
NEVER_DRAWN = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Unicode categories not drawn: control characters, direction marks, surrogates, unassigned."""
PREFERRED = (
    *("Noto Sans CJK", "Source Han Sans", "Noto Sans", "WenQuanYi", "Droid Sans Fallback", "IPA", "Nanum"),
    *("Hiragino Sans", "Apple SD Gothic", "Noto Emoji", "Symbola"),
)
"""Name prefixes of fonts tried first: sans serif outlines with wide coverage."""
UNUSABLE = ("LastResort", "Last Resort", "Adobe Blank", "Noto Color Emoji", "Apple Color Emoji")
"""Fonts not used: placeholders for every character, or bitmaps instead of outlines."""
PACKAGES = (
    ((0x2E80, 0x9FFF), "fonts-noto-cjk"),
    ((0xAC00, 0xD7FF), "fonts-noto-cjk"),
    ((0xF900, 0xFAFF), "fonts-noto-cjk"),
    ((0xFF00, 0xFFEF), "fonts-noto-cjk"),
    ((0x20000, 0x3FFFF), "fonts-noto-cjk"),
    ((0x2190, 0x2BFF), "fonts-symbola"),
    ((0x1F000, 0x1FAFF), "fonts-symbola"),
)
"""The Debian and Ubuntu package with a font for each range of characters; fonts-noto-core for all others."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The outline of a line of text at a font size of one point."""

    path: Path
    width: float


def clean(text: str) -> str:
    """Return a name as one line without control and direction marks. Draw it with `parse_math=False`: $ is literal."""
    kept = [
        " " if char.isspace() else char
        for char in text[:MAX_CHARACTERS]
        if char.isspace() or unicodedata.category(char) not in NEVER_DRAWN
    ]
    return " ".join("".join(kept).split())


def fit(text: str, width: float, size: float, *, bold: bool = False, keep_end: int = 0) -> str:
    """Truncate a name to one line of at most `width` at a font size.

    Characters are removed before the last `keep_end` ones, or as many of them as fill half of the width.
    """
    line = clean(text)
    if width_of(line, size, bold=bold) <= width:
        return line
    while keep_end and width_of(line[len(line) - keep_end :], size, bold=bold) > width / 2:
        keep_end -= 1
    end = line[len(line) - keep_end :] if keep_end else ""
    fits, too_long = 0, len(line) - len(end)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if width_of(line[:middle].rstrip() + CUT + end, size, bold=bold) <= width:
            fits = middle
        else:
            too_long = middle
    return line[:fits].rstrip() + CUT + end


@lru_cache(256)
def outline(text: str, bold: bool) -> Outline:
    """Return the outline of a text, composed of its words' cached outlines.

    Text beyond ASCII is laid out as a whole, since its words may be displayed in another order. Cached, since a sheet
    needs the outline of each text two or three times.
    """
    if not text.isascii():
        return _set(text, bold)
    words = [_outline_of_word(word, bold) for word in text.split(" ")]
    return words[0] if len(words) == 1 else _joined(words, SPACE)


def left_to_right(text: str) -> str:
    """Add a direction mark that keeps what precedes Arabic or Hebrew, such as a number, on the left."""
    rightward = not text.isascii() and any(unicodedata.bidirectional(char) in ("R", "AL") for char in text)
    return f"{LEFT_TO_RIGHT}{text}" if rightward else text


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a line of text."""
    return size * outline(text, bold).width


def is_common(text: str) -> bool:
    """Whether DejaVu Sans has every character."""
    return text.isascii() or all(ord(char) in _dejavu() for char in text)


def families(text: str) -> tuple[str, ...]:
    """DejaVu Sans, and the installed fonts that have what it lacks, by name."""
    lacking = dict.fromkeys(char for char in text if ord(char) not in _dejavu()) if not text.isascii() else {}
    found = dict.fromkeys(family for char in lacking if (family := _installed_with(char)))
    return (FONT, *found)


def drawable(text: str) -> str:
    """The text with a box for every character that no installed font has."""
    if is_common(text):
        return text
    return "".join(char if ord(char) in _dejavu() or _installed_with(char) else BOX for char in text)


@lru_cache(64)
def font(names: tuple[str, ...], size: float, bold: bool) -> FontProperties:
    """Fonts to draw in, the later ones for what the first lacks."""
    return FontProperties(family=list(names), size=size, weight="bold" if bold else "normal")


def _outline_of_word(word: str, bold: bool) -> Outline:
    if len(word) > 1 and FIGURES.issuperset(word):
        return _joined([_set_once(character, bold) for character in word], 0.0)
    return _set_once(word, bold) if len(word) <= KEPT_LENGTH else _set(word, bold)


def _joined(parts: Sequence[Outline], space: float) -> Outline:
    """Set outlines beside each other."""
    starts = np.cumsum([0.0, *(part.width + space for part in parts)])
    places = np.concatenate([part.path.vertices for part in parts])
    places[:, 0] += np.repeat(starts[:-1], [len(part.path) for part in parts])
    return Outline(Path(places, np.concatenate([part.path.codes for part in parts])), float(starts[-1]) - space)


def _set(text: str, bold: bool) -> Outline:
    chosen, text = font(families(text), 1, bold), drawable(text)
    corners, codes = text_to_path.get_text_path(chosen, text)
    path = Path(np.reshape(corners, (-1, 2)) / text_to_path.FONT_SCALE, np.asarray(codes, Path.code_type))
    return Outline(path, text_to_path.get_text_width_height_descent(text, chosen, False)[0] if text else 0.0)


_set_once = lru_cache(KEPT_WORDS)(_set)


@lru_cache(1)
def _dejavu() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


@lru_cache(4096)
def _installed_with(char: str) -> str | None:
    """The name of an installed font that has a character DejaVu Sans lacks."""
    code = ord(char)
    package = next((name for (first, last), name in PACKAGES if first <= code <= last), "fonts-noto-core")
    if (package, code >> 8) in _missing:
        return None
    found = next((entry.name for entry in _candidates() if _has(entry, code)), None)
    if found is None:
        _missing.add((package, code >> 8))
        _advise(package, char)
    return found


_missing: set[tuple[str, int]] = set()
"""Blocks of 256 characters of which one was looked for in every font and not found."""
_advised: set[str] = set()
"""Packages that the log has named."""


def _advise(package: str, char: str) -> None:
    if package not in _advised:
        _advised.add(package)
        logger.warning("no installed font has %r, so PNG pictures show a box; install %s and restart", char, package)


@lru_cache(1)
def _candidates() -> list[FontEntry]:
    """Every upright font of regular weight, those that were installed since matplotlib last looked too."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:
            _add(path)
    usable = [
        entry
        for entry in font_manager.fontManager.ttflist
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and not entry.name.startswith(UNUSABLE)
    ]
    return sorted(usable, key=lambda entry: (_rank(entry.name), entry.name, entry.fname))[:MAX_FONTS]


def _rank(name: str) -> int:
    return next((rank for rank, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))


def _add(path: str) -> None:
    try:
        font_manager.fontManager.addfont(path)
    except (OSError, RuntimeError, ValueError) as error:  # a damaged file, or a format that FreeType does not read
        logger.info("the font %s cannot be read and is skipped: %s", path, error)


@lru_cache(MAX_FONTS)
def _coverage(path: str) -> dict[int, int]:
    """Which characters a font has: by blocks of 256, a bit for each. Read once, as names may hold any character."""
    blocks: dict[int, int] = {}
    try:
        found = FT2Font(path)
        for code in found.get_charmap() if found.scalable else ():
            blocks[code >> 8] = blocks.get(code >> 8, 0) | 1 << (code & 255)
    except (OSError, RuntimeError, ValueError) as error:
        logger.info("the font %s cannot be read and is skipped: %s", path, error)
    return blocks


def _has(entry: FontEntry, code: int) -> bool:
    return bool(_coverage(str(entry.fname)).get(code >> 8, 0) >> (code & 255) & 1)
