"""The JSON of datasets: dataset.json in a dataset's folder, and what is stored and sent of an uploaded version."""

from typing import NotRequired, TypedDict


class InfoJson(TypedDict):
    """A DatasetInfo (models.data.info), which says what the members mean, as JSON."""

    name: str
    title: str
    num_classes: int
    class_names: list[str]
    channels: int
    size: int
    num_train: int
    num_test: int
    mean: list[float]
    std: list[float]
    source: str
    licence: str
    has_up_and_down: bool
    can_be_mirrored: bool
    fit: str
    class_counts: list[int] | None
    num_validation: int | None
    num_groups: int | None
    known: NotRequired[list[str]]


class ClassCountJson(TypedDict):
    """One class and its images in each split; `train` does not count those of a given validation split."""

    name: str
    train: int
    validation: int
    test: int


class SkippedJson(TypedDict):
    """A file that is not in the dataset, and why."""

    file: str
    reason: str


class ImportReportJson(TypedDict, total=False):
    """An ImportReport (models.data.importing.options) as JSON. Earlier versions of Epochal stored fewer members."""

    layout: str
    classes: list[ClassCountJson]
    num_images: int
    num_train: int
    num_validation: int
    num_test: int
    channels: int
    image_size: int
    image_size_reason: str
    fit: str
    skipped: list[SkippedJson]
    num_skipped: int
    warnings: list[str]
    fingerprint: str


class DatasetNote(TypedDict, total=False):
    """dataset.json: what is written in a dataset's folder when it is fetched, imported or changed."""

    name: str
    layout: int
    """The version of the folder's layout."""
    source: str
    fingerprint: str
    content: str
    """The fingerprint of the arrays alone, of an imported dataset."""
    bytes: dict[str, int]
    """The size of each array's file."""
    mean: list[float]
    """Of the training images; this and the next two of a built-in dataset alone."""
    std: list[float]
    class_counts: list[int]
    info: InfoJson
    """Of an imported dataset, as are the next three."""
    sources: list[dict[str, str | int | None]]
    """The archive: file and bytes."""
    policy: dict[str, str | float | bool | None]
    """The ImportOptions."""
    report: ImportReportJson


class ImportChoices(TypedDict, total=False):
    """A client's choices for an import; ImportOptions has defaults for what is missing."""

    image_size: int | None
    fit: str
    on_broken: str
    group: str | None
    test_fraction: float | None
    seed: int


class VersionOptions(ImportChoices, total=False):
    """The origin of a version: the choices for its import, and how many images were changed since."""

    relabelled: int
    dropped: int


class DatasetProgress(TypedDict):
    """The progress of an import, a change or a check."""

    phase: str
    done: int
    total: int
    """0 while it is not known."""
    seconds_left: NotRequired[float | None]
    """An estimate for this phase."""


JobOptions = TypedDict(
    "JobOptions",
    {
        "archive": str,
        "filename": str,
        "import": ImportChoices,
        "made_of": int,
        "relabel": list[tuple[int, int]],
        "drop": list[int],
        "lost": int,
        "progress": DatasetProgress,
    },
    total=False,
)
"""What a job of a dataset needs.

An import: the archive's name in the folder of uploads, the file name that it was sent by, and the choices. A change:
the version that it starts from, (image, label) of those relabelled, and the images dropped. Any job: how many workers
or processes it has lost. A check: how far it is.
"""
