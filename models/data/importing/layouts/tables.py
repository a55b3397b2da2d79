"""The layout with a table of labels: CSV or JSON Lines, as from Kaggle, Hugging Face and Roboflow."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.data.importing.layouts.finder import Finder
from models.data.importing.layouts.layout import Candidate, Files, Layout, Sample, sample
from models.data.importing.names import Split, shown, split_of, suffix_of
from models.data.importing.options import ImportOptions
from models.text import plural

SEPARATED, LINES = {".csv", ".tsv", ".txt"}, {".jsonl", ".ndjson"}
DELIMITERS = ",;\t|"
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
MIN_FOUND = 0.5
"""The part of a table's rows whose images must exist for the table to count."""
MIN_COVERED = 0.5
"""The part of the images that a table must name for its labels to count."""
FOUND_LOOKED_AT = 200
MOST_TEXTS = 20
"""The most .txt files that are read: some are lists of labels, most are not."""
NOT_LABELS = ("submission",)
"""Parts of names of tables that only look like labels, such as Kaggle's sample submissions."""


@dataclass
class Table:
    """A table's columns and rows, all as text."""

    name: str
    folder: tuple[str, ...]
    columns: list[str]
    rows: list[list[str]]


def recognise(files: Files, options: ImportOptions, *, surely: bool) -> Layout | None:
    """Label images by tables; None if no table labels them.

    `surely` requires a column named label, class or similar; it is set for images that are in class folders.
    """
    found = _read_tables(files)
    if not found:
        return None
    finder = Finder(files.images)
    layout = Layout("", [])
    named: dict[int, str] = {}
    used = []
    for table in found:
        if _take(table, finder, layout, named, options, files, surely):
            used.append(table.name)
    if not used or len(named) < MIN_COVERED * len(files.images):
        return None
    what = ", ".join(f"'{shown(name)}'" for name in used[:3]) + (" and more" if len(used) > 3 else "")
    layout.name = f"images with a table of labels ({what})"
    for one in files.images:
        if one.number not in named:
            layout.left_out.append((one.name, f"no row of {what} names it"))
    return layout


def groups_beside(files: Files, options: ImportOptions) -> dict[int, str]:
    """The group of each image from tables without labels, for class folders with a table beside them."""
    finder = Finder(files.images)
    groups: dict[int, str] = {}
    for table in _read_tables(files):
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
    others = [at for at in range(len(table.columns)) if at not in (place, split_at, group_at)]
    label_at = _label_column(table, others, surely)
    one_hot = _one_hot_columns(table, others) if label_at is None else []
    if label_at is None and not one_hot:
        return False
    given = _split_of_table(table)
    paths = {one.number: one.parts[:-1] for one in files.images}
    missing = 0
    for row in table.rows:
        label = row[label_at].strip() if label_at is not None else _label_of(row, one_hot, table.columns)
        number = finder.find(row[place], table.folder)
        if number is None:
            missing += 1
        elif not label:
            why = "has no label" if label_at is not None else "has no label, or several"
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
    return value.strip() in ("0", "1", "0.0", "1.0", "")


def _label_of(row: Sequence[str], columns: Sequence[int], names: Sequence[str]) -> str:
    ones = [at for at in columns if row[at].strip() in ("1", "1.0")]
    return names[ones[0]] if len(ones) == 1 else ""


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


# Reading


def _read_tables(files: Files) -> list[Table]:
    tables = []
    texts = 0
    for other in files.others:
        base, suffix = other.parts[-1].casefold(), suffix_of(other.parts[-1])
        if any(word in base for word in NOT_LABELS):
            continue
        texts += suffix == ".txt"
        if suffix == ".txt" and texts > MOST_TEXTS:
            continue
        if suffix in SEPARATED or suffix in LINES:
            read = _read_lines if suffix in LINES else _read_separated
            table = read(other, files.read(other.number), {one.parts[-1] for one in files.images[:1000]})
            if table is not None and table.rows:
                tables.append(table)
    return tables


def decode_text(data: bytes) -> str:
    """Decode a table: UTF-8, UTF-16 with a byte order mark, or else Windows-1252."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _read_separated(other: Candidate, data: bytes, images: set[str]) -> Table | None:
    text = decode_text(data)
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    if not first.count(delimiter):
        if suffix_of(other.name) != ".txt" or " " not in first:
            return None
        delimiter = " "  # "1.jpg 0", as lists of files have it
    try:
        csv.field_size_limit(1 << 20)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error:
        return None
    if len(rows) < 1:
        return None
    width = len(rows[0])
    if any(value.strip().replace("\\", "/").rpartition("/")[2] in images for value in rows[0]):
        header = [f"column {at + 1}" for at in range(width)]  # the table begins with an image: it has no header
    else:
        header, rows = [column.strip() for column in rows[0]], rows[1:]
    rows = [[*row[:width], *[""] * (width - len(row))] for row in rows]
    return Table(other.name, other.parts[:-1], header, rows)


def _read_lines(other: Candidate, data: bytes, images: set[str]) -> Table | None:
    records = list(_objects(decode_text(data)))
    columns = list(dict.fromkeys(key for record in records for key in record))[:1000]
    rows = [[_as_text(record.get(column)) for column in columns] for record in records]
    return Table(other.name, other.parts[:-1], columns, rows) if columns else None


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list) and len(value) == 1:
        return _as_text(value[0])
    return ""


def add_groups(layout: Layout, groups: dict[int, str]) -> None:
    """Set the groups of a layout's samples."""
    layout.samples = [
        Sample(one.entry, one.label, one.split, one.group or groups.get(one.entry)) for one in layout.samples
    ]
