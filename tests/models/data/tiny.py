"""A dataset of a few images, with sources that behave as a test wants."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.data.contents import pixel_statistics
from models.data.fetching import Recipe
from models.data.info import DatasetInfo
from models.data.sources import Arrays, ReportBytes, Source

NUM_TRAIN, NUM_TEST = 40, 8

_generator = np.random.default_rng(0)
IMAGES = _generator.integers(0, 256, (NUM_TRAIN, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(NUM_TRAIN) % 2
_mean, _std = pixel_statistics(IMAGES)

INFO = DatasetInfo(
    name="tiny",
    title="Tiny",
    num_classes=2,
    class_names=("even", "odd"),
    channels=3,
    size=8,
    num_train=NUM_TRAIN,
    num_test=NUM_TEST,
    mean=tuple(_mean.tolist()),
    std=tuple(_std.tolist()),
    source="a test",
    licence="none",
    has_up_and_down=False,
    can_be_mirrored=False,
)

Fetch = Callable[[Path, Arrays, ReportBytes], None]


def fill(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    """What a good source does."""
    progress("filling", 1, 2)
    arrays.train_images[:] = IMAGES
    arrays.train_labels[:] = LABELS
    arrays.test_images[:] = IMAGES[:NUM_TEST]
    arrays.test_labels[:] = LABELS[:NUM_TEST]


def recipe(*fetches: Fetch) -> Recipe:
    """Sources named for their place, in order."""
    sources = tuple(Source(f"source {number}", fetch) for number, fetch in enumerate(fetches, start=1))
    return Recipe(INFO, sources, (0, 1, 0), (0, 1, 0))


def quiet(label: str, done_bytes: int, total_bytes: int | None) -> None:
    """A progress callback that says nothing."""
