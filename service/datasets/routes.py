"""Routes of datasets: upload, list, get, images, check, change, delete."""

import base64
from enum import StrEnum
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from models.data.catalogue import DATASETS
from models.data.importing.options import Fit, OnBroken
from models.errors import InvalidRequest
from models.plain import JsonObject
from models.store.states import MeasurementKind
from models.store.tables import DatasetVersion
from service.catalogue.inspector import InspectorDep
from service.datasets.datasets import Datasets, Dropping, Relabelling
from service.datasets.documents import DatasetDocument, DatasetsDocument, HealthDocument, ImagePage
from service.datasets.health import check_again, read_health
from service.datasets.images import list_images, open_images, read_pixels
from service.datasets.upload import Options, accept_upload
from service.drawing.canvas import png
from service.http.body import parse_json_parameter
from service.http.dependencies import (
    BodyDep,
    CallerDep,
    RenderingsDep,
    SettingsDep,
    StoreDep,
    WritePlace,
    WritesDep,
)
from service.http.documents import Responses
from service.http.errors import problems
from service.http.fields import read_fields
from service.http.pictures import BINARY, ETAG, NOT_MODIFIED
from service.http.preconditions import PreconditionDep, respond_with_version
from service.http.rendered import etag, is_known
from service.http.routing import MAX_ID, StrictRoute
from service.http.schema import json_body
from service.measurements.preflights import PreflightsDep

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=StrictRoute)


async def get_datasets(request: Request) -> Datasets:
    """The lab's datasets."""
    datasets: Datasets = request.app.state.datasets
    return datasets


class Split(StrEnum):
    """The split that an image is in. A spec may hold out a part of `train` for validation where there is none."""

    TRAIN = "train"
    """Trained on."""
    VALIDATION = "validation"
    """Held out by the dataset itself."""
    TEST = "test"
    """Tested on at the end."""


DatasetsDep = Annotated[Datasets, Depends(get_datasets)]
Name = Annotated[str, Path(description="The dataset's name.", max_length=200)]
Version = Annotated[int | None, Query(ge=1, le=MAX_ID, description="A version; the newest that is ready if not given.")]
UploadId = Annotated[
    str | None, Query(alias="upload", max_length=100, description="A finished upload (/uploads) in place of a body.")
]
UPLOAD_BODY: JsonObject = {
    "requestBody": {
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("application/zip", "application/x-tar", "application/gzip", "application/octet-stream")
        }
        | {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary", "description": "The archive."}},
                    "required": ["file"],
                }
            }
        }
    }
}
UPLOADED = {
    202: {
        "description": "Stored; a worker imports it.",
        "headers": {"Location": {"schema": {"type": "string"}, "required": True}},
    },
    **problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
}
CHANGED = {
    202: {
        "description": "A worker makes the next version.",
        "headers": {"Location": {"schema": {"type": "string"}, "required": True}},
    },
    **problems(401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
}
PICTURE: Responses = {
    200: {"description": "The picture.", "content": {"image/png": BINARY}, "headers": ETAG},
    **NOT_MODIFIED,
}


async def read_options(
    image_size: Annotated[
        int | None, Query(ge=8, le=1024, description="Side of the stored square; by the images' sizes if not given.")
    ] = None,
    fit: Annotated[Fit, Query(description="How a picture of another shape becomes a square.")] = Fit.CROP,
    on_broken: Annotated[
        OnBroken, Query(description="Whether a file that cannot be read is left out or refused.")
    ] = OnBroken.SKIP,
    group: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=500,
            description="Images of one group stay in one split: `column`, `column:NAME`, or a regular expression on "
            "the path.",
        ),
    ] = None,
    test_fraction: Annotated[
        float | None, Query(ge=0, le=0.9, description="Part that becomes the test split, where the files give none.")
    ] = None,
    seed: Annotated[int, Query(ge=0, le=2**31 - 1, description="Of the random test split.")] = 0,
) -> Options:
    """The options of an import, from the query."""
    return Options.model_validate(
        {
            "image_size": image_size,
            "fit": fit,
            "on_broken": on_broken,
            "group": group,
            "test_fraction": test_fraction,
            "seed": seed,
        }
    )


OptionsDep = Annotated[Options, Depends(read_options)]


@router.get("", response_model_exclude_unset=True, responses=problems(401))
def list_all_datasets(datasets: DatasetsDep) -> DatasetsDocument:
    """List the datasets, built-in and uploaded, with their classes."""
    return datasets.list()


