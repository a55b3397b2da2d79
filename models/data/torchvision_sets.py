"""Datasets that torchvision can download: its addresses and MD5 digests, and what its classes read.

A file is downloaded here and put where torchvision looks for it: torchvision's own download has no deadline and cannot
report its progress. torchvision takes seconds to import, so a dataset's module names its class as text.
"""

import tarfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from models.cores import usable_cores
from models.data.sources import Arrays, ReportBytes, SourceFailed, download

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class RemoteFile(NamedTuple):
    """A file that torchvision downloads: the addresses of its copies, its place below the folder, its MD5."""

    urls: Sequence[str]
    path: str
    md5: str


def dataset_class(name: str) -> Any:
    """A class of torchvision.datasets."""
    from models.torchvision_compat import torchvision

    return getattr(torchvision.datasets, name)


def download_files(files: Sequence[RemoteFile], work: Path, progress: ReportBytes) -> None:
    """Download each file from the first of its addresses that works. Raises SourceFailed."""
    for file in files:
        target = work / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        failures = []
        for url in file.urls:
            try:
                download(url, target, digest=("md5", file.md5), progress=progress)
                break
            except SourceFailed as failure:
                failures.append(str(failure))
        else:
            raise SourceFailed("; ".join(failures))


def open_splits(open_split: Callable[[str], Any], names: Sequence[str], progress: ReportBytes) -> list[Any]:
    """torchvision's datasets of these splits, unpacked and checked by torchvision. Raises SourceFailed."""
    progress("unpacking", 0, None)
    try:
        return [open_split(name) for name in names]
    except ModuleNotFoundError as error:
        raise SourceFailed(
            f"torchvision reads this dataset with {error.name}, which is not installed: pip install {error.name}, "
            "or the extra epochal[data]"
        ) from error
    except (RuntimeError, OSError, ValueError, LookupError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise SourceFailed(f"what was downloaded could not be read: {error}") from error


def put_arrays(images: Images, labels: Sequence[int] | Labels, into: tuple[Images, Labels], split: str) -> None:
    """Copy a split's images (N, C, H, W) and labels. Raises SourceFailed where their shape is not the expected one."""
    if images.shape != into[0].shape or len(labels) != len(into[1]):
        raise SourceFailed(f"the {split} images are of shape {images.shape}, not {into[0].shape}")
    into[0][:] = images
    into[1][:] = labels


def decode_all(dataset: Any, into: tuple[Images, Labels], progress: ReportBytes) -> None:
    """Decode a split of Pillow images and labels, on all cores, resized to the size of the array.

    An image's short side is brought to that size (bilinear, antialiased) and its centre kept, which is what is done to
    an image that a prediction is asked for. Raises SourceFailed for an image that cannot be read.
    """
    images, labels = into
    if len(dataset) != len(images):
        raise SourceFailed(f"there are {len(dataset)} images, not {len(images)}")
    size = images.shape[-1]

    def decode(index: int) -> None:
        picture, label = dataset[index]
        square = ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
        images[index] = np.asarray(square).transpose(2, 0, 1)
        labels[index] = label

    step = max(1, 2_000_000 // size**2)  # images between two reports
    try:
        with ThreadPoolExecutor(usable_cores()) as pool:
            for start in range(0, len(images), step):
                list(pool.map(decode, range(start, min(start + step, len(images)))))
                progress("decoding images", min(start + step, len(images)) * images[0].nbytes, images.nbytes)
    except (OSError, ValueError, SyntaxError) as error:
        raise SourceFailed(f"an image could not be decoded: {error}") from error


def train_part(arrays: Arrays) -> tuple[Images, Labels]:
    """The arrays of the training images."""
    return arrays.train_images, arrays.train_labels


def test_part(arrays: Arrays) -> tuple[Images, Labels]:
    """The arrays of the test images."""
    return arrays.test_images, arrays.test_labels
