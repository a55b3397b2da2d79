"""The JSON documents of datasets: built-in ones and uploaded ones with their versions, and their images."""

from datetime import datetime
from urllib.parse import quote

from pydantic import Field

from models.data.health.report import MOST_IDS, Severity
from models.data.info import DatasetInfo
from models.plain import JsonObject
from models.store.states import DatasetStatus
from models.store.tables import DatasetVersion
from service.http.documents import API, Document
from service.http.prefix import with_prefix

MOST_SKIPPED = 200
"""The most skipped files that a document lists."""


class DatasetProgressDocument(Document):
    """The progress of an import, a change or a check: a phase of it."""

    phase: str
    done: int = Field(description="Of `total`; it grows with the time that the phase takes.")
    total: int = Field(description="0 while it is not known.")
    seconds_left: float | None = Field(default=None, description="An estimate for this phase; null without one.")


class ClassSizeDocument(Document):
    """One class, and how many images of it each split has."""

    name: str
    train: int | None = Field(description="null for a built-in dataset that is not on this machine yet.")
    validation: int | None = Field(description="Images that the files themselves hold out for validation.")
    test: int | None


class SkippedDocument(Document):
    """A file of the archive that is not in the dataset."""

    file: str
    reason: str


class VersionItem(Document):
    """A version of an uploaded dataset, briefly."""

    version: int
    status: DatasetStatus
    fingerprint: str | None
    num_images: int | None
    made_of: int | None = Field(description="The version that images were relabelled in or dropped from.")
    created_at: datetime
    links: dict[str, str]


class DatasetDocument(Document):
    """A dataset that a spec can name: built in, or one version of an uploaded one."""

    name: str
    title: str
    built_in: bool
    version: int | None = Field(description="null for a built-in dataset.")
    status: DatasetStatus
    progress: DatasetProgressDocument | None = Field(description="While it is imported.")
    reason: JsonObject | None = Field(description="Why it failed, with the members of a problem document.")
    classes: list[ClassSizeDocument] = Field(description="In the order of their labels.")
    num_images: int | None
    num_train: int | None
    num_test: int | None
    skipped: list[SkippedDocument] = Field(description=f"The first {MOST_SKIPPED} files that were left out, and why.")
    num_skipped: int
    image_size: int | None = Field(description="The side of the stored images in pixels.")
    channels: int | None
    fingerprint: str | None = Field(description="Names the version in a spec: dataset.fingerprint.")
    layout: str | None = Field(description="How the files were understood.")
    warnings: list[str]
    options: JsonObject = Field(description="What the import was asked to do.")
    made_of: int | None = Field(description="The version that images were relabelled in or dropped from.")
    created_by: str | None = Field(description="Name of the key that made it.")
    created_at: datetime | None
    finished_at: datetime | None
    num_bytes: int | None
    versions: list[VersionItem] = Field(description="All versions, the newest first; empty for a built-in dataset.")
    links: dict[str, str]


class DatasetItem(Document):
    """A dataset in a list. Members that are not known, of a version that is being imported, are left out."""

    name: str
    title: str
    built_in: bool
    num_classes: int = 0
    class_names: list[str] = Field(default=[], description="In the order of their labels.")
    channels: int = 0
    size: int = Field(default=0, description="The side of the stored images in pixels.")
    num_train: int = 0
    num_test: int = 0
    mean: list[float] = Field(default=[], description="Of the training images, per channel, with pixels from 0 to 1.")
    std: list[float] = []
    source: str = ""
    licence: str = ""
    has_up_and_down: bool = Field(
        default=True, description="Whether images have an orientation, so that upside-down ones do not occur."
    )
    can_be_mirrored: bool = Field(default=True, description="Whether a mirrored image is as likely, of the same class.")
    fit: str = Field(default="crop", description="How pictures of other shapes become squares.")
    class_counts: list[int] | None = Field(default=None, description="Training images of each class, where known.")
    num_validation: int | None = Field(default=None, description="Training images that the files themselves hold out.")
    num_groups: int | None = Field(default=None, description="Groups of training images that belong together.")
    known: list[str] = Field(default=[], description="What others have found to be wrong with a published dataset.")
    version: int | None = Field(default=None, description="This and all below of an uploaded dataset alone.")
    status: DatasetStatus | None = None
    progress: DatasetProgressDocument | None = Field(default=None, description="While it is imported.")
    num_images: int | None = None
    fingerprint: str | None = None
    created_at: datetime | None = None
    links: dict[str, str] = {}


class DatasetsDocument(Document):
    """The datasets that a spec can name, built-in ones first."""

    datasets: list[DatasetItem]


class ImageItem(Document):
    """One image of a dataset."""

    id: int = Field(description="Its row: training images from 0 on, those of the test split behind them.")
    label: str
    split: str
    file: str | None = Field(description="Its path inside the archive.")
    width: int | None = Field(description="Of the picture in its file, in pixels.")
    height: int | None
    links: dict[str, str]


class ImagePage(Document):
    """One page of a dataset's images."""

    items: list[ImageItem]
    page: int
    pages: int
    total: int = Field(description="Images of this class and split.")