@router.post("", status_code=202, openapi_extra=UPLOAD_BODY, responses=UPLOADED)
async def create_dataset(
    name: Annotated[str, Query(max_length=200, description="What specs will call it: dataset.name.")],
    request: Request,
    caller: CallerDep,
    datasets: DatasetsDep,
    writes: WritesDep,
    options: OptionsDep,
    response: Response,
    upload: UploadId = None,
) -> DatasetDocument:
    """Upload images as a new dataset: a zip, tar or tar.gz, raw or in a form. A worker imports it."""
    document, _ = await accept_upload(request, name, datasets, writes, caller, options, upload, replace=False)
    response.headers["Location"] = document.links["self"]
    return document


@router.put("/{name}", status_code=202, openapi_extra=UPLOAD_BODY, responses=UPLOADED)
async def replace_dataset(
    name: Name,
    request: Request,
    caller: CallerDep,
    datasets: DatasetsDep,
    writes: WritesDep,
    options: OptionsDep,
    response: Response,
    when: PreconditionDep,
    upload: UploadId = None,
) -> DatasetDocument:
    """Upload images as a dataset's next version, or as the first of a new name. Earlier versions stay."""
    document, _ = await accept_upload(request, name, datasets, writes, caller, options, upload, replace=True, when=when)
    response.headers["Location"] = document.links["self"]
    return document


@router.get(
    "/{name}",
    response_model=DatasetDocument,
    responses={200: {"headers": ETAG}, **NOT_MODIFIED, **problems(401, 404, 422)},
)
def get_dataset(name: Name, datasets: DatasetsDep, request: Request, version: Version = None) -> Response:
    """Read a dataset: the progress of its import, classes, skipped files, warnings, versions."""
    return respond_with_version(request, datasets.get(name, version))


@router.delete(
    "/{name}",
    status_code=204,
    responses={204: {"description": "Deleted; an import of it is stopped."}, **problems(401, 403, 404, 409, 412, 503)},
)
def delete_dataset(name: Name, datasets: DatasetsDep, when: PreconditionDep, _: Annotated[None, WritePlace]) -> None:
    """Delete a dataset with all its versions."""
    datasets.delete(name, None, when)


@router.delete(
    "/{name}/versions/{version}",
    status_code=204,
    responses={204: {"description": "Deleted."}, **problems(401, 403, 404, 409, 503)},
)
def delete_dataset_version(
    name: Name,
    version: Annotated[int, Path(ge=1, le=MAX_ID, description="The version's number.")],
    datasets: DatasetsDep,
    _: Annotated[None, WritePlace],
) -> None:
    """Delete one version of a dataset."""
    datasets.delete(name, version)


@router.get("/{name}/images", responses=problems(401, 404, 409, 422))
def list_dataset_images(
    name: Name,
    datasets: DatasetsDep,
    settings: SettingsDep,
    version: Version = None,
    label: Annotated[
        str | None, Query(alias="class", max_length=1000, description="Only images of this class.")
    ] = None,
    split: Annotated[Split | None, Query(description="Only images of this split.")] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000, description="Counted from 1.")] = 1,
    limit: Annotated[int, Query(ge=1, le=200, description="Images on a page.")] = 60,
) -> ImagePage:
    """List a dataset's images, a page at a time."""
    row = find_row(datasets, name, version)
    number = None if row is None else row.version
    return list_images(
        open_images(name, row, settings),
        settings,
        name=name,
        version=number,
        label=label,
        split=split,
        page=page,
        limit=limit,
    )


@router.get(
    "/{name}/images/{image}.png", response_class=Response, responses={**PICTURE, **problems(401, 404, 409, 422)}
)
def get_dataset_image(
    name: Name,
    image: Annotated[int, Path(ge=0, le=MAX_ID, description="The image's id.")],
    datasets: DatasetsDep,
    settings: SettingsDep,
    renderings: RenderingsDep,
    request: Request,
    version: Version = None,
    scale: Annotated[int, Query(ge=1, le=64, description="Pixels a side that each of its pixels becomes.")] = 1,
) -> Response:
    """Read one image as it is stored."""
    dataset = open_images(name, find_row(datasets, name, version), settings)
    pixels = read_pixels(dataset, image, scale)
    key = ("dataset-image", dataset.fingerprint, image, scale)
    return renderings.respond(request, key, "image/png", lambda: png(pixels, 72))


