"""Recognises the layout of files by trying the recognisers in order."""

from models.data.importing.layouts import class_folders, exports, tables, webdataset
from models.data.importing.layouts.layout import Files, Layout, Sample
from models.data.importing.names import shown
from models.data.importing.options import ImportOptions
from models.data.importing.parquet import ParquetSource
from models.data.importing.source import Source, nested_archive
from models.errors import ArchiveError
from models.text import plural

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
            raise ArchiveError(
                f"'{shown(other.name)}' in the {source.kind} is an archive itself ({kind}), and archives in archives "
                "are not unpacked",
                fix="unpack it and pack everything together, or import it by itself",
                file=shown(other.name),
            )
    if not files.images:
        raise no_images(source, files)
    found = _by_content(source, files, options)
    if found is None:
        raise no_labels(source, files)
    class_folders.merge_only_split(found)
    return found


def _by_content(source: Source, files: Files, options: ImportOptions) -> Layout | None:
    """The layout by the first recogniser that finds labels; the most reliable ones come first."""
    for tool in (exports.teachable_machine, webdataset.recognise, exports.cvat, exports.label_studio):
        if (layout := tool(files)) is not None:
            return layout
    folders = class_folders.recognise(files)
    sure = folders is not None and len({one.label for one in folders.samples}) > 1
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
        fix=FIX,
        file=example,
    )
