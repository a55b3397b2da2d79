"""Pages of datasets: the list with the form for an upload, and one dataset with its classes, images and findings."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from models.data.description import ImportChoices
from models.data.importing.options import Fit, OnBroken
from models.data.uploaded import check_dataset_name, nearest_name
from models.errors import EpochalError, InvalidRequest
from models.store.states import DatasetStatus
from service.datasets.datasets import Datasets
from service.datasets.documents import DatasetDocument, address_of
from service.datasets.health import read_health
from service.datasets.images import list_images, open_images
from service.datasets.receive import Received, receive_archive
from service.datasets.routes import DatasetsDep, Split, find_row
from service.datasets.upload import check_options
from service.http.access import check_role
from service.http.dependencies import SettingsDep, StoreDep, WritesDep
from service.http.errors import problem_document
from service.http.prefix import with_prefix
from service.http.routing import MAX_ID, StrictRoute
from service.web.caller import PageCaller
from service.web.rendering import render

IMAGES = 60
FORM = "application/x-www-form-urlencoded, multipart/form-data"
router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get("/datasets")
def show_datasets(caller: PageCaller, datasets: DatasetsDep) -> Response:
    """Show the list of datasets, and the form for an upload."""
    return render("datasets.html", caller=caller, problem=None, given={}, **_list_context(datasets))


@router.post("/datasets")
async def upload_dataset(
    request: Request, caller: PageCaller, datasets: DatasetsDep, settings: SettingsDep, writes: WritesDep
) -> Response:
    """Upload by a form without scripts: the archive is the form's file. Redirects to the dataset's page."""
    check_role(caller, request)
    received: Received | None = None
    try:
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdigit() and len(length) < 19 else 0
        await writes.run(partial(datasets.check_room, num_bytes=announced), caller)
        received = await receive_archive(request, settings.uploads_dir, settings.max_dataset_mb * 1_000_000)
        name, options = _read_fields(received)
        check_dataset_name(name)
        make = partial(datasets.create, filename=received.filename, replace=False)
        chosen = check_options(name, options)
        await writes.run(make, name, received.archive.name, received.num_bytes, chosen, caller)
    except EpochalError as error:
        if received is not None:
            await to_thread.run_sync(_remove, received.archive)
        context = await to_thread.run_sync(_list_context, datasets)
        given = {} if received is None else received.fields
        problem = problem_document(error)
        return render("datasets.html", status_code=error.status, caller=caller, problem=problem, given=given, **context)
    return RedirectResponse(with_prefix(f"/datasets/{name}"), status_code=303)


@router.get("/datasets/{name}")
def show_dataset(
    name: str,
    caller: PageCaller,
    datasets: DatasetsDep,
    settings: SettingsDep,
    store: StoreDep,
    version: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
    label: Annotated[str | None, Query(alias="class", max_length=1000)] = None,
    split: Split | None = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Show a dataset: the progress of its import, its classes, images, skipped files and findings."""
    document = datasets.get(name, version)
    if document.status.value != "ready" and version is None and document.versions:
        document = datasets.get(name, document.versions[0].version)
    images, why = None, None
    if document.status.value == "ready":
        try:
            images = list_images(
                open_images(name, find_row(datasets, name, document.version), settings),
                settings,
                name=name,
                version=document.version,
                label=label or None,
                split=split,
                page=page,
                limit=IMAGES,
            )
        except EpochalError as error:
            why = error
    health = None
    if document.status.value == "ready":
        health = read_health(store, settings, datasets, name, document.version, ask=not document.built_in)
    return render(
        "dataset.html",
        caller=caller,
        dataset=document,
        images=images,
        why=why,
        health=health,
        label=label or "",
        split="" if split is None else split.value,
        most=_most(document),
        api=address_of(name),
    )


def _list_context(datasets: Datasets) -> dict[str, Any]:
    listed = datasets.list().datasets
    return {
        "uploaded": [item for item in listed if not item.built_in],
        "built_in": [item for item in listed if item.built_in],
        "busy": any(item.status is DatasetStatus.IMPORTING for item in listed),
        "fits": [choice.value for choice in Fit],
    }


def _most(document: DatasetDocument) -> int:
    """The images of the largest class, for the bars beside the classes."""
    return max((_total(one.train, one.validation, one.test) for one in document.classes), default=1) or 1


def _total(*counts: int | None) -> int:
    return sum(count or 0 for count in counts)


def _read_fields(received: Received) -> tuple[str, ImportChoices]:
    """The form's name and options. Raises InvalidRequest for a field of another kind."""
    fields = {name: value.strip() for name, value in received.fields.items() if value.strip()}
    name = fields.pop("name", "")
    options: ImportChoices = {"fit": fields.pop("fit", Fit.CROP.value), "on_broken": OnBroken.SKIP.value}
    if size := fields.pop("image_size", ""):
        if not size.isdecimal() or len(size) > 4:
            message = f"must be a number of pixels, not {size[:20]!r}"
            raise InvalidRequest(f"image_size {message}", errors=[{"field": "image_size", "message": message}])
        options["image_size"] = int(size)
    if fields:
        raise InvalidRequest(f"the form has the unknown field {next(iter(fields))[:50]!r}", fix="reload the page")
    return name or _name_of(received.filename), options


def _name_of(filename: str) -> str:
    stem = filename.rpartition("/")[2].partition(".")[0]
    return nearest_name(stem) or stem


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
