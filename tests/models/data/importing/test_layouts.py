"""Layouts: archives as the tools write them, and what is understood of them. Nothing is decoded here."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.data import grouping
from models.data.importing import ImportOptions
from models.data.importing.layouts.layout import Layout
from models.data.importing.layouts.recognise import recognise
from models.data.importing.opening import open_images
from models.data.importing.plan import Plan, make_plan
from models.errors import ArchiveError, DataUnavailable
from tests.models.data.importing.archives import Contents, make_folder, make_tar, make_zip, png

JPG = b"\xff\xd8\xff"
"""Names alone are looked at."""


def images(*names: str) -> dict[str, bytes]:
    """Files of these names."""
    return dict.fromkeys(names, JPG)


def understand(path: Path, **options: Any) -> tuple[Layout, Plan, list[str]]:
    """The layout and the plan of an archive, and its files' names."""
    settings = ImportOptions(name="photos", **options)
    with open_images(path, path.parent, settings) as source:
        layout = recognise(source, settings)
        names = [entry.name for entry in source.listing.entries]
        return layout, make_plan(layout, source.listing.entries, settings), names


def labels_of(path: Path, **options: Any) -> dict[str, str]:
    """The class of each image."""
    _, plan, names = understand(path, **options)
    return {names[entry]: plan.class_names[label] for entry, label in zip(plan.entries, plan.labels, strict=True)}


def splits_of(path: Path, **options: Any) -> dict[str, str | None]:
    """The split that the files give each image."""
    layout, _, names = understand(path, **options)
    return {names[one.entry]: None if one.split is None else one.split.value for one in layout.samples}


def left_out(path: Path, **options: Any) -> dict[str, str]:
    """The images that are left out, and why."""
    return dict(understand(path, **options)[0].left_out)


def zipped(tmp_path: Path, contents: Contents) -> Path:
    """The files as a zip."""
    return make_zip(tmp_path / "a.zip", contents)


# Class folders


@pytest.mark.parametrize("around", ["", "photos/", "home/me/photos/"])
def test_a_folder_a_class_whatever_is_around_everything(tmp_path: Path, around: str) -> None:
    found = labels_of(zipped(tmp_path, images(f"{around}cat/1.jpg", f"{around}cat/2.jpg", f"{around}dog/1.jpg")))
    assert found == {f"{around}cat/1.jpg": "cat", f"{around}cat/2.jpg": "cat", f"{around}dog/1.jpg": "dog"}


def test_folders_inside_a_class_belong_to_it(tmp_path: Path) -> None:
    layout, plan, _ = understand(zipped(tmp_path, images("cat/2021/1.jpg", "cat/2022/1.jpg", "dog/1.jpg")))
    assert plan.class_names == ("cat", "dog")
    assert layout.warnings == []


def test_folders_that_may_be_the_classes_are_pointed_out(tmp_path: Path) -> None:
    layout, plan, _ = understand(zipped(tmp_path, images("animals/cat/1.jpg", "animals/dog/1.jpg", "cars/vw/1.jpg")))
    assert plan.class_names == ("animals", "cars")
    assert "those inside ('cat', 'dog', 'vw') belong to them" in layout.warnings[0]


def test_classes_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    names = ("class10", "Class9", "class2", "class1", "b", "A")
    _, plan, _ = understand(zipped(tmp_path, images(*(f"{name}/1.jpg" for name in names))))
    assert plan.class_names == ("A", "b", "class1", "class2", "Class9", "class10")


@pytest.mark.parametrize(
    "name", ["猫", "قطة", "кот", "a, b", "two\nlines", " blanks inside ", "it's", '"q"', "c++", "😺"]
)
def test_classes_have_names_in_any_script(tmp_path: Path, name: str) -> None:
    assert set(labels_of(zipped(tmp_path, images(f"{name}/1.jpg", "dog/1.jpg"))).values()) == {name.strip(), "dog"}


def test_a_name_that_is_composed_in_two_ways_is_one_class(tmp_path: Path) -> None:
    found = labels_of(zipped(tmp_path, images("train/caf\u00e9/1.jpg", "test/cafe\u0301/1.jpg", "train/tea/1.jpg")))
    assert set(found.values()) == {"caf\u00e9", "tea"}


