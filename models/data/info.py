"""The description of a dataset, known before it is fetched."""

from dataclasses import asdict, dataclass
from typing import Any, cast

from models.data.description import InfoJson


@dataclass(frozen=True)
class DatasetInfo:
    """The description of a dataset: its classes, images, pixels and source.

    `mean` and `std` are those of the training images, per channel, with pixels from 0 to 1. Of a dataset
    that is measured when it is fetched (`Recipe.measured`) they are rounded here, and exact in what `load_dataset`
    returns.
    """

    name: str
    title: str
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    size: int
    num_train: int
    num_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    licence: str
    has_up_and_down: bool
    """Whether the images have an orientation, so that upside-down images do not occur in practice."""
    can_be_mirrored: bool
    """Whether the mirror image of an image is as likely, and of the same class. Digits and letters have none."""
    fit: str = "crop"
    """How pictures of other shapes become squares, here and in predictions: crop, pad or stretch."""
    class_counts: tuple[int, ...] | None = None
    """Training images of each class, including validation images; None if not known before they are fetched."""
    num_validation: int | None = None
    """Training images that the dataset's own validation split holds out; None without one."""
    num_groups: int | None = None
    """Number of groups of training images (one patient, one burst of photos); None without groups."""

    known: tuple[str, ...] = ()
    """What others have found to be wrong with a published dataset, with the source."""

    def as_json(self) -> InfoJson:
        """The entry as GET /datasets shows it."""
        members = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return cast(InfoJson, members)

    @classmethod
    def from_json(cls, data: InfoJson) -> "DatasetInfo":
        """Read back what `as_json` gave."""
        tuples = {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        members: dict[str, Any] = {**data, **tuples}
        return cls(**members)
