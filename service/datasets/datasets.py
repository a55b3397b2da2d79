"""Use cases of datasets: create from an upload, list, get, change, delete. Imports are done by workers."""

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from models.data.catalogue import DATASETS, get_dataset, list_datasets
from models.data.changing import plan_change
from models.data.dataset import is_fetched
from models.data.description import ImportChoices, JobOptions, VersionOptions
from models.data.fetching import dataset_folder
from models.data.importing.names import class_name
from models.data.info import DatasetInfo
from models.data.uploaded import check_dataset_name, remove_version
from models.errors import Conflict, FieldError, NotFound, TooManyRequests, Unavailable
from models.settings import Settings
from models.store import Store, datasets
from models.store.states import DatasetJobKind, DatasetStatus
from models.store.tables import DatasetVersion
from models.uploads import find_upload, give_back_archive, take_archive
from service.datasets.documents import (
    DatasetDocument,
    DatasetItem,
    DatasetsDocument,
    built_in_document,
    list_item,
    version_document,
)
from service.datasets.images import open_images
from service.http.access import Caller
from service.http.disk_quotas import check_disk_quota
from service.http.errors import invalid_fields
from service.http.preconditions import ANYTHING, Precondition

MAX_IMPORTS_A_KEY = 5
MAX_IMPORTS = 50
"""The most versions that wait for a worker or are being made, for one key and for all."""
MAX_CHANGES = 15_000
"""The most images that one request can relabel or drop."""


class Relabelled(BaseModel):
    """One image, and the class that it belongs to."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: int = Field(ge=0, description="The image's id, as in lists of images.")
    label: str = Field(max_length=1000, description="The name of a class.")


class Relabelling(BaseModel):
    """Images that get another label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[Relabelled] = Field(min_length=1, max_length=MAX_CHANGES)


