"""The German Traffic Sign Recognition Benchmark: torchvision's download, resized to 48 pixels."""

import zipfile
from pathlib import Path
from typing import Any

from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source, SourceFailed
from models.data.torchvision_sets import (
    RemoteFile,
    dataset_class,
    decode_all,
    download_files,
    open_splits,
    test_part,
    train_part,
)

GTSRB = DatasetInfo(
    name="gtsrb",
    title="GTSRB (German traffic signs)",
    num_classes=43,
    class_names=(
        "speed limit 20",
        "speed limit 30",
        "speed limit 50",
        "speed limit 60",
        "speed limit 70",
        "speed limit 80",
        "end of speed limit 80",
        "speed limit 100",
        "speed limit 120",
        "no passing",
        "no passing for lorries",
        "right-of-way at the next intersection",
        "priority road",
        "yield",
        "stop",
        "no vehicles",
        "no lorries",
        "no entry",
        "general caution",
        "dangerous curve to the left",
        "dangerous curve to the right",
        "double curve",
        "bumpy road",
        "slippery road",
        "road narrows on the right",
        "road work",
        "traffic signals",
        "pedestrians",
        "children crossing",
        "bicycles crossing",
        "beware of ice or snow",
        "wild animals crossing",
        "end of all limits",
        "turn right ahead",
        "turn left ahead",
        "ahead only",
        "straight on or right",
        "straight on or left",
        "keep right",
        "keep left",
        "roundabout",
        "end of no passing",
        "end of no passing for lorries",
    ),
    channels=3,
    size=48,
    num_train=26_640,
    num_test=12_630,
    mean=(0.34, 0.31, 0.32),
    std=(0.27, 0.26, 0.27),
    source="Stallkamp et al. 2012, Man vs. computer: Benchmarking machine learning algorithms for traffic sign "
    "recognition",
    licence="CC0-1.0",
    has_up_and_down=True,
    can_be_mirrored=False,
)

HOST = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
# names and MD5 as in torchvision.datasets.GTSRB
FILES = (
    ("GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
    ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
    ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
)


def fetch(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """The three archives, read by torchvision."""
    download_files([RemoteFile([HOST + name], f"gtsrb/{name}", md5) for name, md5 in FILES], work, progress)
    try:
        for name, _ in FILES:
            progress(f"unpacking {name}", 0, None)
            with zipfile.ZipFile(work / "gtsrb" / name) as archive:
                archive.extractall(work / "gtsrb")
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceFailed(f"{name} could not be unpacked: {error}") from error
    cls: Any = dataset_class("GTSRB")
    train, test = open_splits(lambda split: cls(work, split=split), ("train", "test"), progress)
    decode_all(train, train_part(arrays), progress)
    decode_all(test, test_part(arrays), progress)


RECIPE = Recipe(info=GTSRB, sources=(Source("torchvision's download (sid.erda.dk)", fetch),), measured=True)
