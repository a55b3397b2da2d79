"""The Oxford-IIIT Pets, cats and dogs by breed: torchvision's download, resized to 224 pixels."""

from pathlib import Path
from typing import Any

from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source
from models.data.torchvision_sets import (
    RemoteFile,
    dataset_class,
    decode_all,
    download_files,
    open_splits,
    test_part,
    train_part,
)

PETS = DatasetInfo(
    name="oxford-pets",
    title="Oxford-IIIT Pets",
    num_classes=37,
    class_names=(
        "Abyssinian",
        "American Bulldog",
        "American Pit Bull Terrier",
        "Basset Hound",
        "Beagle",
        "Bengal",
        "Birman",
        "Bombay",
        "Boxer",
        "British Shorthair",
        "Chihuahua",
        "Egyptian Mau",
        "English Cocker Spaniel",
        "English Setter",
        "German Shorthaired",
        "Great Pyrenees",
        "Havanese",
        "Japanese Chin",
        "Keeshond",
        "Leonberger",
        "Maine Coon",
        "Miniature Pinscher",
        "Newfoundland",
        "Persian",
        "Pomeranian",
        "Pug",
        "Ragdoll",
        "Russian Blue",
        "Saint Bernard",
        "Samoyed",
        "Scottish Terrier",
        "Shiba Inu",
        "Siamese",
        "Sphynx",
        "Staffordshire Bull Terrier",
        "Wheaten Terrier",
        "Yorkshire Terrier",
    ),
    channels=3,
    size=224,
    num_train=3_680,
    num_test=3_669,
    mean=(0.48, 0.45, 0.40),
    std=(0.26, 0.26, 0.27),
    source="Parkhi et al. 2012, Cats and Dogs",
    licence="CC-BY-SA-4.0",
    has_up_and_down=True,
    can_be_mirrored=True,
)


def fetch(work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The images and their annotations, read by torchvision."""
    cls = cls or dataset_class("OxfordIIITPet")
    files = [RemoteFile([url], f"oxford-iiit-pet/{url.rpartition('/')[2]}", md5) for url, md5 in cls._RESOURCES]
    download_files(files, work, progress)
    train, test = open_splits(lambda split: cls(work, split=split, download=True), ("trainval", "test"), progress)
    decode_all(train, train_part(arrays), progress)
    decode_all(test, test_part(arrays), progress)


RECIPE = Recipe(info=PETS, sources=(Source("torchvision's download (www.robots.ox.ac.uk)", fetch),), measured=True)
