"""The layout with a table of labels: CSV or JSON Lines, as from Kaggle, Hugging Face and Roboflow."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from models.data.importing.layouts.finder import Finder
from models.data.importing.layouts.layout import Candidate, Files, Layout, Sample, sample
from models.data.importing.layouts.table_files import Table, read_tables
from models.data.importing.names import Split, shown, split_of
from models.data.importing.options import ImportOptions
from models.text import plural

FILE_COLUMNS = (
    "file_name", "filename", "file", "image", "image_path", "image_file", "image_name", "imagename", "filepath",
    "file_path", "path", "img", "img_path", "image_id", "id_code", "id", "name", "photo", "picture", "url",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "classname", "category", "category_name", "target", "species", "breed",
    "choice", "diagnosis", "dx", "class_id", "classid", "label_name", "y", "tag", "tags", "cultivar", "variety",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold_name", "data_set", "dataset")
GROUP_COLUMNS = (
    "group", "group_id", "patient", "patient_id", "subject", "subject_id", "burst", "lesion_id", "series", "scene",
    "individual_id", "sequence",
)  # fmt: skip
LABEL_STUDIO = {"annotation_id", "annotator", "lead_time", "created_at", "updated_at", "id"}
"""Columns of Label Studio's CSV beside the image and the choices, which are called as the labelling interface calls
them. The first three are in no other table."""
MIN_FOUND = 0.5
"""The part of a table's rows whose images must exist for the table to count."""
MIN_COVERED = 0.5
"""The part of the images that a table must name for its labels to count."""
FOUND_LOOKED_AT = 200
YES, NO = ("1", "1.0", "true"), ("0", "0.0", "false", "")
"""Values of a column of one class; pandas writes True and False."""
BETWEEN_LABELS = re.compile(r"\s*[,;|]\s*")
PLURAL_COLUMNS = ("labels", "tags", "classes", "categories")
"""Columns in which blanks may separate labels too."""


def recognise(files: Files, options: ImportOptions, *, surely: bool) -> Layout | None:
    """Label images by tables; None if no table labels them.

    `surely` requires a column named label, class or similar; it is set for images that are in class folders.
    """
    found = read_tables(files)
    if not found:
        return None
    finder = Finder(files.images)
    of_splits: dict[Split, Finder] = {}
    layout = Layout("", [])
    named: dict[int, str] = {}
    used = []
    for table in found:
        split = _split_of_table(table) or Split.TRAIN
        if split not in of_splits:
            of_splits[split] = Finder((one for one in files.images if _is_of(one, split)), before=finder)
        if _take(table, of_splits[split], layout, named, options, files, surely):
            used.append(table.name)
    if not used or len(named) < MIN_COVERED * _num_labelled(files, named) or (surely and not layout.samples):
        return None
    what = ", ".join(f"'{shown(name)}'" for name in used[:3]) + (" and more" if len(used) > 3 else "")
    layout.name = f"images with a table of labels ({what})"
    for one in files.images:
        if one.number not in named:
            layout.left_out.append((one.name, f"no row of {what} names it"))
    return layout


def _is_of(one: Candidate, split: Split) -> bool:
    """Whether an image is in a folder of this split."""
    return any(split_of(part) is split for part in one.parts[:-1])


def _num_labelled(files: Files, named: Collection[int]) -> int:
    """The images that may have labels: without those of a test split of which none has one, as Kaggle gives them."""
    tests = [one.number for one in files.images if _is_of(one, Split.TEST)]
    return len(files.images) - (0 if any(number in named for number in tests) else len(tests))


def groups_beside(files: Files, options: ImportOptions) -> dict[int, str]:
    """The group of each image from tables without labels, for class folders with a table beside them."""
    finder = Finder(files.images)
    groups: dict[int, str] = {}
    for table in read_tables(files):
        column = _group_column(table, options)
        place = _file_column(table, finder)
        if column is None or place is None:
            continue
        for row in table.rows:
            if row[column] and (number := finder.find(row[place], table.folder)) is not None:
                groups[number] = row[column]
    return groups


def _take(
    table: Table,
    finder: Finder,
    layout: Layout,
    named: dict[int, str],
    options: ImportOptions,
    files: Files,
    surely: bool,
) -> bool:
    """Add a table's rows to a layout. False if the table has no labels."""
    place = _file_column(table, finder)
    if place is None:
        return False
    split_at = _named_column(table, SPLIT_COLUMNS, lambda value: split_of(value) is not None)
    group_at = _group_column(table, options)
    kept = _columns_of_people(table)
    others = [at for at in kept if at not in (place, split_at, group_at)]
    label_at = _label_column(table, others, surely)
    one_hot = _one_hot_columns(table, others) if label_at is None else []
    if label_at is None and not one_hot:
        return False
    given = _split_of_table(table)
    paths = {one.number: one.parts[:-1] for one in files.images}
    missing = 0
    labels = _labels(table, label_at, one_hot)
    for row, (label, why) in zip(table.rows, labels, strict=True):
        number = finder.find(row[place], table.folder)
        if number is None:
            missing += 1
        elif not label:
            named.setdefault(number, "")
            layout.left_out.append((files.entries[number].name, f"{why} in '{shown(table.name)}'"))
        elif number not in named:
            named[number] = label
            split = (split_of(row[split_at]) if split_at is not None else None) or given
            split = split or next((found for part in paths[number] if (found := split_of(part))), None)
            group = row[group_at] or None if group_at is not None else None
            layout.samples.append(sample(number, label, split, group))
        elif named[number] != label:
            layout.warnings.append(
                f"'{shown(files.entries[number].name)}' is labelled '{shown(named[number])}' and '{shown(label)}'; "
                "the first counts"
            )
    if missing:
        layout.warnings.append(f"{plural(missing, 'row')} of '{shown(table.name)}' name no image that is there")
    layout.warnings[:] = layout.warnings[:100]
    return True