class Dropping(BaseModel):
    """Images that are left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[int] = Field(min_length=1, max_length=MAX_CHANGES, description="Their ids.")


@dataclass(frozen=True, slots=True)
class Datasets:
    """The lab's datasets."""

    settings: Settings
    store: Store

    def check_upload(
        self, name: str, caller: Caller, *, replace: bool, num_bytes: int, when: Precondition = ANYTHING
    ) -> None:
        """Refuse an upload before its body is read, for the reasons for which it would be refused afterwards.

        Raises InvalidRequest for what cannot be a name, Conflict for one that is taken, DiskQuota, TooManyRequests,
        PreconditionFailed.
        """
        check_dataset_name(name)
        with self.store.reading() as session:
            when.check(lambda: self._describe(session, self.find(session, name, None)))
            self._check(session, name, caller, replace=replace, num_bytes=num_bytes)

    def check_room(self, caller: Caller, *, num_bytes: int) -> None:
        """Check the caller's limits before an upload whose name is not known yet. Raises as `check_upload`."""
        with self.store.reading() as session:
            self._check_limits(session, caller)
            check_disk_quota(session, self.settings, caller, num_bytes)

    def create(
        self,
        name: str,
        archive: str,
        num_bytes: int,
        options: ImportChoices,
        caller: Caller,
        *,
        filename: str,
        replace: bool,
        when: Precondition = ANYTHING,
    ) -> tuple[DatasetDocument, bool]:
        """Create a name's next version from an archive in the uploads folder. Returns it and whether the name is new.

        Raises as `check_upload` does. Of two requests with one new name, one makes it and the other gets Conflict.
        """
        check_dataset_name(name)
        with self.store.writing() as session:
            when.check(lambda: self._describe(session, self.find(session, name, None)))
            self._check(session, name, caller, replace=replace, num_bytes=0)
            row = datasets.create_version(
                session,
                name,
                owner=caller.name,
                options=options,
                job=DatasetJobKind.IMPORT,
                job_options={"archive": archive, "filename": _printable(filename)[:200], "import": options},
                num_bytes=num_bytes,
            )
            return self._describe(session, row), row.version == 1

    def create_of_upload(
        self,
        name: str,
        upload_id: str,
        options: ImportChoices,
        caller: Caller,
        *,
        replace: bool,
        when: Precondition = ANYTHING,
    ) -> tuple[DatasetDocument, bool]:
        """As `create`, from a finished upload, which is kept if the dataset is refused."""
        self.check_upload(name, caller, replace=replace, num_bytes=0, when=when)
        folder = self.settings.uploads_dir
        note = find_upload(folder, upload_id, caller.name or "")
        archive = take_archive(folder, note)
        try:
            filename = note.filename
            return self.create(
                name, archive, note.length, options, caller, filename=filename, replace=replace, when=when
            )
        except Exception:
            give_back_archive(folder, note, archive)
            raise

    def list(self) -> DatasetsDocument:
        """Every dataset: built-in ones, then uploaded ones by name."""
        built_in = [DatasetItem(**info.as_json(), built_in=True) for info in list_datasets()]
        with self.store.reading() as session:
            uploaded = [list_item(datasets.get_version(session, name)) for name in datasets.list_names(session)]
        return DatasetsDocument(datasets=[*built_in, *uploaded])

    def get(self, name: str, version: int | None) -> DatasetDocument:
        """One dataset: a version of it, by default the newest that is ready. Raises NotFound."""
        if name in DATASETS:
            if version is not None:
                raise NotFound(f"{name} is built in and has no versions", fix=f"GET /api/v1/datasets/{name}")
            info = get_dataset(name)
            return built_in_document(info, _count_classes(info, self.settings))
        with self.store.reading() as session:
            return self._describe(session, self.find(session, name, version))

    def find(self, session: Session, name: str, version: int | None) -> DatasetVersion:
        """A version of an uploaded dataset. Raises NotFound with the nearest name."""
        names = datasets.list_names(session)
        if name not in names:
            near = get_close_matches(name[:100], [*DATASETS, *names], n=1, cutoff=0.5)
            raise NotFound(
                f"there is no dataset '{name[:100]}'" + (f"; did you mean '{near[0]}'?" if near else ""),
                fix="GET /api/v1/datasets lists them",
            )
        return datasets.get_version(session, name, version)

    def delete(self, name: str, version: int | None, when: Precondition = ANYTHING) -> None:
        """Delete a name with all its versions, or one version; an import is stopped by its worker.

        Raises NotFound, Conflict while an experiment that has not ended names it, PreconditionFailed.
        """
        self._check_uploaded(name, "deleted")
        with self.store.writing() as session:
            found = self.find(session, name, version)
            when.check(lambda: self._describe(session, found))
            archives = datasets.unclaimed_archives(session, name, version)
            gone = datasets.delete(session, name, version)
        for archive in archives:  # that of an import which has begun is removed by its worker
            (self.settings.uploads_dir / archive).unlink(missing_ok=True)
        for number in gone:
            remove_version(self.settings.datasets_dir, name, number)

    def change(
        self, name: str, version: int | None, changes: Relabelling | Dropping, caller: Caller
    ) -> DatasetDocument:
        """Make the next version of one that is ready, with images relabelled or dropped; a worker writes it.

        Raises NotFound, InvalidRequest for what is no image or no class, and Conflict if there are no images yet, or if
        too little would be left.
        """
        self._check_uploaded(name, "changed")
        with self.store.reading() as session:
            source = self.find(session, name, version)
        images = open_images(name, source, self.settings)
        job: JobOptions = {"made_of": source.version, "relabel": [], "drop": []}
        options: VersionOptions = {**source.options}
        if isinstance(changes, Relabelling):
            job["relabel"] = _read_labels(changes, images.info)
            options["relabelled"] = len(changes.images)
        else:
            job["drop"] = _read_ids(changes.images, images.info)
            options["dropped"] = len(changes.images)
        plan_change(images, dict(job["relabel"]), job["drop"])
        with self.store.writing() as session:
            source = self.find(session, name, source.version)
            self._check_limits(session, caller)
            check_disk_quota(session, self.settings, caller, source.num_bytes)
            row = datasets.create_version(
                session,
                name,
                owner=caller.name,
                options=options,
                job=DatasetJobKind.CHANGE,
                job_options=job,
                num_bytes=source.num_bytes,
                made_of=source.version,
            )
            return self._describe(session, row)

    def _check(self, session: Session, name: str, caller: Caller, *, replace: bool, num_bytes: int) -> None:
        versions = datasets.list_versions(session, name)
        datasets.check_not_importing(versions)
        if not replace and any(found.status is DatasetStatus.READY for found in versions):
            raise Conflict(
                f"there is a dataset {name} already",
                fix=f"PUT /api/v1/datasets/{name} makes its next version; or take another name, or delete it first",
            )
        self._check_limits(session, caller)
        check_disk_quota(session, self.settings, caller, num_bytes)

    def _check_limits(self, session: Session, caller: Caller) -> None:
        if caller.name is not None:
            own = datasets.count_importing(session, caller.name)
            if own >= MAX_IMPORTS_A_KEY:
                raise TooManyRequests(
                    f"'{caller.name}' has {own} datasets waiting or being imported, of {MAX_IMPORTS_A_KEY}",
                    fix="wait until they are ready, then send it again",
                    retry_after_seconds=30,
                )
        waiting = datasets.count_importing(session)
        if waiting >= MAX_IMPORTS:
            raise Unavailable(
                f"{waiting} datasets wait for their import already", fix="try again later", retry_after_seconds=30
            )

    def _check_uploaded(self, name: str, what: str) -> None:
        if name in DATASETS:
            raise Conflict(f"{name} is built in and cannot be {what}")

    def _describe(self, session: Session, row: DatasetVersion) -> DatasetDocument:
        session.flush()
        return version_document(row, datasets.list_versions(session, row.dataset))


