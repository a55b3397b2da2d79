"""Names in archives: their encoding where nothing says it, and what stands between their parts."""

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.importing import ImportOptions
from models.data.importing.layouts.layout import Layout
from models.data.importing.layouts.recognise import recognise
from models.data.importing.name_encodings import decode_names
from models.data.importing.opening import open_images

JPG = b"\xff\xd8\xff"
"""Names alone are looked at."""


class Bytes(zipfile.ZipInfo):
    """A member whose name is written as bytes without the flag for UTF-8, as old programs do."""

    def __init__(self, name: bytes, extra: bytes = b"") -> None:
        super().__init__(name.decode("cp437"))
        self.extra = extra

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  (zipfile's own)
        return self.filename.encode("cp437"), self.flag_bits


def zip_of(path: Path, *members: zipfile.ZipInfo) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for member in members:
            file.writestr(member, JPG)
    return path


def tar_of(path: Path, *names: bytes) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as file:
        for name in names:
            member = tarfile.TarInfo(name.decode("latin-1"))
            member.size = len(JPG)
            file.addfile(member, io.BytesIO(JPG))
    return path


def understood(path: Path) -> Layout:
    options = ImportOptions(name="photos")
    with open_images(path, path.parent, options) as source:
        return recognise(source, options)


def classes(layout: Layout) -> set[str]:
    return {one.label for one in layout.samples}


WRITTEN = {
    "shift-jis": ("cp932", ("猫", "犬", "表能"), "Shift-JIS"),  # 表 and 能 hold the byte of a backslash
    "kana": ("cp932", ("ネコ", "いぬ"), "Shift-JIS"),
    "gbk": ("gbk", ("汽车", "飞机", "鸟"), "GBK"),
    "euc-kr": ("cp949", ("고양이", "강아지", "정상"), "EUC-KR"),
    "big5": ("big5", ("汽車", "飛機", "貓"), "Big5"),
    "russian": ("cp866", ("Кошка", "собака"), "code page 866"),
    "russian of windows": ("cp1251", ("Кошка", "собака"), "Windows-1251"),
    "german": ("cp437", ("Äpfel", "Käse", "dog"), "code page 437"),
    "portuguese": ("cp850", ("maçã", "pão"), "code page 850"),
    "german of windows": ("cp1252", ("Äpfel", "Käse"), "Windows-1252"),
    "french of linux": ("latin-1", ("café", "maïs", "pêche"), "Windows-1252"),
    "macos": ("utf-8", ("Käse", "猫"), None),
    "two letters of russian": ("cp866", ("ёж", "як"), "code page 866"),
    "two letters of russian on windows": ("cp1251", ("уж", "Як"), "Windows-1251"),
    "one character of traditional chinese": ("big5", ("狗", "女"), "Big5"),
    "one character of simplified chinese": ("gbk", ("猫", "狗"), "GBK"),
    "one character of japanese": ("cp932", ("馬", "船"), "Shift-JIS"),
    "one syllable of korean": ("cp949", ("개", "말"), "EUC-KR"),
    "one accent of spanish": ("cp1252", ("león", "oso"), "Windows-1252"),
    "one accent of french": ("cp850", ("château", "maison"), "code page 437"),
    "a class beside a letter": ("gbk", ("类型A", "类型B"), "GBK"),
    "signs of full width": ("gbk", ("《照片》、一", "《照片》、二"), "GBK"),
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("written", WRITTEN)
def test_names_are_read_in_the_encoding_that_they_look_like_and_that_is_stated(
    tmp_path: Path, kind: str, written: str
) -> None:
    encoding, names, title = WRITTEN[written]
    raw = [f"{name}/{number}.jpg".encode(encoding) for name in names for number in range(2)]
    path = zip_of(tmp_path / "a.zip", *map(Bytes, raw)) if kind == "zip" else tar_of(tmp_path / "a.tar", *raw)
    layout = understood(path)
    assert classes(layout) == set(names)
    if title is None:
        assert layout.warnings == []
    else:
        (warning,) = layout.warnings
        assert f"they were read as {title}." in warning
        assert "UTF-8" in warning


def test_names_in_no_known_encoding_are_told(tmp_path: Path) -> None:
    layout = understood(zip_of(tmp_path / "a.zip", Bytes(b"\xfe\xff\xb0\x80/1.jpg"), Bytes(b"dog/1.jpg")))
    assert "could not be recognised" in layout.warnings[0]
    assert "dog" in classes(layout)


@given(st.lists(st.binary(min_size=1, max_size=12), max_size=6))
def test_any_bytes_become_a_name_each(raw: list[bytes]) -> None:
    names, warnings = decode_names(raw, "zip")
    assert len(names) == len(raw)
    assert all(names)
    assert len(warnings) <= 1


@pytest.mark.parametrize("right", [True, False])
def test_info_zips_name_in_utf_8_counts_if_it_is_of_this_name(tmp_path: Path, right: bool) -> None:
    raw = b"_/1.jpg"
    name = "猫/1.jpg".encode()
    field = struct.pack("<BI", 1, zlib.crc32(raw) if right else 0) + name
    extra = struct.pack("<HHB", 0x5455, 1, 0) + struct.pack("<HH", 0x7075, len(field)) + field
    layout = understood(zip_of(tmp_path / "a.zip", Bytes(raw, extra), Bytes(b"dog/1.jpg")))
    assert classes(layout) == {"猫" if right else "_", "dog"}
    assert layout.warnings == []


@pytest.mark.parametrize(
    "names",
    [
        ("cat\\1.jpg", "dog\\1.jpg"),
        ("cat\\1.jpg", "dog/1.jpg"),
        ("photos/cat\\1.jpg", "photos\\dog/1.jpg"),
        ("photos\\", "photos\\cat\\1.jpg", "photos/dog/1.jpg"),
    ],
)
def test_backslashes_are_between_folders_as_slashes_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"" if name.endswith("\\") else JPG)
    assert classes(understood(path)) == {"cat", "dog"}
