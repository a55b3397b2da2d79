"""Fashion-MNIST: torchvision's own download first; else the same four files as Debian's package carries them."""

import shutil
from pathlib import Path

from models.data.fetching import Recipe
from models.data.idx import put_values, read_idx
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source, SourceFailed, download, run_client

FASHION_MNIST = DatasetInfo(
    name="fashion-mnist",
    title="Fashion-MNIST",
    num_classes=10,
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    channels=1,
    size=28,
    num_train=60_000,
    num_test=10_000,
    mean=(0.28604060,),
    std=(0.35302424,),
    source="Xiao, Rasul and Vollgraf 2017, Fashion-MNIST",
    licence="MIT",
    has_up_and_down=True,
    can_be_mirrored=True,
)

# names and MD5 as in torchvision.datasets.FashionMNIST
FILES = {
    "train_images": ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train_labels": ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
    "test_images": ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
    "test_labels": ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
}
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_BYTES = 30_900_652
INSTALLED = Path("/usr/share/datasets/fashion-mnist")


def fetch_from_torchvision(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """The four files from torchvision's address."""
    for name, md5 in FILES.values():
        download(MIRROR + name, work / name, digest=("md5", md5), progress=progress)
    read_files(work, arrays)


def fetch_from_debian(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """Debian's package: as installed, or downloaded and unpacked beside, which needs no root."""
    if (INSTALLED / FILES["train_images"][0]).is_file():
        read_files(INSTALLED, arrays)
        return
    if not shutil.which("apt-get"):
        raise SourceFailed(f"there is no {INSTALLED} and no apt-get to fetch {DEBIAN_PACKAGE} with")
    run_client(
        ["apt-get", "download", DEBIAN_PACKAGE],
        work=work,
        watch=[work],
        label=f"downloading {DEBIAN_PACKAGE}",
        total_bytes=DEBIAN_BYTES,
        progress=progress,
    )
    packages = list(work.glob(f"{DEBIAN_PACKAGE}_*.deb"))
    if not packages:
        raise SourceFailed(f"`apt-get download {DEBIAN_PACKAGE}` left no package")
    run_client(
        ["dpkg-deb", "-x", packages[0].name, "unpacked"],
        work=work,
        watch=[work / "unpacked"],
        label="unpacking",
        total_bytes=DEBIAN_BYTES,
        progress=progress,
    )
    read_files(work / "unpacked" / INSTALLED.relative_to("/"), arrays)


def read_files(folder: Path, arrays: Arrays) -> None:
    """Read the four files into the arrays.

    No digest is compared here: Debian compresses the files again, and what they hold is checked afterwards.
    """
    for field, (name, _) in FILES.items():
        put_values(arrays, field, name, read_idx(folder / name))


RECIPE = Recipe(
    info=FASHION_MNIST,
    sources=(
        Source("torchvision's download (fashion-mnist.s3-website.eu-central-1.amazonaws.com)", fetch_from_torchvision),
        Source(f"Debian's package {DEBIAN_PACKAGE} (`apt-get download`)", fetch_from_debian),
    ),
    first_train_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    first_test_labels=(9, 2, 1, 1, 6, 1, 4, 6, 5, 7),
)