def test_what_systems_and_tools_leave_is_neither_class_nor_image(tmp_path: Path) -> None:
    junk = images(
        "__MACOSX/cat/._1.jpg", "cat/._1.jpg", ".ipynb_checkpoints/1-checkpoint.jpg", "cat/.ipynb_checkpoints/1.jpg",
        "@eaDir/cat/1.jpg", "cat/@eaDir/1.jpg", ".git/1.jpg", ".hidden/1.jpg", "cat/.hidden.jpg", "cat/Thumbs.db",
        "cat/.DS_Store", "cat/desktop.ini", "cat/notes.txt", "README.md", "cat/README",
    )  # fmt: skip
    found = labels_of(zipped(tmp_path, {**images("cat/1.jpg", "dog/1.jpg"), **junk}))
    assert found == {"cat/1.jpg": "cat", "dog/1.jpg": "dog"}


def test_images_in_no_class_are_left_out_by_name(tmp_path: Path) -> None:
    found = left_out(zipped(tmp_path, images("photos/loose.jpg", "photos/cat/1.jpg", "photos/dog/1.jpg")))
    assert found == {"photos/loose.jpg": "is not in a class folder"}


def test_empty_classes_and_classes_of_one_image_are_named(tmp_path: Path) -> None:
    contents = {"fish/": b"", **images("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")}
    _, plan, _ = understand(zipped(tmp_path, contents))
    assert plan.class_names == ("cat", "dog")
    assert any("no images" in warning and "'fish'" in warning for warning in plan.warnings)
    assert any("fewer than 2 images" in warning and "'dog'" in warning for warning in plan.warnings)


def test_one_class_only_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"one class only, 'cat', with 2 images; 'dog' has no images") as caught:
        understand(zipped(tmp_path, {"dog/": b"", **images("cat/1.jpg", "cat/2.jpg")}))
    assert caught.value.fix


def test_loose_images_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="nothing says the classes of the 2 images") as caught:
        understand(zipped(tmp_path, images("1.jpg", "2.jpg")))
    assert "labels.csv" in str(caught.value.fix)


def test_files_without_an_image_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"2 files and no image: 'cat/a\.docx', 'dog/b\.mp4'"):
        understand(zipped(tmp_path, {"cat/a.docx": b"", "dog/b.mp4": b""}))


# Splits


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Valid", "VAL", "dev"])
def test_folders_of_splits_are_never_classes(tmp_path: Path, validation: str) -> None:
    path = zipped(
        tmp_path, images("d/train/cat/1.jpg", "d/train/dog/1.jpg", f"d/{validation}/cat/2.jpg", "d/test/dog/3.jpg")
    )
    assert splits_of(path) == {
        "d/train/cat/1.jpg": "train",
        "d/train/dog/1.jpg": "train",
        f"d/{validation}/cat/2.jpg": "validation",
        "d/test/dog/3.jpg": "test",
    }
    assert set(labels_of(path).values()) == {"cat", "dog"}


