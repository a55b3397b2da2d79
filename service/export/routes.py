"""Downloads of trained networks: of an experiment, or of a model's version."""

from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query
from starlette.responses import Response, StreamingResponse

from service.export.export import BINARY, Exported, ExportFormat, export
from service.http.dependencies import SettingsDep, StoreDep
from service.http.errors import problems
from service.http.queues import BoundedQueue
from service.http.routing import MAX_ID, Id, StrictRoute
from service.predictions.routes import PredictorDep
from service.registry.predict import find_version

router = APIRouter(tags=["export"], route_class=StrictRoute)
exports = BoundedQueue("exports", places=1, max_waiting=16)
FILE = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in (BINARY, "application/zip")}
Form = Annotated[
    ExportFormat,
    Query(
        alias="format",
        description="A self-contained ONNX file (uint8 images in, logits out), the weights as stored, or a zip of both "
        "with labels, a model card, a parity certificate and a program that classifies; `served` is what "
        "`epochal classify --csv` predicts with.",
    ),
]


@router.get(
    "/experiments/{experiment_id}/export",
    response_class=Response,
    responses={200: {"description": "The file.", "content": FILE}, **problems(401, 403, 404, 409, 422, 429, 503)},
)
async def export_network(
    experiment_id: Id,
    store: StoreDep,
    settings: SettingsDep,
    predictor: PredictorDep,
    form: Form = ExportFormat.ONNX,
    weights: Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")] = "best",
) -> Response:
    """Download the network: what onnxruntime needs to give the predictions that are served, or its tensors."""
    return _respond(await exports.run(export, store, settings, predictor.graphs, experiment_id, weights, form))


@router.get(
    "/models/{name}/export",
    response_class=Response,
    responses={200: {"description": "The file.", "content": FILE}, **problems(401, 403, 404, 409, 422, 429, 503)},
)
async def export_model(
    name: Annotated[str, Path(description="The model's name.")],
    store: StoreDep,
    settings: SettingsDep,
    predictor: PredictorDep,
    form: Form = ExportFormat.ONNX,
    version: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="A version; the one that is served if not given.")
    ] = None,
) -> Response:
    """Download the network that a model serves."""
    asked = await to_thread.run_sync(find_version, store, name, version)
    whose = (asked.experiment_id, asked.weights, form, asked.name, asked.version)
    return _respond(await exports.run(export, store, settings, predictor.graphs, *whose))


def _respond(exported: Exported) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{exported.name}"', "ETag": f'"{exported.tag}"'}
    return StreamingResponse(exported.parts, media_type=exported.media_type, headers=headers)
