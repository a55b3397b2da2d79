"""Predictions for images that somebody sends."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from service.dependencies import CallerDep, Id, ServicesDep, StrictRoute
from service.http.disconnect import while_connected
from service.http.errors import problems
from service.http.schema import IMAGES_REQUEST_BODY
from service.http.uploads import read_images
from service.predictions.predict import PredictionsDocument, predict

router = APIRouter(prefix="/experiments", tags=["predictions"], route_class=StrictRoute)


@router.post(
    "/{experiment_id}/predictions",
    openapi_extra=IMAGES_REQUEST_BODY,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def create_predictions(
    experiment_id: Id,
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes to name, if there are so many.")] = 5,
    weights: Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")] = "best",
) -> PredictionsDocument:
    """Say what images show: labels and probabilities for each part named `image`, in the order sent."""
    whose = caller.name or (request.client.host if request.client else "")
    with services.predictions.room.upload(whose) as arrived:
        images = await read_images(request, arrived)
        services.doorkeeper.count_upload(caller, sum(len(image.data) for image in images))
        work = predict(services.predictor, services.predictions, whose, experiment_id, weights, images, top_k)
        return await while_connected(request, work)
