"""STL-10's labelled images: torchvision's download."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source, SourceFailed
from models.data.torchvision_sets import RemoteFile, dataset_class, download_files, put_arrays, test_part, train_part

STL10 = DatasetInfo(
    name="stl10",
    title="STL-10",
    num_classes=10,
    class_names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
    channels=3,
    size=96,
    num_train=5_000,
    num_test=8_000,
    mean=(0.4467, 0.4398, 0.4066),
    std=(0.2603, 0.2566, 0.2713),
    source="Coates, Lee and Ng 2011, An Analysis of Single-Layer Networks in Unsupervised Feature Learning",
    licence="no licence stated; of ImageNet, for research",
    has_up_and_down=True,
    can_be_mirrored=True,
)


def fetch(work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The archive's four files of labelled images; the 2.8 GB of unlabelled ones are never unpacked."""
    cls = cls or dataset_class("STL10")
    download_files([RemoteFile([cls.url], cls.filename, cls.tgz_md5)], work, progress)
    progress("unpacking", 0, None)
    wanted = {f"{split}_{what}.bin" for split in ("train", "test") for what in ("X", "y")}
    found: dict[str, Any] = {}
    try:
        with tarfile.open(work / cls.filename) as tar:
            for member in tar:
                name, file = Path(member.name).name, tar.extractfile(member)
                if name in wanted and file is not None:
                    found[name] = np.frombuffer(file.read(), dtype=np.uint8)
                if found.keys() == wanted:
                    break
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SourceFailed(f"{cls.url} could not be read: {error}") from error
    if missing := sorted(wanted - found.keys()):
        raise SourceFailed(f"{cls.url} has no {', '.join(missing)}")
    for split, into in (("train", train_part(arrays)), ("test", test_part(arrays))):
        columns = found[f"{split}_X.bin"].reshape(-1, 3, 96, 96)  # each image column by column
        put_arrays(columns.swapaxes(2, 3), found[f"{split}_y.bin"].astype(np.int64) - 1, into, split)


RECIPE = Recipe(info=STL10, sources=(Source("torchvision's download (ai.stanford.edu)", fetch),), measured=True)
