"""Tables as people and programs really write them, and names that only nearly agree with the files'."""

import json
import unicodedata
from pathlib import Path

import pytest

from models.errors import ArchiveError
from tests.models.data.importing.test_layouts import images, labels_of, left_out, understand, zipped

FILES = [f"img/{n}.jpg" for n in range(8)]
ROWS = [(f"{n}.jpg", "cat" if n % 2 else "dog") for n in range(8)]
WANTED = {name: "cat" if n % 2 else "dog" for n, name in enumerate(FILES)}


def archive(tmp_path: Path, table: str | bytes, name: str = "labels.csv", files: list[str] = FILES) -> Path:
    return zipped(tmp_path, {**images(*files), name: table.encode() if isinstance(table, str) else table})


def csv(rows: list[tuple[str, str]] = ROWS, header: str = "file,label", end: str = "\n") -> str:
    return header + end + "".join(f"{file},{label}{end}" for file, label in rows)


TABLES: dict[str, tuple[str, str | bytes]] = {
    "old Macintosh line ends": ("labels.csv", csv(end="\r")),
    "UTF-16 without a mark": ("labels.csv", csv().encode("utf-16-le")),
    "a comment above the header": ("labels.csv", "# exported 2026-11-26\n\n" + csv()),
    "Excel's line of the delimiter": ("labels.csv", "sep=;\r\n" + csv(end="\r\n").replace(",", ";")),
    "blanks around everything": ("labels.csv", csv([(f" {a} ", f" {b} ") for a, b in ROWS], " File Name , Class ")),
    "an index column": ("labels.csv", ",file,label\n" + "".join(f"{n},{a},{b}\n" for n, (a, b) in enumerate(ROWS))),
    "a comma too many": ("labels.csv", csv([(a, f"{b},") for a, b in ROWS])),
    "addresses": ("labels.csv", csv([(f"https://example.org/p/{a}?size=2", b) for a, b in ROWS], "url,label")),
    "paths of another machine": ("labels.csv", csv([(f"C:\\data\\img\\{a}", b) for a, b in ROWS])),
    "names of another format": ("labels.csv", csv([(a.replace("jpg", "png"), b) for a, b in ROWS])),
    "other capitals": ("labels.csv", csv([(a.upper(), b) for a, b in ROWS])),
    "a record for each file": ("labels.json", json.dumps([{"file": a, "label": b} for a, b in ROWS])),
    "a label for each file": ("labels.json", json.dumps(dict(ROWS))),
    "a column a class, as pandas writes it": (
        "train.csv",
        "id,cat,dog\n" + "".join(f"{a},{b == 'cat'},{b == 'dog'}\n" for a, b in ROWS),
    ),
    "records inside of an object": (
        "labels.json",
        json.dumps({"version": 1, "items": [{"file": a, "label": b} for a, b in ROWS]}),
    ),
    "lists of one label": ("metadata.jsonl", "".join(json.dumps({"file": a, "labels": [b]}) + "\n" for a, b in ROWS)),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_is_read_with(tmp_path: Path, what: str) -> None:
    name, table = TABLES[what]
    assert labels_of(archive(tmp_path, table, name)) == WANTED


def test_accents_may_be_composed_otherwise_in_the_table(tmp_path: Path) -> None:
    """macOS writes names decomposed; a spreadsheet does not."""
    names = [f"img/{unicodedata.normalize('NFD', 'é')}{n}.jpg" for n in range(8)]
    rows = [(f"é{n}.jpg", label) for n, (_, label) in enumerate(ROWS)]
    assert list(labels_of(archive(tmp_path, csv(rows), files=names)).values()).count("cat") == 4


def test_files_that_differ_in_capitals_alone_are_told_apart(tmp_path: Path) -> None:
    rows = [("A.jpg", "cat"), ("a.jpg", "dog"), ("b.jpg", "cat"), ("c.jpg", "dog")]
    found = labels_of(archive(tmp_path, csv(rows), files=["img/A.jpg", "img/a.jpg", "img/b.jpg", "img/c.jpg"]))
    assert found == {f"img/{a}": b for a, b in rows}


def test_numbers_that_pandas_made_fractions_of_are_whole_again(tmp_path: Path) -> None:
    found = labels_of(archive(tmp_path, csv([(a, f"{10 if b == 'cat' else 2}.0") for a, b in ROWS])))
    assert set(found.values()) == {"2", "10"}
    layout, plan, _ = understand(archive(tmp_path, csv([(a, f"{10 if b == 'cat' else 2}.0") for a, b in ROWS])))
    assert plan.class_names == ("2", "10")
    assert not layout.left_out


@pytest.mark.parametrize(
    ("header", "several"),
    [("file,labels", '"cat, dog"'), ("file,label", "cat|dog"), ("file,label", '"dog;cat"'), ("file,tags", "cat dog")],
)
def test_an_image_of_several_classes_is_left_out_by_name(tmp_path: Path, header: str, several: str) -> None:
    path = archive(tmp_path, csv([*ROWS[:7], ("7.jpg", several)], header))
    assert labels_of(path) == {name: label for name, label in WANTED.items() if name != "img/7.jpg"}
    assert "has several labels: " in left_out(path)["img/7.jpg"]


def test_one_hot_rows_of_several_classes_are_left_out_by_name(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{n % 2},{1 - n % 2 if n != 3 else 1}\n" for n in range(8))
    assert left_out(archive(tmp_path, "file,cat,dog\n" + rows)) == {
        "img/3.jpg": "has several labels: cat, dog in 'labels.csv'"
    }


def test_where_every_image_has_several_classes_that_is_said(tmp_path: Path) -> None:
    rows = [(file, ("cat dog", "dog haze", "cat haze")[n % 3]) for n, (file, _) in enumerate(ROWS)]
    with pytest.raises(ArchiveError, match=r"no image has a class: 'img/0\.jpg' has several labels: cat, dog"):
        understand(archive(tmp_path, csv(rows, "image_name,tags")))


def test_a_class_may_have_a_comma_in_its_name(tmp_path: Path) -> None:
    rows = [(file, '"tench, Tinca tinca"' if label == "cat" else '"goldfish, Carassius"') for file, label in ROWS]
    assert set(labels_of(archive(tmp_path, csv(rows))).values()) == {"tench, Tinca tinca", "goldfish, Carassius"}


def test_texts_in_place_of_labels_are_left_out_by_name(tmp_path: Path) -> None:
    path = archive(tmp_path, csv([*ROWS[:7], ("7.jpg", "a long story " * 100)]))
    assert "1 to 255 are a class's name" in left_out(path)["img/7.jpg"]


def test_a_folder_whose_name_is_blank_is_no_class(tmp_path: Path) -> None:
    path = zipped(tmp_path, images(" /1.jpg", "cat/1.jpg", "dog/1.jpg"))
    assert set(labels_of(path).values()) == {"cat", "dog"}
    assert "has a label of 0 characters" in left_out(path)[" /1.jpg"]


def test_a_spreadsheet_is_asked_for_as_csv(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError) as caught:
        understand(archive(tmp_path, b"PK\x03\x04", "labels.xlsx"))
    assert caught.value.fix == "save 'labels.xlsx' as CSV, with the columns file and label, and pack that"


def test_a_table_that_names_no_image_is_said_with_its_columns(tmp_path: Path) -> None:
    rows = [(f"IMG_{n}.png", label) for n, (_, label) in enumerate(ROWS)]
    with pytest.raises(ArchiveError) as caught:
        understand(archive(tmp_path, csv(rows, "picture,species")))
    assert str(caught.value.fix).startswith("'labels.csv' has the columns 'picture', 'species'")


def test_what_lies_among_the_images_and_is_none_is_named(tmp_path: Path) -> None:
    more = {"cat/clip.mp4": b"x", "dog/scan.pdf": b"x", "cat/notes.txt": b"x", "info.docx": b"x"}
    found = left_out(zipped(tmp_path, {**images("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"), **more}))
    assert found == {
        "cat/clip.mp4": "is not an image by its name (.mp4)",
        "dog/scan.pdf": "is not an image by its name (.pdf)",
    }


def test_notes_beside_images_in_class_folders_are_no_labels(tmp_path: Path) -> None:
    contents = images(*(f"{name}/{n}.jpg" for name in ("cat", "dog") for n in range(4)))
    notes = {f"{name.removesuffix('.jpg')}.txt": b"a photo" for name in contents}
    assert set(labels_of(zipped(tmp_path, {**contents, **notes})).values()) == {"cat", "dog"}


def test_names_that_end_with_blanks_or_dots(tmp_path: Path) -> None:
    found = labels_of(zipped(tmp_path, images("cat /1.jpg", "cat/2.jpg", "dog/3.jpg ", "dog/4.JPG.")))
    assert found == {"cat /1.jpg": "cat", "cat/2.jpg": "cat", "dog/3.jpg ": "dog", "dog/4.JPG.": "dog"}


def test_test_images_without_labels_beside_training_classes_are_left_out_by_name(tmp_path: Path) -> None:
    known = images(*(f"train/{name}/{n}.jpg" for name in ("cat", "dog") for n in range(3)))
    path = zipped(
        tmp_path, {**known, **images("test/1.jpg", "test/2.jpg"), "sample_submission.csv": b"id,label\n1,cat\n"}
    )
    assert set(labels_of(path).values()) == {"cat", "dog"}
    assert left_out(path) == dict.fromkeys(("test/1.jpg", "test/2.jpg"), "is not in a class folder")


def test_a_training_split_of_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="training split has images of fewer than two classes, of 2 in all"):
        understand(zipped(tmp_path, images("train/cat/1.jpg", "train/cat/2.jpg", "test/dog/1.jpg")))


def test_more_classes_than_any_dataset_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.importing.plan.MAX_CLASSES", 6)
    rows = [(file, f"caption {n}") for n, (file, _) in enumerate(ROWS)]
    with pytest.raises(ArchiveError, match="8 classes for 8 images, and at most 6") as caught:
        understand(archive(tmp_path, csv(rows)))
    assert "captions" in str(caught.value.fix)


def test_names_that_training_and_test_images_share_are_those_of_the_tables_split(tmp_path: Path) -> None:
    files = images(*(f"{split}/{n}.jpg" for split in ("train", "test") for n in range(8)))
    train, test = (
        csv([(str(n), label) for n, (_, label) in enumerate(ROWS)], "id,label"),
        csv([("3", "emu")], "id,label"),
    )
    one = zipped(tmp_path, {**files, "labels.csv": train.encode()})
    assert labels_of(one) == {f"train/{n}.jpg": label for n, (_, label) in enumerate(ROWS)}
    both = zipped(tmp_path, {**files, "train.csv": train.encode(), "test.csv": test.encode()})
    assert labels_of(both) == {f"train/{n}.jpg": label for n, (_, label) in enumerate(ROWS)} | {"test/3.jpg": "emu"}


def test_images_to_predict_do_not_count_against_a_table_however_many(tmp_path: Path) -> None:
    """Kaggle's Dog Breed Identification has 10,222 labelled images in train and 10,357 others in test."""
    files = images(*(f"train/{n:x}.jpg" for n in range(8)), *(f"test/{n:x}.jpg" for n in range(100, 140)))
    path = zipped(
        tmp_path,
        {**files, "labels.csv": csv([(f"{n:x}", label) for n, (_, label) in enumerate(ROWS)], "id,breed").encode()},
    )
    assert len(labels_of(path)) == 8
    assert len(left_out(path)) == 40


def test_a_table_without_the_zeros_before_its_numbers(tmp_path: Path) -> None:
    """As a spreadsheet saves it."""
    files = [f"img/{n:05d}.jpg" for n in range(8)]
    rows = [(str(n), label) for n, (_, label) in enumerate(ROWS)]
    assert labels_of(archive(tmp_path, csv(rows, "id,label"), files=files)) == {
        name: label for name, (_, label) in zip(files, ROWS, strict=True)
    }


def test_numbers_that_two_files_have_name_none(tmp_path: Path) -> None:
    files = [*FILES[1:], "img/01.jpg", "img/001.jpg", "img/0.jpg"]
    table = csv([(str(n), label) for n, (_, label) in enumerate(ROWS)], "id,label")
    named = labels_of(archive(tmp_path, table, files=files))
    assert "img/1.jpg" in named
    assert not {"img/01.jpg", "img/001.jpg"} & set(named)
