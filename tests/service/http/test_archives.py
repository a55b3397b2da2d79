"""Zips from anywhere: what is no plain file below the zip's top is refused, and the refusal names it."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, TooLarge
from service.http.archives import MAX_ENTRIES, open_archive
from service.http.errors import BadRequest

Member = tuple[str | zipfile.ZipInfo, bytes]


def make_zip(*members: Member, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def unpack(data: bytes, max_members: int = 4, max_bytes: int = 1000) -> list[tuple[str, bytes]]:
    return open_archive(data, max_members=max_members, max_bytes=max_bytes).unpack()


def with_mode(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def test_files_come_in_their_order_and_folders_and_what_systems_leave_are_passed_over() -> None:
    made = make_zip(
        ("photos/", b""),
        ("photos/b.png", b"b" * 50),
        ("__MACOSX/photos/._b.png", b"x"),
        ("photos/.DS_Store", b"x"),
        ("a.png", b"a"),
        (".DS_Store", b"x"),
        ("photos/._b.png", b"x"),
        ("photos/Thumbs.db", b"x"),
        ("desktop.ini", b"x"),
        ("caf\u00e9/\u732b.png", b""),
    )
    assert unpack(made) == [("photos/b.png", b"b" * 50), ("a.png", b"a"), ("caf\u00e9/\u732b.png", b"")]
    assert unpack(b"in front of it" + make_zip(("a", b"a"), compression=zipfile.ZIP_STORED)) == [("a", b"a")]


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("/etc/passwd", b"x"), "absolute name"),
        (("C:/x.png", b"x"), "absolute name"),
        (("c:x.png", b"x"), "absolute name"),
        (("\\\\host\\x.png", b"x"), "absolute name"),
        (("../x.png", b"x"), "leads out"),
        (("a/../../x.png", b"x"), "leads out"),
        (("a\\..\\x.png", b"x"), "leads out"),
        (("..", b"x"), "leads out"),
        ((with_mode("a/../b/", stat.S_IFDIR), b""), "leads out"),
        ((with_mode("link.png", stat.S_IFLNK | 0o777), b"/etc/passwd"), "is a link"),
        ((with_mode("pipe.png", stat.S_IFIFO), b""), "is not a file"),
        ((with_mode("disk.png", stat.S_IFBLK), b""), "is not a file"),
        (("inner.zip", make_zip(("a.png", b"x"))), "is a zip itself"),
        (("empty.png", make_zip()), "is a zip itself"),
        (("n" * 1001, b"x"), "no name"),
    ],
)
def test_the_member_that_is_refused_is_named(member: Member, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as raised:
        unpack(make_zip(("good.png", b"good"), member))
    name = member[0] if isinstance(member[0], str) else member[0].filename
    assert raised.value.detail.startswith("member 2 of the zip, ")
    assert raised.value.extra["image"][:100] == name[:100]
    assert raised.value.extra["index"] == 1


def test_a_bomb_is_refused_by_what_it_says_of_itself() -> None:
    bomb = make_zip(("small.png", b"x"), ("bomb.png", b"\0" * 5_000_000))
    with pytest.raises(TooLarge, match=r"'bomb.png' \(5,000,000 bytes\)"):
        unpack(bomb)
    many = make_zip(*((f"{number}.png", b"\0" * 300) for number in range(4)))
    with pytest.raises(TooLarge, match=r"'3.png'"):
        unpack(many)


def test_a_bomb_that_lies_about_its_size_is_cut_off_at_that_size() -> None:
    bomb = bytearray(make_zip(("bomb.png", b"\0" * 5_000_000)))
    for head, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", bomb, bomb.index(head) + place, 10)
    archive = open_archive(bytes(bomb), max_members=4, max_bytes=1000)
    assert archive.num_bytes == 10
    with pytest.raises(InvalidRequest, match=r"'bomb.png', cannot be unpacked"):
        archive.unpack()


def test_too_many_members_are_refused_and_the_first_beyond_is_named() -> None:
    with pytest.raises(TooLarge, match=r"'4.png' is one too many"):
        unpack(make_zip(*((f"{number}.png", b"") for number in range(6))))
    with pytest.raises(TooLarge, match=f"more than {MAX_ENTRIES:,} members"):
        unpack(b"PK\x01\x02" * (MAX_ENTRIES + 1))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_ways_of_compression_that_are_not_read_are_named(compression: int) -> None:
    with pytest.raises(InvalidRequest, match=r"'a.png', is compressed in a way"):
        unpack(make_zip(("a.png", b"x" * 100), compression=compression))


def test_an_encrypted_member_is_named() -> None:
    made = bytearray(make_zip(("a.png", b"x")))
    made[made.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InvalidRequest, match=r"'a.png', is encrypted"):
        unpack(bytes(made))


def test_a_name_twice_and_a_zip_without_files_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        made = make_zip(("a.png", b"x"), ("a.png", b"y"))
    with pytest.raises(InvalidRequest, match=r"member 2 of the zip, 'a.png', occurs twice"):
        unpack(made)
    for empty in (make_zip(), make_zip(("folder/", b"")), make_zip(("__MACOSX/._a", b"x"))):
        with pytest.raises(InvalidRequest, match="holds no files"):
            unpack(empty)


def test_a_damaged_member_is_named() -> None:
    made = bytearray(make_zip(("a.png", bytes(range(200)) * 2)))
    made[45] ^= 0xFF
    with pytest.raises(InvalidRequest, match=r"member 1 of the zip, 'a.png', cannot be unpacked"):
        unpack(bytes(made))


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"PK\x05\x06", b"hello", make_zip(("a", b"x"))[:-10]],
    ids=["empty", "two letters", "end record", "text", "cut off"],
)
def test_what_is_no_zip_is_a_broken_body(data: bytes) -> None:
    with pytest.raises(BadRequest, match="not a zip"):
        unpack(data)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["a", "../a", "/a", "a/", ""])
members = st.lists(st.tuples(names, st.binary(max_size=40)), max_size=5)
changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(members, changes)
def test_no_bytes_whatever_are_a_fault_of_the_server(found: Sequence[Any], damage: Sequence[tuple[int, int]]) -> None:
    data = bytearray(make_zip(*((name, content) for name, content in found if name)))
    for place, value in damage:
        data[place % len(data)] = value
    try:
        unpacked = unpack(bytes(data))
    except (BadRequest, InvalidRequest, TooLarge):
        return
    assert len(unpacked) <= 4
    assert sum(len(content) for _, content in unpacked) <= 1000
    assert all(".." not in name.split("/") and not name.startswith("/") for name, _ in unpacked)


def test_checksums_are_checked() -> None:
    made = bytearray(make_zip(("a.png", b"x" * 30), compression=zipfile.ZIP_STORED))
    assert struct.unpack_from("<I", made, 14)[0] == zlib.crc32(b"x" * 30)
    made[made.index(b"x" * 30)] = ord("y")
    with pytest.raises(InvalidRequest, match="CRC"):
        unpack(bytes(made))
