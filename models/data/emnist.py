"""EMNIST in its six forms: torchvision's download of one archive, of which only what a form needs is read."""

import io
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from models.data.fetching import Recipe
from models.data.idx import FIELDS, put_values, read_idx
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source, SourceFailed
from models.data.torchvision_sets import RemoteFile, dataset_class, download_files

DIGITS = "0123456789"
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTERS = CAPITALS.lower()
UNLIKE = "abdefghnqrt"
"""The small letters that are not written like their capitals."""

# form: title, classes, training images, test images, mean, deviation
FORMS: dict[str, tuple[str, str, int, int, float, float]] = {
    "balanced": ("EMNIST Balanced", DIGITS + CAPITALS + UNLIKE, 112_800, 18_800, 0.175, 0.333),
    "byclass": ("EMNIST ByClass", DIGITS + CAPITALS + LETTERS, 697_932, 116_323, 0.174, 0.332),
    "bymerge": ("EMNIST ByMerge", DIGITS + CAPITALS + UNLIKE, 697_932, 116_323, 0.174, 0.332),
    "letters": ("EMNIST Letters", LETTERS, 124_800, 20_800, 0.172, 0.331),
    "digits": ("EMNIST Digits", DIGITS, 240_000, 40_000, 0.173, 0.332),
    "mnist": ("EMNIST MNIST", DIGITS, 60_000, 10_000, 0.173, 0.332),
}


def fetch(form: str, work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The archive, of which four files are read. Its images are transposed, and are transposed back here."""
    cls = cls or dataset_class("EMNIST")
    download_files([RemoteFile([cls.url], "gzip.zip", cls.md5)], work, progress)
    progress("unpacking", 0, None)
    files = (f"{part}-{what}" for part in ("train", "test") for what in ("images-idx3", "labels-idx1"))
    try:
        with zipfile.ZipFile(work / "gzip.zip") as archive:
            for field, file in zip(FIELDS, files, strict=True):
                name = f"gzip/emnist-{form}-{file}-ubyte.gz"
                values = read_idx(io.BytesIO(archive.read(name)))
                put_values(arrays, field, name, values.swapaxes(1, 2) if values.ndim == 3 else values)
    except (KeyError, zipfile.BadZipFile) as error:
        raise SourceFailed(f"{cls.url} could not be read: {error}") from error
    if form == "letters":  # a is 1 there
        arrays.train_labels[:] -= 1
        arrays.test_labels[:] -= 1


def _recipe(form: str) -> Recipe:
    title, classes, num_train, num_test, mean, std = FORMS[form]
    info = DatasetInfo(
        name=f"emnist-{form}",
        title=title,
        num_classes=len(classes),
        class_names=tuple(classes),
        channels=1,
        size=28,
        num_train=num_train,
        num_test=num_test,
        mean=(mean,),
        std=(std,),
        source="Cohen et al. 2017, EMNIST: an extension of MNIST to handwritten letters",
        licence="no licence stated; derived from NIST Special Database 19, in the public domain",
        has_up_and_down=True,
        can_be_mirrored=False,
    )
    return Recipe(
        info=info,
        sources=(Source("torchvision's download (biometrics.nist.gov)", partial(fetch, form)),),
        measured=True,
    )


RECIPES = tuple(_recipe(form) for form in FORMS)
