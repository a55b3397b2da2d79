"""Datasets from people's own files: `import_archive`, its options and its report."""

from models.data.importing.engine import finished, import_archive
from models.data.importing.files import ImageRecord, read_files
from models.data.importing.options import ClassCount, Fit, ImportOptions, ImportReport, OnBroken, Skipped

__all__ = [
    "ClassCount",
    "Fit",
    "ImageRecord",
    "ImportOptions",
    "ImportReport",
    "OnBroken",
    "Skipped",
    "finished",
    "import_archive",
    "read_files",
]
