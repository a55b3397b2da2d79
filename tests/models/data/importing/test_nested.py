"""Archives inside of an archive are read as folders: shards of WebDataset, `train.zip` beside `test.zip`."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from models.data.dataset import load_folder
from models.data.importing import ImportOptions, read_files
from models.data.importing import source as limits
from models.data.importing.layouts.recognise import recognise
from models.data.importing.opening import open_images
from models.errors import ArchiveError
from tests.models.data.importing.archives import (
    Contents,
    classes,
    counts,
    make_folder,
    make_tar,
    make_zip,
    png,
    run,
)


def packed(tmp_path: Path, make: Callable[[Path, Contents], Path], contents: Contents) -> bytes:
    """An archive as bytes, to be put into another one."""
    path = make(tmp_path / "inner", contents)
    data = path.read_bytes()
    path.unlink()
    return data


def shards(tmp_path: Path, *names: str) -> dict[str, bytes]:
    """WebDataset shards, each with the same four keys, as its writer numbers them."""
    found = {}
    for shard, name in enumerate(names):
        samples: dict[str, bytes] = {}
        for key in range(4):
            samples |= {f"{key:06d}.png": png(10 * shard + key), f"{key:06d}.cls": str(key % 2).encode()}
        found[name] = packed(tmp_path, make_tar, samples)
    return found


def to_tar_gz(path: Path, contents: Contents) -> Path:
    return make_tar(path, contents, "w:gz")


@pytest.mark.parametrize("make", [make_folder, make_zip, make_tar, to_tar_gz])
def test_shards_of_webdataset_together(tmp_path: Path, make: Callable[[Path, Contents], Path]) -> None:
    inside = shards(tmp_path, "set/shard-000000.tar", "set/shard-000001.tar", "set/shard-000002.tar")
    report = run(make(tmp_path / "source", inside), tmp_path / "1", test_fraction=0)
    assert report.layout == "WebDataset"
    assert counts(report) == {"0": (6, 0, 0), "1": (6, 0, 0)}
    names = {record.name for record in read_files(tmp_path / "1")}
    assert "set/shard-000002.tar/000003.png" in names
    images = load_folder(tmp_path / "1").train_images
    assert len({image.tobytes() for image in images}) == 12


def test_names_of_shards_say_their_split(tmp_path: Path) -> None:
    inside = shards(tmp_path, "imagenet-train-000000.tar", "imagenet-train-000001.tar", "imagenet-val-000000.tar")
    report = run(make_zip(tmp_path / "a.zip", inside), tmp_path / "1", image_size=12)
    assert counts(report) == {"0": (4, 2, 0), "1": (4, 2, 0)}


def test_train_and_test_as_zips_beside_each_other(tmp_path: Path) -> None:
    inside = {
        "train.zip": packed(tmp_path, make_zip, classes("cat", "dog")),
        "test.tar.gz": packed(tmp_path, to_tar_gz, classes("cat", "dog", per_class=1)),
    }
    report = run(make_zip(tmp_path / "a.zip", inside), tmp_path / "1", image_size=12)
    assert counts(report) == {"cat": (3, 0, 1), "dog": (3, 0, 1)}


def test_an_archive_a_class(tmp_path: Path) -> None:
    inside = {f"{name}.zip": packed(tmp_path, make_zip, {f"{n}.png": png(n) for n in range(3)}) for name in ("a", "b")}
    assert set(counts(run(make_zip(tmp_path / "x.zip", inside), tmp_path / "1", image_size=12))) == {"a", "b"}


def test_one_archive_in_another_is_looked_through(tmp_path: Path) -> None:
    inside = {"photos.zip": packed(tmp_path, make_zip, classes("cat", "dog", above="photos/"))}
    assert set(counts(run(make_zip(tmp_path / "x.zip", inside), tmp_path / "1", image_size=12))) == {"cat", "dog"}


def test_a_table_names_images_of_an_archive_beside_it(tmp_path: Path) -> None:
    table = b"file,label\n" + b"".join(b"%d.png,%s\n" % (n, b"cat" if n % 2 else b"dog") for n in range(6))
    inside = {"labels.csv": table, "images.zip": packed(tmp_path, make_zip, {f"{n}.png": png(n) for n in range(6)})}
    assert counts(run(make_zip(tmp_path / "x.zip", inside), tmp_path / "1", test_fraction=0)) == {
        "cat": (3, 0, 0),
        "dog": (3, 0, 0),
    }


def test_a_broken_image_in_an_inner_archive_is_named_with_it(tmp_path: Path) -> None:
    inside = {"photos.zip": packed(tmp_path, make_zip, {**classes("cat", "dog"), "cat/bad.png": png()[:40]})}
    report = run(make_zip(tmp_path / "x.zip", inside), tmp_path / "1", image_size=12)
    assert [one.file for one in report.skipped] == ["photos.zip/cat/bad.png"]


INSIDE: Mapping[str, Callable[[Path], bytes]] = {
    "is neither a zip nor a tar": lambda tmp_path: b"<html>no archive</html>",
    "is empty": lambda tmp_path: b"",
    "the zip cannot be read": lambda tmp_path: packed(tmp_path, make_zip, classes("cat", "dog"))[:200],
    "leads out": lambda tmp_path: packed(tmp_path, make_zip, {"../../1.png": png()}),
    "only those of one level": lambda tmp_path: packed(
        tmp_path, make_zip, {"more.zip": packed(tmp_path, make_zip, classes("cat", "dog"))}
    ),
}


@pytest.mark.parametrize("said", INSIDE)
def test_what_is_wrong_in_an_inner_archive_is_said_with_its_name(tmp_path: Path, said: str) -> None:
    archive = make_zip(tmp_path / "a.zip", {**classes("ant", "bee"), "in/dogs.zip": INSIDE[said](tmp_path)})
    with pytest.raises(ArchiveError) as caught:
        run(archive, tmp_path / "sets" / "1")
    assert said in caught.value.detail
    assert "dogs.zip" in caught.value.detail
    assert str(caught.value.extra["file"]).startswith("in/dogs.zip")
    assert caught.value.fix
    assert list((tmp_path / "sets").iterdir()) == []


def test_limits_hold_for_all_archives_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {f"{name}.zip": packed(tmp_path, make_zip, classes("cat", "dog")) for name in ("train", "test")}
    archive = make_zip(tmp_path / "a.zip", inside)
    monkeypatch.setattr(limits, "MAX_ENTRIES", 10)
    with pytest.raises(ArchiveError, match="more than 10 files"):
        run(archive, tmp_path / "1")
    monkeypatch.undo()
    zeros = {f"{name}.zip": packed(tmp_path, deflated, {"pad.bin": bytes(100_000)}) for name in ("train", "test")}
    monkeypatch.setattr(limits, "FREE_RATIO_BYTES", 150_000)
    monkeypatch.setattr(limits, "MAX_RATIO", 2)
    with pytest.raises(ArchiveError, match="unpacks to more") as caught:
        run(make_zip(tmp_path / "b.zip", zeros), tmp_path / "1")
    assert caught.value.extra["file"] == "test.zip/pad.bin"


def deflated(path: Path, contents: Contents) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in contents.items():
            file.writestr(name, data)
    return path


def test_what_systems_leave_is_no_inner_archive(tmp_path: Path) -> None:
    contents = {**classes("cat", "dog"), "__MACOSX/._dogs.zip": b"x", ".hidden.tar": b"x"}
    options = ImportOptions(name="photos")
    with open_images(make_zip(tmp_path / "a.zip", contents), tmp_path, options) as source:
        assert len(recognise(source, options).samples) == 6


def test_nothing_that_was_copied_out_stays_in_the_dataset(tmp_path: Path) -> None:
    inside = shards(tmp_path, "0.tar", "1.tar")
    run(make_zip(tmp_path / "a.zip", inside), tmp_path / "1")
    assert all(path.is_file() for path in (tmp_path / "1").iterdir())
