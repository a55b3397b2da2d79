"""Routes of a convolution's kernels, as pictures or numbers."""

import json
from enum import StrEnum
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.http.dependencies import DrawPlace, RenderingsDep, SettingsDep, StoreDep
from service.http.errors import problems
from service.http.pictures import MEDIA_TYPES, Picture, picture_headers, picture_responses
from service.http.routing import Id, StrictRoute
from service.kernels.draw import kernel_grid_json, render_kernels
from service.kernels.read import KernelSource, find_kernels

router = APIRouter(prefix="/experiments", tags=["kernels"], route_class=StrictRoute)
JSON_CONTENT = {"application/json": {"schema": {"type": "object"}}}


class KernelForm(StrEnum):
    """Format of kernels."""

    PNG = "png"
    """Pixels."""
    SVG = "svg"
    """Vectors, with the kernels as crisp pixels in them."""
    JSON = "json"
    """Numbers."""


@router.get(
    "/{experiment_id}/kernels.{form}",
    response_class=Response,
    responses={**picture_responses(**JSON_CONTENT), **problems(401, 404, 409, 422)},
)
def draw_kernels(
    experiment_id: Id,
    form: KernelForm,
    store: StoreDep,
    settings: SettingsDep,
    renderings: RenderingsDep,
    request: Request,
    _: Annotated[None, DrawPlace],
    layer: Annotated[
        str | None, Query(max_length=200, description="A convolution's name, as `layers` lists it; the first one.")
    ] = None,
    epoch: Annotated[
        str, Query(max_length=40, description="best, last, or an epoch's number (of the first convolution).")
    ] = "best",
    nearest: Annotated[
        bool, Query(description="If the epoch's kernels are not stored, use the nearest stored epoch.")
    ] = False,
    scaling: Annotated[
        Literal["layer", "kernel"], Query(description="Whether colours span the whole layer or each kernel.")
    ] = "layer",
    scale: Annotated[int | None, Query(ge=1, le=64, description="Pixels per weight in PNG.")] = None,
) -> Response:
    """Draw kernels as an image grid, in colour if the layer has three input channels."""
    with store.reading() as session:
        source = find_kernels(session, experiment_id, layer, epoch, settings.experiments_dir, nearest=nearest)
    if form is KernelForm.JSON:
        return renderings.respond(
            request, ("kernels", scaling, *source.key), "application/json", lambda: _as_json(source, scaling)
        )
    picture = Picture(form.value)
    return renderings.respond(
        request,
        ("kernels", scaling, scale, *source.key),
        MEDIA_TYPES[picture],
        lambda: _as_picture(source, scaling, picture, scale),
        picture_headers(picture),
    )


def _as_json(source: KernelSource, scaling: str) -> bytes:
    epoch, kernels = source.read()
    return json.dumps(kernel_grid_json(kernels, layer=source.layer, epoch=epoch, scaling=scaling)).encode()


def _as_picture(source: KernelSource, scaling: str, picture: Picture, scale: int | None) -> bytes:
    epoch, kernels = source.read()
    return render_kernels(kernels, title=source.title(epoch), scaling=scaling, format=picture.value, scale=scale)
