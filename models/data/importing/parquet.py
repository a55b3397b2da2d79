"""The source for parquet files with one image per row, as Hugging Face's datasets has them."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from models.data.importing import source as limits
from models.data.importing.arrays import check_free_space
from models.data.importing.layouts.tables import FILE_COLUMNS, GROUP_COLUMNS, LABEL_COLUMNS
from models.data.importing.names import class_name, shown, split_of
from models.data.importing.source import MAX_IMAGE_BYTES, Entry, Listing, Source, too_many
from models.errors import ArchiveError, DataUnavailable
from models.files import make_folder, remove_tree, storage_errors

SUFFIX, MAGIC = ".parquet", b"PAR1"
IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo", "jpg", "png", "pixel_values")
MORE_LABEL_COLUMNS = (*LABEL_COLUMNS, "fine_label", "labels_fine", "cls")
INDEX = "__index_level_0__"
"""What pandas calls a table's index that has no name."""
ROWS_AT_ONCE = 64
FIX = "save the dataset with its images inside (datasets: Dataset.to_parquet), and one column of labels"


class ParquetSource:
    """The rows of parquet files. Only the columns of labels are read to list them."""

    kind = "parquet file"

    def __init__(self, files: Sequence[tuple[str, Path]], group_column: str | None) -> None:
        self._parquet = _pyarrow()
        self.listing = Listing()
        self.class_names: tuple[str, ...] | None = None
        self._files = list(files)
        self._columns: list[str] = []
        self._firsts: list[int] = []
        for name, path in self._files:
            self._list(name, path, group_column)

    def _list(self, name: str, path: Path, group_column: str | None) -> None:
        self._firsts.append(len(self.listing.entries))
        with self._open(name, path) as opened:
            schema = opened.schema_arrow
            if len(self.listing.entries) + opened.metadata.num_rows > limits.MAX_ENTRIES:
                raise too_many(self.kind)
            image, label, names = self._find_columns(name, schema)
            self._columns.append(image)
            group = _group_column(schema.names, group_column)
            has_path = image in _images_with(schema, "path")
            columns = [label, *([group] if group else []), *([f"{image}.path"] if has_path else [])]
            split = next((found for part in (*name.split("/"), *_words(name)) if (found := split_of(part))), None)
            row = 0
            for batch in self._batches(opened, name, columns):
                for record in batch.to_pylist():
                    shown_path = (record[image] or {}).get("path") if has_path else None
                    self.listing.entries.append(
                        Entry(
                            f"{name}#{row}" + (f" {shown_path}" if shown_path else ""),
                            0,
                            label=_label(record[label], names),
                            split=split,
                            group=None if group is None or record[group] is None else str(record[group]),
                        )
                    )
                    row += 1
        if names:
            self.class_names = tuple(class_name(one) for one in names)

    def _find_columns(self, name: str, schema: Any) -> tuple[str, str, list[str] | None]:
        """The column of images, that of labels, and the classes' names if the file has them."""
        held = [*_images_with(schema, "bytes"), *_binaries(schema)]
        images = sorted(held, key=lambda one: _rank(one, IMAGE_COLUMNS))
        if not images:
            raise ArchiveError(
                f"'{shown(name)}' has no column of images, only {', '.join(map(shown, schema.names[:8]))}",
                fix=FIX,
                file=shown(name),
            )
        features = _features(schema)
        named = {column: feature["names"] for column, feature in features.items() if "names" in feature}
        likely = [column for column in schema.names if column.casefold() in MORE_LABEL_COLUMNS]
        others = [column for column in schema.names if column not in (*held, INDEX)]
        if len(others) == 1 and others[0].casefold() not in FILE_COLUMNS:
            likely = others  # whatever it is called
        labels = sorted({*named, *likely} & set(schema.names), key=lambda one: _rank(one, MORE_LABEL_COLUMNS))
        if not labels:
            raise ArchiveError(
                f"'{shown(name)}' has no column of labels, only {', '.join(map(shown, schema.names[:8]))}",
                fix=FIX,
                file=shown(name),
            )
        return images[0], labels[0], named.get(labels[0])

    def _open(self, name: str, path: Path) -> Any:
        try:
            return self._parquet.ParquetFile(path, memory_map=True)
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise ArchiveError(
                f"'{shown(name)}' cannot be read as parquet: {shown(str(error))}", fix=FIX, file=shown(name)
            ) from error

    def _batches(self, opened: Any, name: str, columns: list[str], groups: list[int] | None = None) -> Iterator[Any]:
        try:
            yield from opened.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns, use_threads=False)
        except (OSError, ValueError, NotImplementedError, MemoryError) as error:
            raise ArchiveError(
                f"'{shown(name)}' cannot be read as parquet: {shown(str(error))}", fix=FIX, file=shown(name)
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def contents(self, wanted: Collection[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
        """See Source. Row groups without a wanted row are skipped."""
        wanted = wanted if isinstance(wanted, set | frozenset) else set(wanted)
        for (name, path), column, first in zip(self._files, self._columns, self._firsts, strict=True):
            with self._open(name, path) as opened:
                number = first
                for group in range(opened.num_row_groups):
                    rows = opened.metadata.row_group(group).num_rows
                    if wanted.isdisjoint(range(number, number + rows)):
                        number += rows
                        continue
                    for batch in self._batches(opened, name, [column], [group]):
                        for value in batch.column(0):
                            if number in wanted:
                                yield number, self._bytes(number, value)
                            number += 1

    def _bytes(self, number: int, value: Any) -> bytes | ArchiveError:
        found = value.as_py()
        data = found.get("bytes") if isinstance(found, dict) else found
        name = shown(self.listing.entries[number].name)
        if not isinstance(data, bytes) or not data:
            return ArchiveError(f"'{name}' has no image in its row", file=name)
        if len(data) > MAX_IMAGE_BYTES:
            return ArchiveError(f"'{name}' has {len(data):,} bytes; at most {MAX_IMAGE_BYTES:,} are read", file=name)
        return data

    def text(self, number: int) -> bytes:
        """See Source. There are none."""
        raise ArchiveError(f"row {number} is not text")

    def copy(self, wanted: Mapping[int, Path]) -> None:
        """See Source."""
        for number, content in self.contents(set(wanted)):
            if isinstance(content, ArchiveError):
                raise content
            wanted[number].write_bytes(content)


def parquet_inside(outer: Source, work: Path, group_column: str | None) -> ParquetSource | None:
    """The parquet files of a folder or an archive as a source; None if it has none.

    They need random access, so those in an archive are copied into the folder `work` first.
    """
    numbers = [
        number
        for number, entry in enumerate(outer.listing.entries)
        if entry.name.casefold().endswith(SUFFIX) and not any(part.startswith(".") for part in entry.name.split("/"))
    ]
    if not numbers:
        return None
    remove_tree(work)
    make_folder(work)
    entries = outer.listing.entries
    check_free_space(work, sum(entries[number].size for number in numbers), f"the parquet files in the {outer.kind}")
    copies = {number: work / f"{number}{SUFFIX}" for number in numbers}
    with storage_errors("the parquet files cannot be unpacked"):
        outer.copy(copies)
    files = [(entries[number].name, path) for number, path in copies.items()]
    return ParquetSource(files, group_column)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataUnavailable(
            "parquet files are read by pyarrow, which is not installed here",
            fix="pip install 'epochal[data]' where the worker runs, or save the images as files in folders",
        ) from error
    return parquet


def _label(value: Any, names: list[str] | None) -> str | None:
    """The class of a row's value: a name, a number of one in `names`, or a list of one such; None without a class.

    pandas writes whole numbers as floats where some are missing.
    """
    if isinstance(value, list) and len(value) == 1:
        return _label(value[0], names)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str | int) or value == -1:
        return None
    if names and isinstance(value, int) and 0 <= value < len(names):
        value = names[value]
    return class_name(str(value)) or None


def _features(schema: Any) -> dict[str, Any]:
    """Hugging Face's description of the columns; empty if there is none."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = described["info"]["features"]
        return {
            key: value
            for key, value in features.items()
            if isinstance(value, dict)
            and ("names" not in value or all(isinstance(name, str) for name in value["names"]))
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _images_with(schema: Any, part: str) -> list[str]:
    """The struct columns that have a field of this name, as {bytes, path}."""
    import pyarrow as pa

    return [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and any(inner.name == part for inner in field.type)
    ]


def _binaries(schema: Any) -> list[str]:
    import pyarrow as pa

    return [field.name for field in schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)]


def _rank(column: str, names: Sequence[str]) -> int:
    return names.index(column.casefold()) if column.casefold() in names else len(names)


def _group_column(columns: Sequence[str], asked: str | None) -> str | None:
    if asked is None:
        return None
    wanted = (asked.casefold(),) if asked else GROUP_COLUMNS
    return next((column for name in wanted for column in columns if column.casefold() == name), None)


def _words(name: str) -> list[str]:
    """The words of a file name: train-00000-of-00001.parquet gives train, 00000, ..."""
    return name.rpartition("/")[2].rpartition(".")[0].replace("_", "-").split("-")
