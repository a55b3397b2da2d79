"""The `dataset` and `augmentation` parts of a spec."""

from typing import Annotated, Literal

from pydantic import Field

from models.spec.base import Spec

Probability = Annotated[float, Field(ge=0, le=1)]


class DatasetSpec(Spec):
    """Which images, and how they are split. The split depends on these fields and on nothing else."""

    name: str = Field(
        default="cifar10", min_length=1, max_length=100, description="A name listed by GET /api/v1/datasets."
    )
    fingerprint: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8,64}$",
        description="Which version of an uploaded dataset, by its fingerprint or the first 8 digits of it. Left out, "
        "it is the newest that is ready, whose fingerprint is then stored here.",
    )
    val_fraction: float = Field(
        default=0.2, ge=0.01, le=0.9, description="Part of the training images that is held out for validation."
    )
    split: Literal["random", "stratified", "grouped", "given"] | None = Field(
        default=None,
        description="How images are held out: 'stratified' keeps the classes' shares, 'grouped' keeps the dataset's "
        "groups whole, 'given' takes the validation images that the dataset names. Null is given where the dataset "
        "names some, else grouped where it has groups, else random.",
    )
    split_seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the random train/validation split.")
    train_limit: int | None = Field(
        default=None, ge=2, le=100_000_000, description="Train on this many images of the training split, not all."
    )
    val_limit: int | None = Field(
        default=None, ge=1, le=100_000_000, description="Validate on this many images of the validation split, not all."
    )
    evaluate_test: bool = Field(
        default=False, description="Measure the best weights once on the test split when training has ended."
    )


class ColorJitterSpec(Spec):
    """Random colour changes, each drawn per image as torchvision's ColorJitter draws them."""

    brightness: float = Field(default=0.0, ge=0, le=1, description="Factor drawn from 1 - b to 1 + b.")
    contrast: float = Field(default=0.0, ge=0, le=1, description="Factor drawn from 1 - c to 1 + c.")
    saturation: float = Field(default=0.0, ge=0, le=1, description="Factor drawn from 1 - s to 1 + s.")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="Shift drawn from -h to h, in turns of the colour wheel.")


class AugmentationSpec(Spec):
    """What is done to training images, never to validation images. Everything is off by default."""

    hflip: Probability = Field(default=0.0, description="Probability of a horizontal flip.")
    vflip: Probability = Field(default=0.0, description="Probability of a vertical flip.")
    rotation_degrees: float = Field(default=0.0, ge=0, le=180, description="Rotate by up to this many degrees.")
    shift_pixels: int = Field(
        default=0, ge=0, le=64, description="Shift by up to this many pixels, edges filled by reflection."
    )
    crop_padding: int = Field(
        default=0, ge=0, le=64, description="Pad with zeros by this many pixels, then crop to size at random."
    )
    cutout_pixels: int = Field(default=0, ge=0, le=512, description="Side of one square set to the mean colour.")
    random_erase: Probability = Field(
        default=0.0, description="Probability of erasing a random rectangle, as torchvision's RandomErasing."
    )
    color_jitter: ColorJitterSpec = Field(default=ColorJitterSpec(), description="Random colour changes.")
    mixup_alpha: float = Field(
        default=0.0, ge=0, le=10, description="Mixup (Zhang et al. 2018): Beta(a, a) blends pairs of images; 0 is off."
    )