class HealthFindingDocument(Document):
    """One thing that the check of a version's images found."""

    code: str
    severity: Severity
    sentence: str
    image_ids: list[int] = Field(description=f"The first {MOST_IDS:,} of the images concerned.")
    num_images: int = Field(description="All images concerned.")
    figures: JsonObject = Field(description="Figures by name; each code has its own.")


class HealthReportDocument(Document):
    """All that the check of a version's images found, the worst first."""

    fingerprint: str
    num_images: int
    findings: list[HealthFindingDocument]
    features: str | None = Field(description="What labels were judged by; null if they were not.")


class HealthDocument(Document):
    """The findings on a dataset's images, in sentences with the images concerned."""

    name: str
    version: int | None = Field(description="null for a built-in dataset.")
    status: str = Field(description="checking, ready or failed.")
    progress: DatasetProgressDocument | None = Field(description="While a worker checks it.")
    reason: JsonObject | None = Field(description="Why the check failed, with the members of a problem document.")
    report: HealthReportDocument | None = Field(description="Of the last check; null before the first has ended.")
    links: dict[str, str]


def address_of(name: str, version: int | None = None) -> str:
    """The address of a dataset, or of one of its versions."""
    root = f"{API}/datasets/{quote(name, safe='')}"
    return with_prefix(root if version is None else f"{root}/versions/{version}")


def links_of(name: str, version: int | None) -> dict[str, str]:
    """The addresses of what belongs to a dataset."""
    root, query = address_of(name), "" if version is None else f"?version={version}"
    links = {"self": root, "images": f"{root}/images{query}", "page": with_prefix(f"/datasets/{quote(name, safe='')}")}
    return {**links, "health": f"{root}/health{query}"}


def version_document(row: DatasetVersion, versions: list[DatasetVersion]) -> DatasetDocument:
    """One version of an uploaded dataset."""
    report = row.report or {}
    return DatasetDocument(
        name=row.dataset,
        title=(row.info["title"] if row.info else "") or row.dataset,
        built_in=False,
        version=row.version,
        status=row.status,
        progress=None if row.progress is None else DatasetProgressDocument(**row.progress),
        reason=None if row.reason is None else {**row.reason},
        classes=[ClassSizeDocument(**counted) for counted in report.get("classes", [])],
        num_images=report.get("num_images"),
        num_train=report.get("num_train"),
        num_test=report.get("num_test"),
        skipped=[SkippedDocument(**skipped) for skipped in report.get("skipped", [])[:MOST_SKIPPED]],
        num_skipped=report.get("num_skipped", 0),
        image_size=report.get("image_size"),
        channels=report.get("channels"),
        fingerprint=row.fingerprint,
        layout=report.get("layout"),
        warnings=report.get("warnings", []),
        options={**row.options},
        made_of=row.made_of,
        created_by=row.owner,
        created_at=row.created_at,
        finished_at=row.finished_at,
        num_bytes=row.num_bytes,
        versions=[_version_item(found) for found in versions],
        links=links_of(row.dataset, row.version),
    )


def _version_item(row: DatasetVersion) -> VersionItem:
    return VersionItem(
        version=row.version,
        status=row.status,
        fingerprint=row.fingerprint,
        num_images=(row.report or {}).get("num_images"),
        made_of=row.made_of,
        created_at=row.created_at,
        links={"self": f"{address_of(row.dataset)}?version={row.version}"},
    )


def built_in_document(info: DatasetInfo, counts: list[tuple[int, int]] | None) -> DatasetDocument:
    """A built-in dataset; `counts` are each class's training and test images, None if it has not been fetched."""
    unknown: list[tuple[int | None, int | None]] = [(None, None)] * len(info.class_names)
    each = unknown if counts is None else counts
    return DatasetDocument(
        name=info.name,
        title=info.title,
        built_in=True,
        version=None,
        status=DatasetStatus.READY,
        progress=None,
        reason=None,
        classes=[
            ClassSizeDocument(name=name, train=train, validation=None, test=test)
            for name, (train, test) in zip(info.class_names, each, strict=True)
        ],
        num_images=info.num_train + info.num_test,
        num_train=info.num_train,
        num_test=info.num_test,
        skipped=[],
        num_skipped=0,
        image_size=info.size,
        channels=info.channels,
        fingerprint=None,
        layout=None,
        warnings=list(info.known),
        options={},
        made_of=None,
        created_by=None,
        created_at=None,
        finished_at=None,
        num_bytes=None,
        versions=[],
        links=links_of(info.name, None),
    )


def list_item(row: DatasetVersion) -> DatasetItem:
    """An uploaded dataset as lists show it: what a built-in one shows, as far as it is known, and its state."""
    item = DatasetItem(
        name=row.dataset,
        title=row.dataset,
        built_in=False,
        version=row.version,
        status=row.status,
        progress=None if row.progress is None else DatasetProgressDocument(**row.progress),
        num_images=(row.report or {}).get("num_images"),
        fingerprint=row.fingerprint,
        created_at=row.created_at,
        links=links_of(row.dataset, row.version),
    )
    return item if row.info is None else item.model_copy(update={**row.info})
