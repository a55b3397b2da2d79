"""Route of predictions for uploaded images."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request

from service.http.dependencies import AuthenticatorDep, CallerDep, SettingsDep
from service.http.disconnect import while_connected
from service.http.errors import problems
from service.http.routing import Id, StrictRoute
from service.http.schema import IMAGES_REQUEST_BODY
from service.http.uploads import read_images
from service.predictions.predict import PredictionQueue, PredictionsDocument, predict
from service.predictions.predictor import Predictor

router = APIRouter(prefix="/experiments", tags=["predictions"], route_class=StrictRoute)


async def get_predictor(request: Request) -> Predictor:
    """Return the predictor."""
    predictor: Predictor = request.app.state.predictor
    return predictor


async def get_queue(request: Request) -> PredictionQueue:
    """Return the limits and the queue of predictions."""
    queue: PredictionQueue = request.app.state.predictions
    return queue


PredictorDep = Annotated[Predictor, Depends(get_predictor)]
QueueDep = Annotated[PredictionQueue, Depends(get_queue)]


@router.post(
    "/{experiment_id}/predictions",
    openapi_extra=IMAGES_REQUEST_BODY,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def create_predictions(
    experiment_id: Id,
    request: Request,
    caller: CallerDep,
    authenticator: AuthenticatorDep,
    settings: SettingsDep,
    predictor: PredictorDep,
    queue: QueueDep,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes to name, if there are so many.")] = 5,
    weights: Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")] = "best",
) -> PredictionsDocument:
    """Classify images: labels and probabilities for each part named `image`, in the order sent."""
    whose = caller.name or (request.client.host if request.client else "")
    with queue.room.upload(whose) as arrived:
        images = await read_images(request, arrived, settings.max_upload_mb * 1_000_000)
        authenticator.count_upload(caller, sum(len(image.data) for image in images))
        work = predict(predictor, queue, whose, experiment_id, weights, images, top_k)
        return await while_connected(request, work)
