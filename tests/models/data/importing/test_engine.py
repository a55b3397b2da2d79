"""An import from the outside: files become a dataset that is as any other, or nothing at all."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.data.contents import fingerprint
from models.data.dataset import load_folder
from models.data.importing import ImportOptions, decoders, read_files
from models.data.importing.opening import open_images
from models.errors import ArchiveError, DataUnavailable
from tests.models.data.importing.archives import classes, counts, make_folder, make_tar, make_zip, png, run

CONTENTS = classes("cat", "dog", per_class=5, above="photos/")
MAKERS = {
    "folder": make_folder,
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda path, contents: make_tar(path, contents, "w:gz"),
    "tar.bz2": lambda path, contents: make_tar(path, contents, "w:bz2"),
    "tar.xz": lambda path, contents: make_tar(path, contents, "w:xz"),
}


def test_class_folders_become_a_dataset_as_any_other(tmp_path: Path) -> None:
    report = run(make_zip(tmp_path / "a.zip", CONTENTS), tmp_path / "photos" / "1", title="My photos")
    assert counts(report) == {"cat": (4, 0, 1), "dog": (4, 0, 1)}
    assert (report.layout, report.channels, report.image_size, report.num_images) == ("class folders", 3, 12, 10)
    dataset = load_folder(tmp_path / "photos" / "1")
    assert dataset.info.title == "My photos"
    assert dataset.info.class_names == ("cat", "dog")
    assert dataset.train_images.shape == (8, 3, 12, 12)
    assert dataset.test_images.shape == (2, 3, 12, 12)
    assert dataset.train_labels.tolist() == [0] * 4 + [1] * 4
    assert dataset.fingerprint == report.fingerprint
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["1"]


def test_every_image_is_found_under_its_id(tmp_path: Path) -> None:
    run(make_zip(tmp_path / "a.zip", CONTENTS), tmp_path / "1")
    dataset = load_folder(tmp_path / "1")
    images = np.concatenate([dataset.train_images, dataset.test_images])
    records = list(read_files(tmp_path / "1"))
    assert [record.id for record in records] == list(range(10))
    assert [record.split for record in records] == ["train"] * 8 + ["test"] * 2
    for record in records:
        stored = images[record.id].transpose(1, 2, 0)
        seed = list(CONTENTS).index(record.name)
        assert (stored == np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)).all()


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_source_gives_the_same_files(tmp_path: Path, kind: str) -> None:
    source = MAKERS[kind](tmp_path / "source", CONTENTS)
    with open_images(source, tmp_path, ImportOptions(name="x")) as opened:
        names = [entry.name for entry in opened.listing.entries]
        found = {names[number]: data for number, data in opened.contents(set(range(len(names))))}
    assert found == CONTENTS


def test_a_set_of_gray_images_keeps_one_channel_however_it_is_stored(tmp_path: Path) -> None:
    gray = {name: png(number, gray=True) for number, name in enumerate(CONTENTS)}
    assert run(make_zip(tmp_path / "a.zip", gray), tmp_path / "1").channels == 1


def test_one_image_in_colour_among_gray_ones_makes_three_channels(tmp_path: Path) -> None:
    mixed = {name: png(number, gray=number != 7) for number, name in enumerate(CONTENTS)}
    assert run(make_zip(tmp_path / "a.zip", mixed), tmp_path / "1").channels == 3
    images = np.concatenate([load_folder(tmp_path / "1").train_images, load_folder(tmp_path / "1").test_images])
    coloured = (images != images[:, :1]).any(axis=(1, 2, 3))
    assert coloured.sum() == 1


def test_broken_files_are_left_out_and_listed(tmp_path: Path) -> None:
    broken = {**CONTENTS, "photos/cat/broken.png": png()[:40], "photos/dog/page.jpg": b"<html></html>"}
    report = run(make_zip(tmp_path / "a.zip", broken), tmp_path / "1")
    assert report.num_images == 10
    assert report.num_skipped == 2
    assert {one.file for one in report.skipped} == {"photos/cat/broken.png", "photos/dog/page.jpg"}
    assert "is a web page" in next(one.reason for one in report.skipped if one.file == "photos/dog/page.jpg")
    assert len(load_folder(tmp_path / "1").train_images) == report.num_train


def test_a_broken_file_is_refused_if_that_is_asked_for(tmp_path: Path) -> None:
    broken = {**CONTENTS, "photos/cat/broken.png": png()[:40]}
    with pytest.raises(ArchiveError, match=r"broken\.png' is damaged") as caught:
        run(make_zip(tmp_path / "a.zip", broken), tmp_path / "sets" / "1", on_broken="refuse")
    assert caught.value.extra["file"] == "photos/cat/broken.png"
    assert list((tmp_path / "sets").iterdir()) == []


def test_an_empty_test_split_can_be_asked_for(tmp_path: Path) -> None:
    report = run(make_zip(tmp_path / "a.zip", CONTENTS), tmp_path / "1", test_fraction=0)
    assert (report.num_train, report.num_test) == (10, 0)
    assert load_folder(tmp_path / "1").test_images.shape == (0, 3, 12, 12)


def test_a_finished_import_gives_its_report_again(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", CONTENTS)
    first = run(archive, tmp_path / "1")
    archive.unlink()
    assert run(archive, tmp_path / "1") == first


def test_a_folder_that_is_not_whole_is_no_dataset(tmp_path: Path) -> None:
    run(make_zip(tmp_path / "a.zip", CONTENTS), tmp_path / "1")
    (tmp_path / "1" / "train_images.npy").write_bytes(b"")
    with pytest.raises(DataUnavailable, match="not whole"):
        load_folder(tmp_path / "1")


def test_a_file_that_ends_the_decoder_is_a_broken_file_and_the_import_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.importing.decoders.MODULE", "tests.models.data.importing.dying_decoder")
    started: list[subprocess.Popen[bytes]] = []
    start = decoders._start

    def counted() -> subprocess.Popen[bytes]:
        started.append(start())
        return started[-1]

    monkeypatch.setattr(decoders, "_start", counted)
    contents = {**CONTENTS, "photos/cat/2b.png": b"deadly", "photos/dog/0b.png": b"deadly"}
    report = run(make_zip(tmp_path / "a.zip", contents), tmp_path / "1", image_size=12)
    assert len(started) <= 5, "one to begin with, and two for each of the files, wherever they are in their batches"
    assert {one.file for one in report.skipped} == {"photos/cat/2b.png", "photos/dog/0b.png"}
    assert "is damaged, or needs more memory" in report.skipped[0].reason
    assert report.num_images == 10


def test_the_fingerprint_names_all_that_a_dataset_is(tmp_path: Path) -> None:
    plain = classes("cat", "dog", per_class=4)
    given = {name.replace("cat", "train/cat").replace("dog", "train/dog"): data for name, data in plain.items()}
    held_out = {name.replace("train/", "val/") if name.endswith("3.png") else name: given[name] for name in given}
    other = {
        name.replace("train/", "val/") if name.endswith(("2.png", "3.png")) else name: given[name] for name in given
    }
    renamed = {name.replace("dog", "hound"): data for name, data in plain.items()}
    found = {
        "plain": run(make_zip(tmp_path / "0.zip", plain), tmp_path / "0", test_fraction=0),
        "validation": run(make_zip(tmp_path / "1.zip", held_out), tmp_path / "1"),
        "other validation": run(make_zip(tmp_path / "2.zip", other), tmp_path / "2"),
        "groups": run(make_zip(tmp_path / "3.zip", plain), tmp_path / "3", test_fraction=0, group="([01])[.]png"),
        "other groups": run(make_zip(tmp_path / "4.zip", plain), tmp_path / "4", test_fraction=0, group="([02])[.]png"),
        "names": run(make_zip(tmp_path / "5.zip", renamed), tmp_path / "5", test_fraction=0),
        "fit": run(make_zip(tmp_path / "6.zip", plain), tmp_path / "6", test_fraction=0, fit="pad"),
    }
    assert len({report.fingerprint for report in found.values()}) == len(found)
    assert len({fingerprint(load_folder(tmp_path / str(number))) for number in range(7)}) == 1, "the same arrays"
    again = run(make_zip(tmp_path / "7.zip", held_out), tmp_path / "7")
    assert again.fingerprint == found["validation"].fingerprint


def test_classes_that_are_never_trained_on_are_named(tmp_path: Path) -> None:
    contents = {**classes("cat", "dog", above="train/"), **classes("cat", "emu", above="val/")}
    contents |= classes("dog", "fox", above="test/")
    report = run(make_zip(tmp_path / "a.zip", contents), tmp_path / "1")
    assert "only in the test split, so nothing is learned of them: 'fox'" in report.warnings
    assert "not among the images to train on, so nothing is learned of them: 'emu'" in report.warnings
