"""Archives that are damaged or made to do harm: refused with the member's name, and nothing is left behind."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data.importing import ImportOptions, import_archive
from models.data.importing import source as limits
from models.data.importing.layouts.recognise import recognise
from models.data.importing.names import MAX_PART, is_junk, natural_key, parts_of, split_of
from models.data.importing.opening import open_images
from models.data.importing.plan import make_plan
from models.errors import ArchiveError, EpochalError, StorageFull
from tests.models.data.importing.archives import Contents, classes, make_folder, make_tar, make_zip, run

GOOD = classes("cat", "dog")


def refused(tmp_path: Path, archive: Path) -> ArchiveError:
    """The error that an import of this archive ends with; nothing is left where the dataset would be."""
    with pytest.raises(ArchiveError) as caught:
        run(archive, tmp_path / "sets" / "1")
    assert list((tmp_path / "sets").iterdir()) == []
    assert caught.value.fix
    return caught.value


def zip_with(path: Path, member: zipfile.ZipInfo, data: bytes = b"x") -> Path:
    """A zip of good images with one more member."""
    make_zip(path, GOOD)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(member, data)
    return path


def tar_with(path: Path, member: tarfile.TarInfo, data: bytes = b"") -> Path:
    """A tar of good images with one more member."""
    make_tar(path, GOOD)
    with tarfile.open(path, "a") as file:
        member.size = len(data)
        file.addfile(member, io.BytesIO(data))
    return path


NAMES = {
    "/etc/1.png": "absolute",
    "C:/photos/1.png": "absolute",
    "../../1.png": "leads out",
    "cat/../../1.png": "leads out",
    "cat/..\\..\\1.png": "leads out",
    "cat/" + "x" * 300 + ".png": "has a name of 304 characters",
    "/".join(["x" * 100] * 11): "has a path of 1,110 characters",
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_or_that_no_disk_takes(tmp_path: Path, kind: str, name: str) -> None:
    archive = {"zip": make_zip, "tar": make_tar}[kind](tmp_path / "a", {**GOOD, name: b"x"})
    error = refused(tmp_path, archive)
    assert NAMES[name] in error.detail
    assert "member 7" in error.detail
    said = name.replace("\\", "/") if kind == "zip" else name  # where a backslash is a slash
    assert error.extra["file"][:20] == said[:20]


def test_a_name_of_255_characters_in_a_long_path_is_read(tmp_path: Path) -> None:
    deep = classes("猫" * MAX_PART, "dog", above="a/" * 100)
    with open_images(make_zip(tmp_path / "a.zip", deep), tmp_path, ImportOptions(name="x")) as source:
        assert len(recognise(source, ImportOptions(name="x")).samples) == 6


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("cat/link.png")
    member.type, member.linkname = kind, "cat/0.png"
    assert "'cat/link.png', is a link" in refused(tmp_path, tar_with(tmp_path / "a.tar", member)).detail


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_devices_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("cat/pipe.png")
    member.type = kind
    assert "is not a file" in refused(tmp_path, tar_with(tmp_path / "a.tar", member)).detail


def test_sparse_members_of_a_tar(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cat/sparse.png")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    archive = tar_with(tmp_path / "a.tar", member, b"1\n0\n0\n".ljust(512, b"\0"))
    assert "sparse" in refused(tmp_path, archive).detail


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("cat/link.png")
    member.external_attr = 0o120777 << 16
    assert "is a link" in refused(tmp_path, zip_with(tmp_path / "a.zip", member)).detail


def test_a_link_in_a_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", GOOD)
    (folder / "cat" / "link.png").symlink_to("/etc/passwd")
    assert "'cat/link.png', is a link" in refused(tmp_path, folder).detail


def test_an_encrypted_zip(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "a.zip", GOOD).read_bytes())
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(head) + flags] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    error = refused(tmp_path, tmp_path / "a.zip")
    assert "'cat/0.png', is encrypted" in error.detail
    assert "without a password" in str(error.fix)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    assert (
        "'cat/0.png', occurs twice"
        in refused(tmp_path, zip_with(tmp_path / "a.zip", zipfile.ZipInfo("cat/0.png"))).detail
    )
    assert "occurs twice" in refused(tmp_path, tar_with(tmp_path / "a.tar", tarfile.TarInfo("./cat/0.png"))).detail


@pytest.mark.parametrize("name", ["x/y.7z", "cats.rar"])
def test_archives_in_archives_of_kinds_that_are_not_read(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, make_zip(tmp_path / "a.zip", {**GOOD, name: b"PK\x03\x04"}))
    assert f"'{name}' in the zip is an archive of a kind that is not read" in error.detail


def test_more_files_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ENTRIES", 5)
    for archive in (
        make_zip(tmp_path / "a.zip", GOOD), make_tar(tmp_path / "a.tar", GOOD), make_folder(tmp_path / "f", GOOD)
    ):  # fmt: skip
        assert "more than 5 files" in refused(tmp_path, archive).detail


def test_a_zip_that_says_it_holds_ten_million_files_costs_no_time(tmp_path: Path) -> None:
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF, 0, 0)
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 10_000_000, 10_000_000, 460_000_000, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, 0, 1)
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + end64 + locator + end)
    assert "more than 500,000 files" in refused(tmp_path, tmp_path / "a.zip").detail


def test_what_unpacks_to_more_than_images_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE_RATIO_BYTES", 100_000)
    bomb = {**GOOD, "cat/bomb.png": bytes(10_000_000)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in bomb.items():
            file.writestr(name, data)
    make_tar(tmp_path / "a.tgz", bomb, "w:gz")
    for name in ("a.zip", "a.tgz"):
        error = refused(tmp_path, tmp_path / name)
        assert "200 times as much" in error.detail
        assert error.extra["file"] == "cat/bomb.png"


def test_members_that_overlap(tmp_path: Path) -> None:
    """One content of a million bytes under many names (Fifield 2019, A better zip bomb)."""
    make_zip(tmp_path / "a.zip", {"cat/1.png": os.urandom(100_000), "dog/1.png": b"x"})
    data = (tmp_path / "a.zip").read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[start : data.index(b"PK\x01\x02", start + 4)]
    more = b"".join(entry.replace(b"cat/1.png", b"cat/%05d"[:9] % n) for n in range(10000, 10050))
    directory = data[start:end] + more
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 52, 52, len(directory), start, 0)
    (tmp_path / "a.zip").write_bytes(data[:start] + directory + tail)
    assert "overlap" in refused(tmp_path, tmp_path / "a.zip").detail


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_an_archive_that_was_cut_off(tmp_path: Path, kind: str, kept: float) -> None:
    makers = {"zip": make_zip, "tar": make_tar, "tgz": lambda path, contents: make_tar(path, contents, "w:gz")}
    archive = makers[kind](tmp_path / "a", GOOD)
    data = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(data[: int(kept * len(data))])
    assert "send it again" in str(refused(tmp_path, archive).fix)


def test_a_tar_that_was_cut_off_between_two_members(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", GOOD)
    archive.write_bytes(archive.read_bytes()[: 4 * 1024])
    assert "send it again" in str(refused(tmp_path, archive).fix)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"hello", "neither a zip nor a tar"),
        (b"Rar!\x1a\x07\x00", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"<html>", "neither a zip nor a tar"),
        (gzip.compress(b"PK\x03\x04" + bytes(9), mtime=0), "a compressed file, and what is compressed in it is no tar"),
        (bz2.compress(b""), "a compressed file, and what is compressed in it is no tar"),
        (lzma.compress(b"hello" * 200), "a compressed file, and what is compressed in it is no tar"),
        (gzip.compress(bytes(5000), mtime=0)[:20], "the tar cannot be read"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "photos.zip").write_bytes(data)
    assert what in refused(tmp_path, tmp_path / "photos.zip").detail


def test_a_damaged_member_of_a_zip_is_a_broken_file_as_any_other(tmp_path: Path) -> None:
    data = bytearray(make_zip(tmp_path / "a.zip", GOOD).read_bytes())
    data[data.index(GOOD["cat/1.png"]) + 20] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    report = run(tmp_path / "a.zip", tmp_path / "1")
    assert [one.file for one in report.skipped] == ["cat/1.png"]
    assert "cannot be unpacked" in report.skipped[0].reason


def test_when_all_of_a_class_is_broken_it_is_no_class(tmp_path: Path) -> None:
    report = run(make_zip(tmp_path / "a.zip", {**GOOD, "bird/1.png": b"x", "bird/2.png": b"y"}), tmp_path / "1")
    assert [one.name for one in report.classes] == ["cat", "dog"]
    assert any("none of their images can be read" in warning and "bird" in warning for warning in report.warnings)


def test_when_too_little_can_be_read_nothing_is_made(tmp_path: Path) -> None:
    contents = {"cat/1.png": b"x", "cat/2.png": b"y", "dog/1.png": GOOD["dog/1.png"], "dog/2.png": GOOD["dog/2.png"]}
    assert "only those of 'dog' can be read" in refused(tmp_path, make_zip(tmp_path / "a.zip", contents)).detail


def test_when_nothing_to_train_on_can_be_read_nothing_is_made(tmp_path: Path) -> None:
    held_out = {f"val/{name}": data for name, data in GOOD.items()}
    contents = {**held_out, "train/cat/1.png": b"x", "train/dog/1.png": b"y"}
    error = refused(tmp_path, make_zip(tmp_path / "a.zip", contents))
    assert "none of the images to train on can be read, only those that are held out for validation" in error.detail


def test_a_full_disk_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    with pytest.raises(StorageFull, match="6 images of 12 pixels take"):
        run(make_zip(tmp_path / "a.zip", GOOD), tmp_path / "sets" / "1")
    assert list((tmp_path / "sets").iterdir()) == []


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """The kernel refuses this process and its decoders any file beyond so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_at_any_moment_leaves_nothing_half_made(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", classes("cat", "dog", per_class=20)).read_bytes()
    archive = make_zip(tmp_path / "a.zip", {"inner.zip": inner})
    ended = []
    for limit in (0, 200, 1500, len(inner) - 1, len(inner)):
        with files_up_to(limit), pytest.raises(StorageFull) as caught:
            run(archive, tmp_path / "sets" / "1", image_size=48)
        assert list((tmp_path / "sets").iterdir()) == [], limit
        ended.append(caught.value.detail)
    assert "the archives inside cannot be copied" in ended[0]
    assert "train_images.npy cannot be written" in ended[-1]
    assert run(archive, tmp_path / "sets" / "1", image_size=48).num_images == 40


def test_a_row_that_cannot_be_written_is_a_full_disk_and_no_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.importing.decoders.MODULE", "tests.models.data.importing.decoder_of_a_full_disk")
    with pytest.raises(StorageFull, match="the dataset cannot be kept"):
        run(make_zip(tmp_path / "a.zip", GOOD), tmp_path / "sets" / "1")
    assert list((tmp_path / "sets").iterdir()) == []


# Any names at all

PARTS = st.one_of(
    st.sampled_from(
        ["cat", "dog", "train", "test", "val", "..", ".", "", ".x", "__MACOSX", "1.png", "a.csv", "x" * 300]
    ),
    st.text(max_size=8),
)


@settings(max_examples=100)
@given(st.lists(PARTS, min_size=1, max_size=5).map("/".join))
def test_a_name_is_refused_or_stays_inside(name: str) -> None:
    try:
        parts = parts_of(name, 0, "zip")
    except ArchiveError:
        return
    assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)
    assert not name.startswith("/")