@router.get(
    "/{name}/augmented.png", response_class=Response, responses={**PICTURE, **problems(401, 404, 409, 422, 429, 503)}
)
async def draw_augmented_images(
    name: Name,
    request: Request,
    caller: CallerDep,
    inspector: InspectorDep,
    preflights: PreflightsDep,
    writes: WritesDep,
    datasets: DatasetsDep,
    spec: Annotated[
        str, Query(max_length=8000, description="A spec as JSON, or a part of one: its model and augmentation.")
    ] = '{"model": "baseline"}',
    version: Version = None,
) -> Response:
    """Draw training images as the network sees them: a worker makes them with training's own augmentation."""
    row = await to_thread.run_sync(find_row, datasets, name, version)
    document = parse_json_parameter("spec", spec)
    if not isinstance(document, dict):
        raise InvalidRequest("spec must be an object", errors=[{"field": "spec", "message": "must be an object"}])
    part = _dataset_part(document, name)
    pinned = {} if row is None else {"fingerprint": _fingerprint_of(row, version, part.get("fingerprint"))}
    document = {"model": "baseline", **document, "dataset": {**part, "name": name, **pinned}}
    accepted = await writes.run(inspector.accept, document)
    tag = etag("augmented", accepted.spec.digest())
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    result = await preflights.ask(MeasurementKind.AUGMENTED, accepted, caller)
    return Response(base64.b64decode(result["png"]), headers=headers, media_type="image/png")


@router.get(
    "/{name}/health",
    responses={
        202: {"description": "It is being checked; `progress` says how far.", "model": HealthDocument},
        **problems(401, 404, 409, 422),
    },
)
def get_dataset_health(
    name: Name,
    datasets: DatasetsDep,
    store: StoreDep,
    settings: SettingsDep,
    response: Response,
    version: Version = None,
) -> HealthDocument:
    """Read what is wrong with a dataset's images; a worker checks each version once it is ready.

    A built-in dataset is checked when this is asked for the first time.
    """
    document = read_health(store, settings, datasets, name, version)
    assert document is not None
    response.status_code = 202 if document.status == "checking" else 200
    return document


@router.post(
    "/{name}/health",
    status_code=202,
    responses={202: {"description": "A worker checks it."}, **problems(401, 403, 404, 409, 422, 503)},
)
def check_dataset_again(
    name: Name,
    datasets: DatasetsDep,
    store: StoreDep,
    settings: SettingsDep,
    _: Annotated[None, WritePlace],
    version: Version = None,
) -> HealthDocument:
    """Have a worker check a dataset's images once more, after a check that failed, for instance."""
    return check_again(store, settings, datasets, name, version)


@router.post(
    "/{name}/relabel",
    status_code=202,
    openapi_extra=json_body(Relabelling, {"images": [{"id": 17, "label": "cat"}]}),
    responses=CHANGED,
)
async def relabel_images(
    name: Name,
    body: BodyDep,
    caller: CallerDep,
    datasets: DatasetsDep,
    writes: WritesDep,
    response: Response,
    version: Version = None,
) -> DatasetDocument:
    """Create the next version with some images relabelled; this version stays as it is."""
    changes = read_fields(Relabelling, body.document, example='{"images": [{"id": 17, "label": "cat"}]}')
    document = await writes.run(datasets.change, name, version, changes, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.post(
    "/{name}/drop",
    status_code=202,
    openapi_extra=json_body(Dropping, {"images": [17, 23]}),
    responses=CHANGED,
)
async def drop_images(
    name: Name,
    body: BodyDep,
    caller: CallerDep,
    datasets: DatasetsDep,
    writes: WritesDep,
    response: Response,
    version: Version = None,
) -> DatasetDocument:
    """Create the next version without some images; this version stays as it is."""
    changes = read_fields(Dropping, body.document, example='{"images": [17, 23]}')
    document = await writes.run(datasets.change, name, version, changes, caller)
    response.headers["Location"] = document.links["self"]
    return document


def _dataset_part(document: JsonObject, name: str) -> JsonObject:
    """The `dataset` part of a spec whose dataset the address names. Raises InvalidRequest if it names another."""
    given = document.get("dataset", name)
    part = {"name": given} if isinstance(given, str) else given
    if not isinstance(part, dict) or part.get("name", name) != name:
        message = f"must be left out, or be {name} as in the address"
        raise InvalidRequest(f"spec: dataset {message}", errors=[{"field": "spec.dataset.name", "message": message}])
    return part


def _fingerprint_of(row: DatasetVersion, version: int | None, given: Any) -> Any:
    """The version that images are drawn of: the spec's fingerprint if it has one, or the row's.

    Raises InvalidRequest if a spec's is another than that of the version in the address.
    """
    if given is None:
        return row.fingerprint
    if version is not None and not (isinstance(given, str) and (row.fingerprint or "").startswith(given)):
        message = f"must be left out, or be that of version {version} as in the address"
        where = "spec.dataset.fingerprint"
        raise InvalidRequest(f"{where} {message}", errors=[{"field": where, "message": message}])
    return given


def find_row(datasets: Datasets, name: str, version: int | None) -> DatasetVersion | None:
    """A version of an uploaded dataset, None for a built-in one. Raises NotFound."""
    if name in DATASETS:
        datasets.get(name, version)  # refuses a version
        return None
    with datasets.store.reading() as session:
        return datasets.find(session, name, version)
