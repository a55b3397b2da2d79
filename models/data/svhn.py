"""Street View House Numbers, cropped digits: torchvision's download."""

from pathlib import Path
from typing import Any

from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source
from models.data.torchvision_sets import (
    RemoteFile,
    dataset_class,
    download_files,
    open_splits,
    put_arrays,
    test_part,
    train_part,
)

SVHN = DatasetInfo(
    name="svhn",
    title="SVHN (cropped digits)",
    num_classes=10,
    class_names=tuple("0123456789"),
    channels=3,
    size=32,
    num_train=73_257,
    num_test=26_032,
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    source="Netzer et al. 2011, Reading Digits in Natural Images with Unsupervised Feature Learning",
    licence="no licence stated; for non-commercial use",
    has_up_and_down=True,
    can_be_mirrored=False,
    class_counts=(4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
)


def fetch(work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The two MATLAB files, read by torchvision, which needs scipy for it."""
    cls = cls or dataset_class("SVHN")
    splits = {split: cls.split_list[split] for split in ("train", "test")}
    download_files([RemoteFile([url], file, md5) for url, file, md5 in splits.values()], work, progress)
    train, test = open_splits(lambda split: cls(str(work), split=split), tuple(splits), progress)
    put_arrays(train.data, train.labels, train_part(arrays), "training")
    put_arrays(test.data, test.labels, test_part(arrays), "test")


RECIPE = Recipe(info=SVHN, sources=(Source("torchvision's download (ufldl.stanford.edu)", fetch),), measured=True)