@settings(max_examples=100)
@given(st.lists(st.text(max_size=6), max_size=8))
def test_natural_order_is_total_and_the_same_from_any_start(names: list[str]) -> None:
    once = sorted(set(names), key=natural_key)
    backwards = once[::-1]
    assert once == sorted(backwards, key=natural_key)


TREES = st.dictionaries(
    st.lists(PARTS.filter(lambda part: part not in ("", ".", "..")), min_size=1, max_size=4).map("/".join),
    st.sampled_from([b"\x89PNG", b"", b"file,label\n1.png,cat\n", b'{"file_name": "1.png", "label": 3}', b"[]"]),
    min_size=1,
    max_size=8,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES)
def test_any_tree_of_files_is_understood_or_refused(tmp_path: Path, tree: Contents) -> None:
    options = ImportOptions(name="x")
    buffer = tmp_path / "any.zip"
    try:
        make_zip(buffer, tree)
    except (IndexError, ValueError):
        return  # no zip has such names
    try:
        with open_images(buffer, tmp_path, options) as source:
            entries = source.listing.entries
            layout = recognise(source, options)
            plan = make_plan(layout, entries, options)
    except EpochalError:
        return
    taken = [entries[number].name for number in plan.entries]
    assert len(set(taken)) == len(taken)
    assert not any(is_junk(tuple(name.split("/"))) for name in taken)
    assert len(plan.class_names) >= 2
    assert set(plan.labels.tolist()) == set(range(len(plan.class_names)))
    splits = {name.split("/")[0] for name in tree if split_of(name.split("/")[0])}
    if layout.name.startswith("folders of splits"):
        assert not splits & set(plan.class_names)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["zip", "tar"]), st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6))
