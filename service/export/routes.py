"""Downloads of trained networks."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from service.export.export import export
from service.http.dependencies import SettingsDep, StoreDep
from service.http.errors import problems
from service.http.queues import BoundedQueue
from service.http.routing import Id, StrictRoute
from service.predictions.routes import PredictorDep

router = APIRouter(prefix="/experiments", tags=["export"], route_class=StrictRoute)
exports = BoundedQueue("exports", places=1, max_waiting=16)
BINARY = "application/octet-stream"
FILE = {BINARY: {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/{experiment_id}/export",
    response_class=Response,
    responses={200: {"description": "The file.", "content": FILE}, **problems(401, 403, 404, 409, 422, 429, 503)},
)
async def export_network(
    experiment_id: Id,
    store: StoreDep,
    settings: SettingsDep,
    predictor: PredictorDep,
    file_format: Annotated[
        Literal["onnx", "safetensors"],
        Query(
            alias="format",
            description="A self-contained ONNX file (uint8 images in, logits out), or the weights as stored.",
        ),
    ] = "onnx",
    weights: Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")] = "best",
) -> Response:
    """Download the network: what onnxruntime needs to give the predictions that are served, or its tensors."""
    exported = await exports.run(export, store, settings, predictor.graphs, experiment_id, weights, file_format)
    headers = {"Content-Disposition": f'attachment; filename="{exported.name}"', "ETag": f'"{exported.tag}"'}
    return StreamingResponse(exported.parts, media_type=BINARY, headers=headers)
