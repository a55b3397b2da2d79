"""Interprets names inside archives: junk files, split names, and the order of class names."""

import re
import unicodedata
from enum import StrEnum
from functools import lru_cache

from models.errors import ArchiveError

MAX_NAME = 1_000
"""The most characters of a path inside an archive."""
MAX_PART = 255
"""The most characters of a part of a path, which is what file systems allow."""
SHOWN_CHARACTERS = 120

JUNK = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__pycache__", "$recycle.bin", "icon\r",
    "system volume information", "lost+found",
}  # fmt: skip
"""Files that operating systems and tools leave beside images, in lower case; so are names that begin with a dot."""

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif",
    ".avif", ".tif", ".tiff",
}  # fmt: skip
OTHER_IMAGE_SUFFIXES = {
    ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".eps", ".psd", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".dcm",
    ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".fits", ".exr", ".hdr", ".jxr",
}  # fmt: skip
"""Suffixes of pictures that cannot be read; they are listed as skipped."""
TEXT_NAMES = {"readme", "license", "licence", "copying", "makefile", "changelog", "authors", "dockerfile", "checksums"}


class Split(StrEnum):
    """A split given by the files."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


SPLIT_NAMES = {
    "train": Split.TRAIN, "training": Split.TRAIN, "trainset": Split.TRAIN, "trainingset": Split.TRAIN,
    "val": Split.VALIDATION, "valid": Split.VALIDATION, "validation": Split.VALIDATION, "validate": Split.VALIDATION,
    "valset": Split.VALIDATION, "validationset": Split.VALIDATION, "dev": Split.VALIDATION,
    "test": Split.TEST, "testing": Split.TEST, "testset": Split.TEST, "testingset": Split.TEST, "eval": Split.TEST,
}  # fmt: skip


IMAGES_OF = re.compile(r"(?:images?|imgs?|pictures|photos|data|dataset|folder)")


@lru_cache(maxsize=10_000)
def split_of(name: str) -> Split | None:
    """The split that a folder or column name stands for: `train`, `Training_Set`, `valid`, `val-set`, `test_images`."""
    words = re.split(r"[\s_.-]+", name.casefold())
    if len(words) > 1:  # a word before or behind it says that there are images inside
        words = words[bool(IMAGES_OF.fullmatch(words[0])) : len(words) - bool(IMAGES_OF.fullmatch(words[-1]))]
    return SPLIT_NAMES.get("".join(words))


def parts_of(name: str, index: int, what: str) -> tuple[str, ...]:
    """The parts of a member's path, checked: `./a//b` is ("a", "b"); a folder has an empty last part removed.

    Raises ArchiveError for a path that is absolute, leads out of the archive, or that no file system could have.
    """
    if not name or len(name) > MAX_NAME or "\0" in name:
        problem = "has no name" if not name else "has a name with a NUL" if "\0" in name else (
            f"has a path of {len(name):,} characters; at most {MAX_NAME:,} are read"
        )  # fmt: skip
        raise refusal(name, index, what, problem)
    if name[0] in "/\\" or (name[1:2] == ":" and re.match(r"[A-Za-z]:[/\\]", name)):
        raise refusal(name, index, what, "has an absolute name")
    if ".." in name and ".." in re.split(r"[/\\]", name):
        raise refusal(name, index, what, "has a name that leads out of the archive")
    parts = tuple(name.split("/"))
    if "" in parts or "." in parts:
        parts = tuple(part for part in parts if part not in ("", "."))
    if len(name) > MAX_PART and (longest := max(map(len, parts), default=0)) > MAX_PART:
        raise refusal(name, index, what, f"has a name of {longest} characters; file systems allow {MAX_PART}")
    return parts


def shown(name: str) -> str:
    """A name for a message: on one line and shortened."""
    name = name if len(name) <= SHOWN_CHARACTERS else name[: SHOWN_CHARACTERS - 3] + "..."
    if name.isprintable():
        return name
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in name
    )


def refusal(name: str, index: int, what: str, problem: str, fix: str | None = None) -> ArchiveError:
    """The error for a member because of which the whole archive is refused."""
    return ArchiveError(
        f"member {index + 1:,} of the {what}, '{shown(name)}', {problem}",
        fix=fix or "pack the images' folder again with plain files in folders and nothing else, and send that",
        file=shown(name),
    )


def is_junk(parts: tuple[str, ...]) -> bool:
    """Whether a path is hidden or left by an operating system or a tool, so neither a class nor an image."""
    return any(map(_is_junk_folder, parts[:-1])) or _is_junk_name(parts[-1])


def _is_junk_name(name: str) -> bool:
    return name.startswith(".") or name.casefold() in JUNK


_is_junk_folder = lru_cache(maxsize=10_000)(_is_junk_name)  # a folder's name comes with each of its files


def suffix_of(name: str) -> str:
    """The suffix of a file's name with its dot, in lower case; "" if it has none."""
    stem, dot, suffix = name.rstrip(". ").rpartition(".")
    return f".{suffix.casefold()}" if dot and stem and "/" not in suffix else ""


def may_be_image(name: str) -> bool:
    """Whether a file may be an image by its name: an image's suffix, or no suffix."""
    base = name.rpartition("/")[2]
    suffix = suffix_of(base)
    if suffix in IMAGE_SUFFIXES or suffix in OTHER_IMAGE_SUFFIXES:
        return True
    return suffix == "" and base.casefold() not in TEXT_NAMES


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `class2` before `class10`; case decides last."""
    pieces = re.split(r"([0-9]+)", name.casefold())
    key = [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces if piece]
    return (*key, (2, 0, name))


@lru_cache(maxsize=10_000)
def class_name(name: str) -> str:
    """A class's name as it is stored: composed characters (macOS writes names decomposed), without outer blanks."""
    return unicodedata.normalize("NFC", name).strip()