def test_a_damaged_archive_is_read_or_refused_and_nothing_else(
    tmp_path: Path, kind: str, changes: list[tuple[int, int]]
) -> None:
    path = tmp_path / f"good.{kind}"
    if not path.exists():
        {"zip": make_zip, "tar": make_tar}[kind](path, GOOD)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    damaged = tmp_path / f"damaged.{kind}"
    damaged.write_bytes(data)
    options = ImportOptions(name="x")
    try:
        with open_images(damaged, tmp_path, options) as source:
            layout = recognise(source, options)
            plan = make_plan(layout, source.listing.entries, options)
            list(source.contents({int(number) for number in plan.entries}))
    except EpochalError:
        return


# Stopped and taken up again


class Stopped(Exception):
    """What a worker raises when it has to end."""


def test_a_stopped_import_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.importing.reading.BATCH_IMAGES", 5)
    monkeypatch.setattr("models.data.importing.reading.PROGRESS_SECONDS", 0)
    monkeypatch.setattr("models.data.importing.reading.RECORD_SECONDS", 0)
    archive = make_zip(tmp_path / "a.zip", classes("cat", "dog", per_class=20))
    options = ImportOptions(name="photos", threads=1)
    started_at = []

    def stop(what: str, done: int, total: int) -> None:
        if what == "reading images":
            started_at.append(done)
            if done >= 20:
                raise Stopped

    with pytest.raises(Stopped):
        import_archive(archive, tmp_path / "sets" / "1", options, stop)
    assert {path.name for path in (tmp_path / "sets").iterdir()} == {".1.importing"}
    reached, started_at[:] = started_at[-1], []

    def watch(what: str, done: int, total: int) -> None:
        if what == "reading images":
            started_at.append(done)

    report = import_archive(archive, tmp_path / "sets" / "1", options, watch)
    assert started_at[0] >= reached - 10
    assert report == run(archive, tmp_path / "anew")
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["1"]


def test_a_stopped_import_of_other_files_begins_again(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == "measuring the pixels":
            raise Stopped

    first = make_zip(tmp_path / "a.zip", GOOD)
    options = ImportOptions(name="photos", threads=1)
    with pytest.raises(Stopped):
        import_archive(first, tmp_path / "sets" / "1", options, stop)
    other = make_zip(tmp_path / "b.zip", classes("ant", "bee", per_class=5))
    report = import_archive(other, tmp_path / "sets" / "1", options, lambda what, done, total: None)
    assert report.fingerprint == run(other, tmp_path / "anew").fingerprint
