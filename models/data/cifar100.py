"""CIFAR-100: torchvision's download."""

from pathlib import Path
from typing import Any

from models.data.cifar10 import COPIES
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

CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)

CIFAR100 = DatasetInfo(
    name="cifar100",
    title="CIFAR-100",
    num_classes=100,
    class_names=tuple(name.replace("_", " ") for name in CLASSES.split()),
    channels=3,
    size=32,
    num_train=50_000,
    num_test=10_000,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
    licence="no licence stated; free for research, cite the technical report",
    has_up_and_down=True,
    can_be_mirrored=True,
    known=(COPIES.format(share="10%", train=891, test=104),),
)


def fetch(work: Path, arrays: Arrays, progress: ReportBytes, cls: Any = None) -> None:
    """The archive, read by torchvision."""
    cls = cls or dataset_class("CIFAR100")
    download_files([RemoteFile([cls.url], cls.filename, cls.tgz_md5)], work, progress)
    train, test = open_splits(
        lambda split: cls(work, train=split == "train", download=True), ("train", "test"), progress
    )
    put_arrays(train.data.transpose(0, 3, 1, 2), train.targets, train_part(arrays), "training")
    put_arrays(test.data.transpose(0, 3, 1, 2), test.targets, test_part(arrays), "test")


RECIPE = Recipe(info=CIFAR100, sources=(Source("torchvision's download (www.cs.toronto.edu)", fetch),), measured=True)
