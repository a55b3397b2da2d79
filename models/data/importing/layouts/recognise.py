"""Recognises the layout of files by trying the recognisers in order."""

from models.data.importing.layouts import class_folders, datumaro, exports, tables, webdataset
from models.data.importing.layouts.layout import Files, Layout, Sample
from models.data.importing.layouts.table_files import read_tables
from models.data.importing.names import shown, suffix_of
from models.data.importing.nested import KINDS as NESTED_KINDS
from models.data.importing.options import ImportOptions
from models.data.importing.parquet import ParquetSource
from models.data.importing.source import TEXT_SUFFIXES, Source, nested_archive
from models.errors import ArchiveError
from models.text import plural

MAX_LABEL = 255
"""The most characters of a class's name: as many as a folder's may have."""
NOTES = TEXT_SUFFIXES | {".md", ".yaml", ".yml", ".html", ".py", ".ini", ".db", ".log"}
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
FIX = (
    "put the images of each class into a folder with the class's name (cat/1.jpg, dog/2.jpg), or add a table "
    "labels.csv with the columns file and label"
)


def recognise(source: Source, options: ImportOptions) -> Layout:
    """The layout of a source's files. Raises ArchiveError, with what was found, if there are no labels."""
    if source.kind == ParquetSource.kind:
        layout = _of_rows(source)
        class_folders.merge_only_split(layout)
        return layout
    files = Files.of(source.listing, source.text)
    for other in (*files.others, *files.images):
        if kind := nested_archive(other.name):
            deep = "in an archive in it, and only those of one level are read"
            what = deep if kind in NESTED_KINDS else f"of a kind that is not read ({kind})"
            raise ArchiveError(
                f"'{shown(other.name)}' in the {source.kind} is an archive {what}",
                fix="unpack it and pack its files instead, or import it by itself",
                file=shown(other.name),
            )
    if not files.images:
        raise no_images(source, files)
    found = _by_content(source, files, options)
    if found is None or (len({one.label for one in found.samples}) == 1 and _labels_elsewhere(files)):
        raise no_labels(source, files)
    class_folders.merge_only_split(found)
    _leave_out_what_is_no_label(found, source)
    _list_what_is_no_image(found, files)
    found.warnings += source.listing.warnings
    return found


def _leave_out_what_is_no_label(layout: Layout, source: Source) -> None:
    wrong = [one for one in layout.samples if not 0 < len(one.label) <= MAX_LABEL]
    if wrong:
        layout.samples = [one for one in layout.samples if 0 < len(one.label) <= MAX_LABEL]
        layout.left_out += [
            (
                source.listing.entries[one.entry].name,
                f"has a label of {len(one.label):,} characters; 1 to {MAX_LABEL} are a class's name",
            )
            for one in wrong
        ]


def _list_what_is_no_image(layout: Layout, files: Files) -> None:
    """Name the files beside images that may have been meant as some: videos, documents; not tables and notes."""
    numbers = {one.entry for one in layout.samples}
    folders = {one.parts[:-1] for one in files.images if one.number in numbers and len(one.parts) > 1}
    layout.left_out += [
        (other.name, f"is not an image by its name ({suffix})")
        for other in files.others
        if other.parts[:-1] in folders and (suffix := suffix_of(other.name)) and suffix not in NOTES
    ]


def _by_content(source: Source, files: Files, options: ImportOptions) -> Layout | None:
    """The layout by the first recogniser that finds labels; the most reliable ones come first."""
    folders = class_folders.recognise(files)
    sure = folders is not None and len({one.label for one in folders.samples}) > 1
    for tool in (
        exports.teachable_machine,
        webdataset.recognise,
        exports.cvat,
        datumaro.recognise,
        exports.label_studio,
    ):
        if (layout := tool(files)) is None:
            continue
        if not (sure and layout.name == webdataset.ONLY_TEXTS):  # notes beside images in class folders
            return layout
    if (layout := tables.recognise(files, options, surely=sure)) is not None:
        if sure and folders is not None and _differ(layout, folders):
            layout.warnings.append("the labels are those of the table; the images' folders were not taken for classes")
        return layout
    if folders is not None and options.group_column is not None:
        tables.add_groups(folders, tables.groups_beside(files, options))
    return folders


def _differ(one: Layout, other: Layout) -> bool:
    labels = {sample.entry: sample.label for sample in other.samples}
    return any(labels.get(sample.entry, sample.label) != sample.label for sample in one.samples)


def _of_rows(source: Source) -> Layout:
    """The layout of parquet rows, which contain their labels."""
    entries = source.listing.entries
    samples = [
        Sample(number, entry.label, entry.split, entry.group)
        for number, entry in enumerate(entries)
        if entry.label is not None
    ]
    left_out = [(entry.name, "has no label in its row") for entry in entries if entry.label is None]
    return Layout("parquet with images inside", samples, source.class_names, left_out)


def no_images(source: Source, files: Files) -> ArchiveError:
    """The error for files without any image."""
    if not files.others:
        return ArchiveError(f"the {source.kind} holds no files", fix=FIX)
    others = ", ".join(f"'{shown(one.name)}'" for one in files.others[:3])
    return ArchiveError(
        f"the {source.kind} holds {plural(len(files.others), 'file')} and no image: {others}",
        fix=FIX,
        file=shown(files.others[0].name),
    )


def no_labels(source: Source, files: Files) -> ArchiveError:
    """The error for images without any label."""
    example = shown(files.images[0].name)
    return ArchiveError(
        f"nothing says the classes of the {plural(len(files.images), 'image')} in the {source.kind}: '{example}' lies "
        "in no folder of a class, and there is no table that names it",
        fix=_labels_elsewhere(files) or FIX,
        file=example,
    )


def _labels_elsewhere(files: Files) -> str | None:
    """What to do with a file that may hold the labels and could not be used; None if there is none."""
    sheet = next((other.name for other in files.others if suffix_of(other.name) in SPREADSHEETS), None)
    if sheet is not None:
        return f"save '{shown(sheet)}' as CSV, with the columns file and label, and pack that"
    table = next((table for table in read_tables(files) if len(table.columns) > 1 and len(table.rows) > 1), None)
    if table is None:
        return None
    columns = ", ".join(f"'{shown(column)}'" for column in table.columns[:6])
    return (
        f"'{shown(table.name)}' has the columns {columns}: one of them has to hold the images' names, such as "
        f"'{shown(files.images[0].parts[-1])}', and one called label their classes"
    )
