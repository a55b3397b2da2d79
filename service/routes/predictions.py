"""Predictions for images that somebody sends."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request

from service.dependencies import CallerDep, Id, ServicesDep, StrictRoute
from service.errors import problems
from service.limits import MEGABYTE
from service.predictions import PredictionsDocument, predict
from service.schema import IMAGES_REQUEST_BODY
from service.uploads import Upload, read_images

router = APIRouter(prefix="/experiments", tags=["predictions"], route_class=StrictRoute)


async def read_uploads(request: Request, caller: CallerDep, services: ServicesDep) -> AsyncIterator[list[Upload]]:
    """The images of a request, read only once there is room for them, and room kept until they are answered."""
    announced = request.headers.get("content-length")
    num_bytes = int(announced) if announced else services.settings.max_upload_mb * MEGABYTE
    with services.predictions.place(num_bytes):
        images = await read_images(request)
        services.doorkeeper.count_upload(caller, sum(len(image.data) for image in images))
        yield images


@router.post(
    "/{experiment_id}/predictions",
    openapi_extra=IMAGES_REQUEST_BODY,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def create_predictions(
    experiment_id: Id,
    services: ServicesDep,
    uploads: Annotated[list[Upload], Depends(read_uploads, scope="function")],
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes to name, if there are so many.")] = 5,
    weights: Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")] = "best",
) -> PredictionsDocument:
    """Say what images show: labels and probabilities for each part named `image`, in the order sent."""
    return await to_thread.run_sync(
        predict, services.predictor, experiment_id, weights, uploads, top_k, limiter=services.predictors
    )
