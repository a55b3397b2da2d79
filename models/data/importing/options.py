"""The options of an import, and its report."""

import re
from enum import StrEnum
from typing import Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.data.description import ImportReportJson


class Fit(StrEnum):
    """How a picture of any shape becomes a square."""

    CROP = "crop"
    """The short side becomes `image_size`; of the long side the centre is kept."""
    PAD = "pad"
    """The long side becomes `image_size`; the rest is black."""
    STRETCH = "stretch"
    """Both sides become `image_size`; the proportions are lost."""


class OnBroken(StrEnum):
    """How an import handles a file that cannot be decoded."""

    SKIP = "skip"
    """It is left out and listed in the report."""
    REFUSE = "refuse"
    """The import is refused, naming it."""


COLUMN = "column"


class ImportOptions(BaseModel):
    """The options of an import. What is not given here is decided from the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="What a spec's dataset.name will say.")
    title: str = Field(default="", max_length=200, description="Shown to people; the name if empty.")
    image_size: int | None = Field(
        default=None, ge=8, le=1024, description="Side of the stored square in pixels; null: by the images' own sizes."
    )
    fit: Fit = Field(default=Fit.CROP, description="How a picture becomes a square.")
    on_broken: OnBroken = Field(default=OnBroken.SKIP, description="Whether a broken file is left out or refused.")
    group: str | None = Field(
        default=None,
        min_length=1,
        max_length=500,
        description="Images of one group never fall on both sides of a split: `column` (or `column:NAME`) takes the "
        "group from the table of labels, anything else is a regular expression that is searched in the file's path, "
        "whose first parenthesis (or whole match) is the group.",
    )
    test_fraction: float | None = Field(
        default=None,
        ge=0,
        le=0.9,
        description="Part of the images that becomes the test split where the files give none; null: 0.2 if they give "
        "no split at all, else 0. 0 makes an empty test split.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the random test split.")
    threads: int | None = Field(default=None, ge=1, le=256, description="Processes that decode; null: one a core.")
    can_be_mirrored: bool = Field(default=True, description="Whether a mirrored image is as likely, of the same class.")
    has_up_and_down: bool = Field(
        default=True, description="Whether images have an orientation, so that upside-down ones do not occur."
    )

    @model_validator(mode="after")
    def _group_can_be_searched(self) -> Self:
        if self.group is not None and not self.group_column:
            try:
                re.compile(self.group)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{self.group!r} is not a regular expression: {error}") from error
        return self

    @property
    def group_column(self) -> str | None:
        """The table column with the group: its name, or "" for the usual names; None if groups come from elsewhere."""
        if self.group is None:
            return None
        kind, _, name = self.group.partition(":")
        return name.strip() if kind.strip() == COLUMN else None


class ClassCount(BaseModel):
    """One class and its images in each split."""

    model_config = ConfigDict(frozen=True)

    name: str
    train: int
    validation: int
    test: int


class Skipped(BaseModel):
    """A file that is not in the dataset, and why."""

    model_config = ConfigDict(frozen=True)

    file: str
    reason: str


class ImportReport(BaseModel):
    """The report of an import: classes, counts, skipped files, warnings."""

    model_config = ConfigDict(frozen=True)

    layout: str = Field(description="How the files were understood.")
    classes: list[ClassCount] = Field(description="In the order of their labels.")
    num_images: int
    num_train: int = Field(description="With those of a given validation split.")
    num_validation: int = Field(description="Training images that the files themselves hold out; 0 where they do not.")
    num_test: int
    channels: int
    image_size: int
    image_size_reason: str
    fit: Fit
    skipped: list[Skipped] = Field(description="The first of the files that were left out, by name.")
    num_skipped: int
    warnings: list[str]
    fingerprint: str

    def as_json(self) -> ImportReportJson:
        """The report as it is stored and sent."""
        return cast(ImportReportJson, self.model_dump(mode="json"))
