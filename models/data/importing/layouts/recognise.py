"""Which layout files have: the recognisers in their order."""

from models.data.importing.layouts import class_folders
from models.data.importing.layouts.layout import Files, Layout
from models.data.importing.names import shown
from models.data.importing.options import ImportOptions
from models.data.importing.source import Source, nested_archive
from models.errors import ArchiveError
from models.text import plural

FIX = (
    "put the images of each class into a folder with the class's name (cat/1.jpg, dog/2.jpg), or add a table "
    "labels.csv with the columns file and label"
)


def recognise(source: Source, options: ImportOptions) -> Layout:
    """What the files of a source mean. Raises ArchiveError when no labels are found, saying what was."""
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
    layout = class_folders.recognise(files)
    if layout is None:
        raise no_labels(source, files)
    class_folders.merge_only_split(layout)
    return layout


def no_images(source: Source, files: Files) -> ArchiveError:
    """The error for files of which none is an image."""
    if not files.others:
        return ArchiveError(f"the {source.kind} holds no files", fix=FIX)
    others = ", ".join(f"'{shown(one.name)}'" for one in files.others[:3])
    return ArchiveError(
        f"the {source.kind} holds {plural(len(files.others), 'file')} and no image: {others}",
        fix=FIX,
        file=shown(files.others[0].name),
    )


def no_labels(source: Source, files: Files) -> ArchiveError:
    """The error for images of which nothing says the class."""
    example = shown(files.images[0].name)
    return ArchiveError(
        f"nothing says the classes of the {plural(len(files.images), 'image')} in the {source.kind}: '{example}' lies "
        "in no folder of a class, and there is no table that names it",
        fix=FIX,
        file=example,
    )