# Columns


def _file_column(table: Table, finder: Finder) -> int | None:
    """The column that names the image files; if several do, the one with the most likely name."""
    step = max(1, len(table.rows) // FOUND_LOOKED_AT)
    looked = table.rows[::step]
    best: tuple[float, int, int] | None = None
    for at, column in enumerate(table.columns):
        found = sum(finder.find(row[at], table.folder) is not None for row in looked)
        if found >= MIN_FOUND * len(looked) and found:
            key = column.casefold()
            rank = FILE_COLUMNS.index(key) if key in FILE_COLUMNS else len(FILE_COLUMNS)
            if best is None or (found, -rank) > (best[0], -best[1]):
                best = (found, rank, at)
    return None if best is None else best[2]


def _named_column(table: Table, names: Sequence[str], fits: Any = None) -> int | None:
    by_name = {column.casefold().replace(" ", "_"): at for at, column in reversed(list(enumerate(table.columns)))}
    for name in names:
        at = by_name.get(name)
        if at is not None and (fits is None or all(fits(row[at]) for row in table.rows if row[at])):
            return at
    return None


def _group_column(table: Table, options: ImportOptions) -> int | None:
    asked = options.group_column
    if asked is None:
        return None
    return _named_column(table, [asked.casefold().replace(" ", "_")] if asked else GROUP_COLUMNS)


def _columns_of_people(table: Table) -> list[int]:
    """The columns without those that Label Studio adds."""
    if not {"annotation_id", "annotator", "lead_time"} <= set(table.columns):
        return list(range(len(table.columns)))
    return [at for at, column in enumerate(table.columns) if column not in LABEL_STUDIO]


def _label_column(table: Table, others: Sequence[int], surely: bool) -> int | None:
    named = _named_column(table, LABEL_COLUMNS)
    if named is not None and named in others:
        return named
    return others[0] if not surely and len(others) == 1 and len({row[others[0]] for row in table.rows}) > 1 else None


def _one_hot_columns(table: Table, others: Sequence[int]) -> list[int]:
    """One-hot columns, one per class (Roboflow's _classes.csv, ISIC)."""
    columns = [at for at in others if all(_is_bit(row[at]) for row in table.rows)]
    return columns if len(columns) > 1 and len(columns) >= len(others) - 2 else []


def _is_bit(value: str) -> bool:
    return value.strip().casefold() in (*YES, *NO)


def _labels(table: Table, label_at: int | None, one_hot: Sequence[int]) -> list[tuple[str, str]]:
    """Each row's label; where it has none or several, an empty one and what is wrong."""
    if label_at is None:
        found = [[table.columns[at] for at in one_hot if row[at].strip().casefold() in YES] for row in table.rows]
    else:
        values = [row[label_at].strip() for row in table.rows]
        if all(re.fullmatch(r"-?[0-9]+\.0", value) for value in values if value):
            values = [value.removesuffix(".0") for value in values]  # whole numbers beside an empty cell, by pandas
        found = _several(values, blanks=table.columns[label_at].casefold() in PLURAL_COLUMNS)
    return [
        (labels[0], "")
        if len(labels) == 1
        else ("", "has several labels: " + ", ".join(map(shown, labels[:4])) if labels else "has no label")
        for labels in found
    ]


def _several(values: Sequence[str], *, blanks: bool) -> list[list[str]]:
    """The labels of each cell.

    A cell holds several where each part of it is a label elsewhere: alone, or in a cell with others. So a class called
    "tench, Tinca tinca" is one.
    """
    divided = {value: _parts(value, blanks=blanks) for value in set(values)}
    seen_in = Counter(part for parts in divided.values() for part in set(parts))
    return [
        parts
        if len(parts := divided[value]) > 1 and all(seen_in[part] > 1 for part in parts)
        else [value]
        if value
        else []
        for value in values
    ]


def _parts(value: str, *, blanks: bool) -> list[str]:
    parts = [part for part in BETWEEN_LABELS.split(value) if part]
    return value.split() if len(parts) < 2 and blanks else parts


def _split_of_table(table: Table) -> Split | None:
    """The split in a table's folder or name: train/_classes.csv, val.csv, train_labels.csv."""
    stem = table.name.rpartition("/")[2].rpartition(".")[0].casefold()
    for word in (
        *reversed(table.folder),
        stem,
        stem.partition("_")[0],
        stem.rpartition("_")[2],
        stem.partition("-")[0],
    ):
        if split := split_of(word):
            return split
    return None


def add_groups(layout: Layout, groups: dict[int, str]) -> None:
    """Set the groups of a layout's samples."""
    layout.samples = [
        Sample(one.entry, one.label, one.split, one.group or groups.get(one.entry)) for one in layout.samples
    ]