def _printable(filename: str) -> str:
    """A name as it can be stored: without NUL and other control characters, and without bytes that are no text."""
    return "".join(filter(str.isprintable, filename))


def _count_classes(info: DatasetInfo, settings: Settings) -> list[tuple[int, int]] | None:
    if not is_fetched(info, settings.cache_dir):
        return None
    folder = dataset_folder(info, settings.cache_dir)
    counts = (
        np.bincount(np.load(folder / f"{split}_labels.npy"), minlength=info.num_classes).tolist()
        for split in ("train", "test")
    )
    return list(zip(*counts, strict=True))


def _read_labels(changes: Relabelling, info: DatasetInfo) -> list[tuple[int, int]]:
    """Each image's id and the number of its new class. Raises InvalidRequest that names each one that is wrong."""
    numbers = {name: number for number, name in enumerate(info.class_names)}
    wrong: list[FieldError] = []
    for place, image in enumerate(changes.images):
        if class_name(image.label) not in numbers:
            near = get_close_matches(image.label, info.class_names, n=1, cutoff=0)
            message = f"there is no class {image.label[:100]!r}"
            wrong.append({"field": f"images.{place}.label", "message": message, "nearest": near[0]})
    if wrong:
        raise invalid_fields(wrong)
    ids = _read_ids([image.id for image in changes.images], info, member=".id")
    return [(image, numbers[class_name(one.label)]) for image, one in zip(ids, changes.images, strict=True)]


def _read_ids(ids: list[int], info: DatasetInfo, *, member: str = "") -> list[int]:
    """The ids, checked. Raises InvalidRequest that names each one that is no image's, or there twice."""
    most = info.num_train + info.num_test
    first: dict[int, int] = {}
    wrong: list[FieldError] = []
    for place, image in enumerate(ids):
        if not 0 <= image < most:
            message = f"{image} is not an image; ids are 0 to {most - 1}"
        elif first.setdefault(image, place) != place:
            message = f"image {image} is named twice, first in images.{first[image]}; name each image once"
        else:
            continue
        wrong.append({"field": f"images.{place}{member}", "message": message, "value": image})
    if wrong:
        raise invalid_fields(wrong)
    return ids
