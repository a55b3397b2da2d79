"""Route of predictions for uploaded images."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from service.http.dependencies import get_caller
from service.http.errors import problems
from service.http.routing import DirectRoute, Id
from service.http.schema import IMAGES_REQUEST_BODY
from service.http.uploads import read_images
from service.predictions.predict import PredictionsDocument, predict_while_connected, respond_predictions
from service.predictions.predictor import Predictor

router = APIRouter(prefix="/experiments", tags=["predictions"], route_class=DirectRoute)


async def get_predictor(request: Request) -> Predictor:
    """Return the predictor."""
    predictor: Predictor = request.app.state.predictor
    return predictor


PredictorDep = Annotated[Predictor, Depends(get_predictor)]


@router.post(
    "/{experiment_id}/predictions",
    response_model=PredictionsDocument,
    openapi_extra=IMAGES_REQUEST_BODY,
    responses=problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
)
async def create_predictions(
    request: Request,
    experiment_id: Id,
    top_k: Annotated[int, Query(ge=1, le=1000, description="Classes to name, if there are so many.")] = 5,
    weights: Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")] = "best",
) -> Response:
    """Classify images: labels and probabilities for each part named `image`, in the order sent."""
    state, caller = request.app.state, await get_caller(request)
    whose = caller.name or (request.client.host if request.client else "")
    with state.predictions.room.upload(whose) as arrived:
        images = await read_images(request, arrived, state.settings.max_upload_mb * 1_000_000)
        state.authenticator.count_upload(caller, sum(len(image.data) for image in images))
        document = await predict_while_connected(request, whose, experiment_id, weights, images, top_k)
        return await respond_predictions(document)
