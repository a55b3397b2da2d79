"""Routes of models: names under which experiments' weights are served, with versions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from models.errors import InvalidRequest
from service.http.dependencies import BodyDep, CallerDep, WritePlace, WritesDep, get_caller
from service.http.errors import problems
from service.http.pictures import ETAG, NOT_MODIFIED
from service.http.preconditions import PreconditionDep, respond_with_version, version_of
from service.http.routing import MAX_ID, DirectRoute, Id, StrictRoute
from service.http.schema import IMAGES_REQUEST_BODY, MODEL_REQUEST_BODY
from service.http.uploads import read_images
from service.predictions.predict import PredictionsDocument, respond_predictions
from service.registry.documents import ModelDocument, ModelPage, VersionPage
from service.registry.models import Models
from service.registry.predict import predict_by_name

router = APIRouter(prefix="/models", tags=["models"], route_class=StrictRoute)
predictions = APIRouter(prefix="/models", tags=["models"], route_class=DirectRoute)
"""Paths that a viewer's key may POST to."""


async def get_models(request: Request) -> Models:
    """The lab's models."""
    models: Models = request.app.state.models
    return models


ModelsDep = Annotated[Models, Depends(get_models)]
Name = Annotated[str, Path(description="The model's name.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many on a page.")]
Cursor = Annotated[str | None, Query(max_length=2000, description="`next` of the previous page.")]
Number = Annotated[int | None, Query(ge=1, le=MAX_ID, description="A version; the one that is served if not given.")]


@router.put(
    "/{name}",
    openapi_extra=MODEL_REQUEST_BODY,
    responses={
        200: {"description": "The name's next version, which it serves now."},
        201: {
            "description": "The first version of a new name.",
            "model": ModelDocument,
            "headers": {"Location": {"schema": {"type": "string"}, "required": True}},
        },
        **problems(401, 403, 404, 409, 412, 413, 415, 422, 429, 503, 507),
    },
)
async def put_model(
    name: Name,
    body: BodyDep,
    caller: CallerDep,
    models: ModelsDep,
    writes: WritesDep,
    response: Response,
    when: PreconditionDep,
) -> ModelDocument:
    """Serve an experiment's weights under this name; every PUT creates the next version."""
    document, is_new = await writes.run(models.put, name, body.document, caller, when)
    response.headers["ETag"] = version_of(document)
    if is_new:
        response.status_code = 201
        response.headers["Location"] = document.links["self"]
    return document


@router.get("", responses=problems(401, 422))
def list_models(models: ModelsDep, cursor: Cursor = None, limit: Limit = 50) -> ModelPage:
    """List the names and what each serves, a page at a time."""
    return models.list(cursor, limit)


@router.get(
    "/{name}",
    response_model=ModelDocument,
    responses={200: {"headers": ETAG}, **NOT_MODIFIED, **problems(401, 404)},
)
def get_model(name: Name, models: ModelsDep, request: Request) -> Response:
    """Read the version that a name serves."""
    return respond_with_version(request, models.get(name))


@router.get("/{name}/versions", responses=problems(401, 404, 422))
def list_versions(name: Name, models: ModelsDep, cursor: Cursor = None, limit: Limit = 50) -> VersionPage:
    """List a name's versions, the newest first, withdrawn ones too."""
    return models.list_versions(name, cursor, limit)


async def _without_body(request: Request) -> None:
    """Raise InvalidRequest for a body that says something: its version would be passed over, and another be served."""
    if (await request.body()).strip() not in (b"", b"{}"):
        raise InvalidRequest("a rollback takes no body", fix="name the version in the address: POST .../rollback?to=1")


@router.post(
    "/{name}/rollback", dependencies=[Depends(_without_body)], responses=problems(401, 403, 404, 409, 412, 422)
)
def rollback_model(
    name: Name,
    models: ModelsDep,
    response: Response,
    when: PreconditionDep,
    _: Annotated[None, WritePlace],
    to: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="An earlier version; the one before if not given.")
    ] = None,
) -> ModelDocument:
    """Withdraw the version that is served, and serve the previous one again."""
    document = models.rollback(name, to, when)
    response.headers["ETag"] = version_of(document)
    return document


@router.delete("/{name}/versions/{version}", status_code=204, responses=problems(401, 403, 404, 409))
def withdraw_version(name: Name, version: Id, models: ModelsDep, _: Annotated[None, WritePlace]) -> None:
    """Withdraw a version that is not served, which frees its experiment."""
    models.withdraw(name, version)


@router.delete("/{name}", status_code=204, responses=problems(401, 403, 404, 412))
def delete_model(name: Name, models: ModelsDep, when: PreconditionDep, _: Annotated[None, WritePlace]) -> None:
    """Remove a name with all its versions; experiments and their weights stay."""
    models.delete(name, when)


@predictions.post(
    "/{name}/predictions",
    response_model=PredictionsDocument,
    openapi_extra=IMAGES_REQUEST_BODY,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def create_model_predictions(
    request: Request,
    name: Name,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes to name, if there are so many.")] = 5,
    version: Number = None,
) -> Response:
    """Classify images with a named model; request and answer are as for an experiment."""
    state, caller = request.app.state, await get_caller(request)
    whose = caller.name or (request.client.host if request.client else "")
    asked = await state.versions.find(name, version)
    with state.predictions.room.upload(whose) as arrived:
        images = await read_images(request, arrived, state.settings.max_upload_mb * 1_000_000)
        state.authenticator.count_upload(caller, sum(len(image.data) for image in images))
        return await respond_predictions(await predict_by_name(request, whose, asked, images, top_k))
