"""Accepts an upload of images: a request's body or a finished upload, checked before the body is read."""

from functools import partial
from typing import cast

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from models.data.description import ImportChoices
from models.data.importing.options import Fit, ImportOptions, OnBroken
from models.data.uploaded import check_dataset_name
from models.errors import FieldError, InvalidRequest
from service.datasets.datasets import Datasets
from service.datasets.documents import DatasetDocument
from service.datasets.receive import Received, receive_archive
from service.http.access import Caller
from service.http.disk_quotas import check_upload_size
from service.http.errors import invalid_fields, message_of
from service.http.preconditions import ANYTHING, Precondition
from service.http.queues import BoundedQueue


class Options(BaseModel):
    """An import's options in a request, which ImportOptions validates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int | None = None
    fit: Fit = Fit.CROP
    on_broken: OnBroken = OnBroken.SKIP
    group: str | None = None
    test_fraction: float | None = None
    seed: int = 0

    def checked(self, name: str) -> ImportChoices:
        """The options as they are stored. Raises InvalidRequest for an invalid one, such as a broken pattern."""
        return check_options(name, cast(ImportChoices, self.model_dump(mode="json")))


def check_options(name: str, given: ImportChoices) -> ImportChoices:
    """Options of an import as they are stored. Raises InvalidRequest with an entry for each that is wrong."""
    check_dataset_name(name)
    try:
        ImportOptions.model_validate({"name": name, **given})
    except ValidationError as error:
        entries: list[FieldError] = [
            {"field": str(found["loc"][0]) if found["loc"] else "group", "message": message_of(found["msg"])[:300]}
            for found in error.errors()
        ]
        raise invalid_fields(entries) from error
    return given


async def accept_upload(
    request: Request,
    name: str,
    datasets: Datasets,
    writes: BoundedQueue,
    caller: Caller,
    options: Options,
    upload: str | None,
    *,
    replace: bool,
    when: Precondition = ANYTHING,
) -> tuple[DatasetDocument, bool]:
    """Make a dataset of a request's body, or of a finished upload; whether its name is new.

    What can be refused without the body is refused before it is read.
    """
    chosen = options.checked(name)
    if upload is not None:
        make = partial(datasets.create_of_upload, replace=replace, when=when)
        return await writes.run(make, name, upload, chosen, caller)
    settings = datasets.settings
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdigit() and len(length) < 19 else 0
    check_upload_size(settings, announced)
    check = partial(datasets.check_upload, replace=replace, num_bytes=announced, when=when)
    await writes.run(check, name, caller)
    received = await receive_archive(request, settings.uploads_dir, settings.max_dataset_mb * 1_000_000)
    return await store_archive(datasets, writes, name, received, chosen, caller, replace=replace, when=when)


async def store_archive(
    datasets: Datasets,
    writes: BoundedQueue,
    name: str,
    received: Received,
    options: ImportChoices,
    caller: Caller,
    *,
    replace: bool,
    when: Precondition = ANYTHING,
) -> tuple[DatasetDocument, bool]:
    """Make a dataset of an archive that has arrived; it is removed if the dataset is refused."""
    try:
        if received.fields:
            named = ", ".join(sorted(received.fields))[:200]
            raise InvalidRequest(f"the form has the fields {named}; send them as query parameters", fix="see /docs")
        make = partial(datasets.create, filename=received.filename, replace=replace, when=when)
        return await writes.run(make, name, received.archive.name, received.num_bytes, options, caller)
    except BaseException:
        received.archive.unlink(missing_ok=True)
        raise
