"""MNIST and KMNIST: torchvision's downloads of four IDX files each."""

from functools import partial
from pathlib import Path
from typing import Any

from models.data.fetching import Recipe
from models.data.idx import FIELDS, put_values, read_idx
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source
from models.data.torchvision_sets import RemoteFile, dataset_class, download_files

MNIST = DatasetInfo(
    name="mnist",
    title="MNIST",
    num_classes=10,
    class_names=tuple("0123456789"),
    channels=1,
    size=28,
    num_train=60_000,
    num_test=10_000,
    mean=(0.1307,),
    std=(0.3081,),
    source="LeCun, Cortes and Burges 1998, The MNIST database of handwritten digits",
    licence="CC-BY-SA-3.0",
    has_up_and_down=True,
    can_be_mirrored=False,
)

KMNIST = DatasetInfo(
    name="kmnist",
    title="Kuzushiji-MNIST",
    num_classes=10,
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    channels=1,
    size=28,
    num_train=60_000,
    num_test=10_000,
    mean=(0.1918,),
    std=(0.3483,),
    source="Clanuwat et al. 2018, Deep Learning for Classical Japanese Literature",
    licence="CC-BY-SA-4.0",
    has_up_and_down=True,
    can_be_mirrored=False,
)


def fetch(name: str, work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The four files, from the first mirror that has them."""
    cls = cls or dataset_class(name)
    files = [RemoteFile([mirror + file for mirror in cls.mirrors], file, md5) for file, md5 in cls.resources]
    download_files(files, work, progress)
    for field, (file, _) in zip(FIELDS, cls.resources, strict=True):
        put_values(arrays, field, file, read_idx(work / file))


RECIPE = Recipe(
    info=MNIST,
    sources=(Source("torchvision's download (ossci-datasets.s3.amazonaws.com)", partial(fetch, "MNIST")),),
    first_train_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    first_test_labels=(7, 2, 1, 0, 4, 1, 4, 9, 5, 9),
    measured=True,
)
KMNIST_RECIPE = Recipe(
    info=KMNIST,
    sources=(Source("torchvision's download (codh.rois.ac.jp)", partial(fetch, "KMNIST")),),
    measured=True,
)