def test_given_splits_are_kept(tmp_path: Path) -> None:
    contents = images("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "test/cat/3.jpg", "test/dog/3.jpg")
    _, plan, names = understand(zipped(tmp_path, contents), test_fraction=0.5)
    assert [names[entry] for entry in plan.entries[plan.num_train :]] == ["test/cat/3.jpg", "test/dog/3.jpg"]
    assert [names[entry] for entry in plan.entries[: plan.num_train][plan.validation]] == ["val/cat/2.jpg"]


def test_splits_may_be_inside_of_classes(tmp_path: Path) -> None:
    path = zipped(tmp_path, images("cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"))
    assert set(labels_of(path).values()) == {"cat", "dog"}
    assert set(splits_of(path).values()) == {"train", "test"}


def test_a_train_among_vehicles_is_a_class(tmp_path: Path) -> None:
    path = zipped(tmp_path, images("train/1.jpg", "train/2.jpg", "plane/1.jpg", "car/1.jpg"))
    assert set(labels_of(path).values()) == {"train", "plane", "car"}


def test_a_single_folder_of_a_split_is_split_anew(tmp_path: Path) -> None:
    path = zipped(tmp_path, images(*(f"d/train/{name}/{n}.jpg" for name in ("cat", "dog") for n in range(10))))
    assert set(splits_of(path).values()) == {None}
    assert set(labels_of(path).values()) == {"cat", "dog"}
    assert understand(path)[1].num_train == 16


def test_unlabelled_test_images_and_other_folders_are_left_out(tmp_path: Path) -> None:
    contents = images("train/cat/1.jpg", "train/dog/1.jpg", "test/0001.jpg", "test/cat/1.jpg", "unlabeled/x/1.jpg")
    assert set(left_out(zipped(tmp_path, contents))) == {"test/0001.jpg", "unlabeled/x/1.jpg"}


# Tables


def table(rows: list[list[str]], delimiter: str = ",") -> bytes:
    """A CSV file."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode()


def test_kaggle_a_csv_of_ids_without_suffix_beside_a_folder_of_images(tmp_path: Path) -> None:
    contents = images("train/a1.jpg", "train/a2.jpg", "train/a3.jpg", "test/b1.jpg")
    contents |= {
        "labels.csv": table([["id", "breed"], ["a1", "pug"], ["a2", "boxer"], ["a3", "pug"]]),
        "sample_submission.csv": table([["id", "label"], ["b1", "0"], ["a1", "0"], ["a2", "1"], ["a3", "1"]]),
    }
    path = zipped(tmp_path, contents)
    assert labels_of(path) == {"train/a1.jpg": "pug", "train/a2.jpg": "boxer", "train/a3.jpg": "pug"}
    assert left_out(path) == {"test/b1.jpg": "no row of 'labels.csv' names it"}


def test_kaggle_labels_over_numbered_parts(tmp_path: Path) -> None:
    contents = images("part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "part_2/ISIC_3.jpg")
    rows = [
        ["lesion_id", "image_id", "dx", "age"],
        ["L1", "ISIC_1", "nv", "4"],
        ["L1", "ISIC_2", "mel", ""],
        ["L2", "ISIC_3", "nv", ""],
    ]
    path = zipped(tmp_path, {**contents, "HAM10000_metadata.csv": table(rows)})
    assert set(labels_of(path).values()) == {"nv", "mel"}
    layout, plan, _ = understand(path, group="column")
    assert "folders were not taken for classes" in layout.warnings[-1]
    assert sorted(map(str, plan.groups)) == ["L1", "L1", "L2"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_come_from_any_spreadsheet(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = table([["Filename", "Class"], ["1.jpg", "Käse"], ["2.jpg", "a, b; c"]], delimiter)
    path = zipped(tmp_path, {**images("1.jpg", "2.jpg"), "x.csv": rows.decode().encode(encoding)})
    assert labels_of(path) == {"1.jpg": "Käse", "2.jpg": "a, b; c"}


@pytest.mark.parametrize(
    ("encoding", "label"), [("cp932", "三毛猫"), ("cp936", "波斯猫"), ("cp949", "고양이"), ("cp1251", "Кошка")]
)
def test_a_table_of_excel_is_read_in_any_countrys_encoding(tmp_path: Path, encoding: str, label: str) -> None:
    rows = f"file,label\r\n1.jpg,{label}\r\n2.jpg,other\r\n".encode(encoding)
    assert labels_of(zipped(tmp_path, {**images("1.jpg", "2.jpg"), "x.csv": rows}))["1.jpg"] == label


def test_a_table_without_a_header(tmp_path: Path) -> None:
    path = zipped(
        tmp_path, {**images("images/1.jpg", "images/2.jpg"), "l.csv": b"images/1.jpg,cat\r\nimages/2.jpg,dog\r\n"}
    )
    assert labels_of(path) == {"images/1.jpg": "cat", "images/2.jpg": "dog"}


def test_hugging_face_imagefolder_with_metadata(tmp_path: Path) -> None:
    lines = [{"file_name": f"{n}.png", "label": n % 2, "text": f"caption {n}"} for n in range(4)]
    contents = images(*(f"train/{n}.png" for n in range(4)), *(f"test/{n}.png" for n in range(4)))
    metadata = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = zipped(tmp_path, {**contents, "train/metadata.jsonl": metadata, "test/metadata.jsonl": metadata})
    assert labels_of(path)["test/3.png"] == "1"
    assert splits_of(path)["test/3.png"] == "test"
    assert splits_of(path)["train/0.png"] == "train"


def test_a_column_of_splits(tmp_path: Path) -> None:
    rows = [["file", "label", "split"], ["1.jpg", "cat", "train"], ["2.jpg", "dog", "train"], ["3.jpg", "cat", "Test"]]
    path = zipped(tmp_path, {**images("1.jpg", "2.jpg", "3.jpg"), "labels.csv": table(rows)})
    assert splits_of(path) == {"1.jpg": "train", "2.jpg": "train", "3.jpg": "test"}


def test_numbers_beside_class_folders_are_not_labels(tmp_path: Path) -> None:
    rows = table([["file", "width"], ["1.jpg", "10"], ["2.jpg", "20"]])
    assert labels_of(zipped(tmp_path, {**images("cat/1.jpg", "dog/2.jpg"), "sizes.csv": rows})) == {
        "cat/1.jpg": "cat",
        "dog/2.jpg": "dog",
    }


# Tools


def test_hugging_face_parquet_with_embedded_images(tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["zebra", "ant", "bee"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, labels in (("train", [0, 1, 2, 1]), ("test", [2, 0])):
        rows = [{"bytes": png(n), "path": f"{n}.png"} for n in range(len(labels))]
        stored = pa.table({"image": rows, "label": labels}).replace_schema_metadata(metadata)
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(stored, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    _, plan, _ = understand(tmp_path / "data")
    assert plan.class_names == ("zebra", "ant", "bee")
    assert (plan.num_train, len(plan.entries)) == (4, 6)
    archive = make_tar(
        tmp_path / "a.tar", {f"data/{p.name}": p.read_bytes() for p in sorted((tmp_path / "data").glob("*.parquet"))}
    )
    settings = ImportOptions(name="photos")
    with open_images(archive, tmp_path, settings) as source:
        found = dict(source.contents({1, 5}))
    assert found == {1: png(1), 5: png(3)}  # the second image of test, which comes first, and the fourth of train


def test_one_parquet_file_of_one_split(tmp_path: Path) -> None:
    pq.write_table(pa.table({"img": [png(n) for n in range(4)], "label": list("abab")}), tmp_path / "x.parquet")
    assert set(labels_of(tmp_path / "x.parquet").values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("column", "values", "classes", "left_out"),
    [
        ("animal", ["ant", "bee", None, "ant"], {"ant", "bee"}, 1),  # the only other column
        ("label", [0.0, 1.0, float("nan"), 0.0], {"0", "1"}, 1),  # pandas' numbers where one is missing
        ("labels", [["ant"], ["bee"], ["ant", "bee"], []], {"ant", "bee"}, 2),
        ("label", [b"ant", b"bee", b"", b"ant"], {"ant", "bee"}, 1),
        ("label", ["ant", "bee", " ", "ant"], {"ant", "bee"}, 1),
    ],
)
def test_parquet_without_a_description_of_its_columns(
    tmp_path: Path, column: str, values: list[Any], classes: set[str], left_out: int
) -> None:
    count = len(values)
    table = pa.table({"image": [png(n) for n in range(count)], column: values, "__index_level_0__": range(count)})
    pq.write_table(table, tmp_path / "x.parquet")
    layout, _, _ = understand(tmp_path / "x.parquet")
    assert {one.label for one in layout.samples} == classes
    assert [why for _, why in layout.left_out] == ["has no label in its row"] * left_out


def test_validation_and_test_images_alone_are_trained_on_and_tested_with(tmp_path: Path) -> None:
    path = zipped(tmp_path, images(*(f"{split}/{k}/{n}.jpg" for split in ("val", "test") for k in "ab" for n in "12")))
    _, plan, _ = understand(path)
    assert (plan.num_train, len(plan.entries), plan.validation.any()) == (4, 8, False)
    assert "no training split" in plan.warnings[0]


def test_parquet_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"img": [png()], "label": ["a"]}), tmp_path / "x.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataUnavailable) as caught:
        understand(tmp_path / "x.parquet")
    assert "epochal[data]" in str(caught.value.fix)


def test_webdataset_shards_with_numbers(tmp_path: Path) -> None:
    contents = {}
    for n in range(4):
        contents |= {f"{n:06d}.jpg": JPG, f"{n:06d}.cls": str(n % 2 * 10).encode()}
    path = make_tar(tmp_path / "train-000000.tar", contents)
    assert labels_of(path) == {"000000.jpg": "0", "000001.jpg": "10", "000002.jpg": "0", "000003.jpg": "10"}


def test_webdataset_with_json_and_names(tmp_path: Path) -> None:
    contents = {"classes.txt": b"ant\nbee\n"}
    for n in range(4):
        contents |= {f"s/{n}.input.png": JPG, f"s/{n}.json": json.dumps({"label": n % 2}).encode()}
    assert labels_of(make_tar(tmp_path / "a.tar.gz", contents, "w:gz"))["s/1.input.png"] == "bee"


def test_webdataset_with_a_number_and_its_name(tmp_path: Path) -> None:
    contents: dict[str, bytes] = {}
    for n in range(4):
        record = {"label": n % 2, "class_name": ("ant", "bee")[n % 2], "width": 1}
        contents |= {f"{n:06d}.jpg": JPG, f"{n:06d}.json": json.dumps(record).encode()}
    assert set(labels_of(make_tar(tmp_path / "a.tar", contents)).values()) == {"ant", "bee"}


def test_teachable_machine_project(tmp_path: Path) -> None:
    contents = {"manifest.json": b'{"appdata": {"publishResponse": {}}, "classes": []}'}
    contents |= images("Class 1-!-0.jpg", "Class 1-!-1.jpg", "No-!-thing-!-0.jpg")
    path = make_zip(tmp_path / "project.tm", contents)
    assert labels_of(path) == {
        "Class 1-!-0.jpg": "Class 1",
        "Class 1-!-1.jpg": "Class 1",
        "No-!-thing-!-0.jpg": "No-!-thing",
    }


def test_teachable_machines_samples_downloaded_class_by_class(tmp_path: Path) -> None:
    names = ("Class 1-samples", "Class 1-samples (1)", "A-samples-samples")
    contents = images(*(f"{name}/{n}.jpg" for name in names for n in range(2)))
    assert set(labels_of(zipped(tmp_path, contents)).values()) == {"Class 1", "A-samples"}
    contents |= images("other/1.jpg")
    assert "Class 1-samples" in labels_of(make_folder(tmp_path / "f", contents)).values()


def label_studio_task(address: str, *choices: str, cancelled: bool = False) -> dict[str, Any]:
    """A task as Label Studio exports it."""
    result = [
        {"id": "x", "type": "choices", "value": {"choices": list(choices)}, "from_name": "choice", "to_name": "image"}
    ]
    annotation = {"id": 1, "was_cancelled": cancelled, "result": result if choices else []}
    return {"id": 1, "data": {"image": address}, "annotations": [annotation], "predictions": [], "project": 1}


def test_label_studio_json(tmp_path: Path) -> None:
    tasks = [
        label_studio_task("/data/upload/1/0a1b2c3d-cat%201.jpg", "Cat"),
        label_studio_task("/data/local-files/?d=photos/dog.jpg", "Dog"),
        label_studio_task("s3://bucket/photos/bird.jpg", "Bird"),
        label_studio_task("https://x.org/both.jpg", "Cat", "Dog"),
        label_studio_task("/data/upload/1/none.jpg"),
        label_studio_task("/data/upload/1/gone.jpg", "Cat"),
    ]
    contents = images(
        "photos/cat 1.jpg", "photos/dog.jpg", "photos/bird.jpg", "photos/both.jpg", "photos/none.jpg", "photos/new.jpg"
    )
    path = zipped(tmp_path, {**contents, "project-1-at-2026-01-01-12-00-abc.json": json.dumps(tasks).encode()})
    assert labels_of(path) == {"photos/cat 1.jpg": "Cat", "photos/dog.jpg": "Dog", "photos/bird.jpg": "Bird"}
    why = left_out(path)
    assert "several classes" in why["photos/both.jpg"]
    assert why["photos/none.jpg"] == "was not labelled"
    assert "no task" in why["photos/new.jpg"]
    assert "1 task" in understand(path)[0].warnings[0]


def test_label_studio_json_min(tmp_path: Path) -> None:
    tasks = [
        {
            "image": f"/data/upload/1/0a1b2c3d-{name}.jpg",
            "id": n,
            "choice": choice,
            "annotator": 1,
            "annotation_id": n,
            "lead_time": 1.0,
        }
        for n, (name, choice) in enumerate([("a", "Cat"), ("b", "Dog")])
    ]
    path = zipped(tmp_path, {**images("0a1b2c3d-a.jpg", "b.jpg"), "p.json": json.dumps(tasks).encode()})
    assert labels_of(path) == {"0a1b2c3d-a.jpg": "Cat", "b.jpg": "Dog"}


@pytest.mark.parametrize("column", ["choice", "what is it"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_label_studios_tables_call_the_choices_as_the_interface_does(tmp_path: Path, column: str, kind: str) -> None:
    columns = ["image", "id", column, "annotator", "annotation_id", "created_at", "updated_at", "lead_time"]
    rows = [
        [f"/data/upload/1/0a1b2c3{n}-IMG_{n}.jpg", n, choice, 1, n, "2026-01-01T12:00", "2026-01-01T12:01", 2.5]
        for n, choice in enumerate(["Cat", "Dog", "Cat", "Dog"])
    ]
    records = json.dumps([dict(zip(columns, row, strict=True)) for row in rows]).encode()
    export = table([columns, *rows]) if kind == "csv" else records
    contents = images(*(f"photos/IMG_{n}.jpg" for n in range(4)))
    found = labels_of(zipped(tmp_path, {**contents, f"project-1-at-2026-01-01.{kind}": export}))
    assert list(found.values()) == ["Cat", "Cat", "Dog", "Dog"]


def test_roboflow_folders(tmp_path: Path) -> None:
    contents = images(
        *(
            f"{split}/{name}/a_jpg.rf.{n}.jpg"
            for split in ("train", "valid", "test")
            for name in ("daisy", "rose")
            for n in range(2)
        )
    )
    path = zipped(tmp_path, {**contents, "README.roboflow.txt": b"x", "README.dataset.txt": b"x"})
    assert set(labels_of(path).values()) == {"daisy", "rose"}
    assert set(splits_of(path).values()) == {"train", "validation", "test"}


def test_roboflow_multi_class_csv(tmp_path: Path) -> None:
    contents = images("train/1.jpg", "train/2.jpg", "train/3.jpg", "valid/1.jpg")
    contents |= {
        "train/_classes.csv": b"filename, daisy, rose\n1.jpg, 1, 0\n2.jpg, 0, 1\n3.jpg, 1, 1\n",
        "valid/_classes.csv": b"filename, daisy, rose\n1.jpg, 0, 1\n",
    }
    path = zipped(tmp_path, contents)
    assert labels_of(path) == {"train/1.jpg": "daisy", "train/2.jpg": "rose", "valid/1.jpg": "rose"}
    assert splits_of(path)["valid/1.jpg"] == "validation"
    assert "several" in left_out(path)["train/3.jpg"]


def test_cvat_for_images(tmp_path: Path) -> None:
    xml = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task/></meta>
      <image id="0" name="a/1.jpg" subset="Train" width="2" height="2"><tag label="cat" source="manual"></tag></image>
      <image id="1" name="a/2.jpg" width="2" height="2"><tag label="dog" source="manual"></tag></image>
      <image id="2" name="a/3.jpg" width="2" height="2"></image></annotations>"""
    contents = {**images("images/a/1.jpg", "images/a/2.jpg", "images/a/3.jpg"), "annotations.xml": xml.encode()}
    path = zipped(tmp_path, contents)
    assert labels_of(path) == {"images/a/1.jpg": "cat", "images/a/2.jpg": "dog"}
    assert "has no tag" in left_out(path)["images/a/3.jpg"]


def test_cvat_imagenet(tmp_path: Path) -> None:
    contents = {**images("cat/cat_1.jpg", "dog/dog_1.jpg"), "synsets.txt": b"cat\ndog\n"}
    assert labels_of(zipped(tmp_path, contents)) == {"cat/cat_1.jpg": "cat", "dog/dog_1.jpg": "dog"}


def datumaro(first: int, *labels: tuple[int, ...]) -> bytes:
    """Annotations of a subset as Datumaro 0.1 writes them; each item with a box beside its labels."""
    items = [
        {
            "id": f"a/{number}",
            "annotations": [
                {"id": 0, "type": "bbox", "attributes": {}, "group": 0, "label_id": 2, "bbox": [0, 0, 1, 1]},
                *({"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": label} for label in found),
            ],
            "attr": {"frame": number},
            "image": {"path": f"a/{number}.jpg", "size": [1, 1]},
        }
        for number, found in enumerate(labels, start=first)
    ]
    names = [{"name": name, "parent": "", "attributes": []} for name in ("dog", "cat", "box")]
    return json.dumps({"info": {}, "categories": {"label": {"labels": names}}, "items": items}).encode()


def test_cvat_datumaro(tmp_path: Path) -> None:
    contents = images(*(f"images/Train/a/{n}.jpg" for n in range(4)), "images/Validation/a/4.jpg", "images/x.jpg")
    contents["annotations/Train.json"] = datumaro(0, (0,), (1,), (0, 1), ())
    contents["annotations/Validation.json"] = datumaro(4, (1,), (0,))
    path = zipped(tmp_path, contents)
    assert labels_of(path) == {
        "images/Train/a/0.jpg": "dog",
        "images/Train/a/1.jpg": "cat",
        "images/Validation/a/4.jpg": "cat",
    }
    assert splits_of(path)["images/Validation/a/4.jpg"] == "validation"
    layout, plan, _ = understand(path)
    assert plan.class_names == ("dog", "cat")
    assert "1 item are not" in layout.warnings[0]
    why = left_out(path)
    assert "several labels: dog, cat" in why["images/Train/a/2.jpg"]
    assert "no label" in why["images/Train/a/3.jpg"]
    assert "no item" in why["images/x.jpg"]


# Groups


def test_groups_by_a_part_of_the_name_never_straddle(tmp_path: Path) -> None:
    contents = images(*(f"{name}/p{patient}_{n}.jpg" for name in ("a", "b") for patient in range(8) for n in range(4)))
    _, plan, names = understand(make_folder(tmp_path / "f", contents), group="p[0-9]+", test_fraction=0.25)
    groups = [re.search("p[0-9]+", names[entry]).group() for entry in plan.entries]  # type: ignore[union-attr]
    assert list(plan.groups) == groups
    assert not set(groups[: plan.num_train]) & set(groups[plan.num_train :])
    assert 12 <= len(plan.entries) - plan.num_train <= 20


def test_a_group_that_no_image_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no image has a group"):
        understand(zipped(tmp_path, images("cat/1.jpg", "dog/1.jpg")), group="patient[0-9]+")


def test_one_group_of_all_images_and_empty_groups_are_told(tmp_path: Path) -> None:
    path = zipped(tmp_path, images("cat/p1_1.jpg", "cat/p1_2.jpg", "dog/p1_3.jpg", "dog/x.jpg"))
    _, plan, _ = understand(path, group="/(p?)")
    assert plan.groups.count(None) == 1
    assert "1 of 4 images has no group" in plan.warnings[0]
    _, plan, _ = understand(path, group="jpg")
    assert "all images are of one group, 'jpg', so that no split can keep groups together" in plan.warnings


def test_an_expression_that_takes_for_ever_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MAX_SECONDS", 1)
    path = zipped(tmp_path, images(f"cat/{'a' * 100}.jpg", "dog/1.jpg"))
    with pytest.raises(ArchiveError, match="takes more than 1 s of processor time for the paths of 2 images") as caught:
        understand(path, group="(a|a)*b")
    assert "repetition" in str(caught.value.fix)


def test_an_expression_may_have_letters_of_any_script_and_lookarounds(tmp_path: Path) -> None:
    path = zipped(tmp_path, images("猫/ä_1.jpg", "猫/ä_2.jpg", "犬/ñ_1.jpg", "犬/p_1.jpg"))
    _, plan, _ = understand(path, group=r"(?<=/)(\w)_")
    assert sorted(map(str, plan.groups)) == ["p", "ä", "ä", "ñ"]


def test_a_test_split_has_the_classes_shares_and_is_the_same_again(tmp_path: Path) -> None:
    contents = images(*(f"a/{n}.jpg" for n in range(50)), *(f"b/{n}.jpg" for n in range(10)), "c/1.jpg")
    path = zipped(tmp_path, contents)
    first, again, other = (understand(path, seed=seed)[1] for seed in (1, 1, 2))
    test = first.labels[first.num_train :]
    assert [(test == label).sum() for label in range(3)] == [10, 2, 0]
    assert (first.entries == again.entries).all()
    assert (first.entries != other.entries).any()
