"""Routes of the Open Inference Protocol, version 2, which clients of KServe and Triton use."""

from importlib import metadata
from typing import Annotated

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Request, Response

from models.errors import Conflict, CorruptFile, NotFound
from models.plain import JsonObject
from models.preprocessing import Preprocessing
from models.store import Store, registry
from service.http.dependencies import AuthenticatorDep, CallerDep, SettingsDep, StoreDep, authorise_viewer
from service.http.documents import INFERENCE
from service.http.routing import StrictRoute
from service.open_inference.bodies import read_body
from service.open_inference.tensors import (
    CALIBRATED,
    FITTED_OUTPUTS,
    HEADER_LENGTH,
    INPUT,
    KNOWN,
    OUTPUTS,
    PROBABILITIES,
    Inference,
    pixel_shape,
    read_inference,
    write_answer,
)
from service.predictions.predict import PredictionsDocument
from service.predictions.predictor import Predictor, Served
from service.predictions.routes import PredictorDep
from service.registry.predict import Asked, find_version, predict_by_name

PLATFORM = "onnxruntime_onnx"
EXTENSIONS = ["binary_tensor_data"]
ALL_CLASSES = 100_000

health = APIRouter(prefix=INFERENCE, route_class=StrictRoute, include_in_schema=False)
"""Routes that need no key."""
router = APIRouter(
    prefix=INFERENCE, route_class=StrictRoute, include_in_schema=False, dependencies=[Depends(authorise_viewer)]
)
Name = Annotated[str, Path()]


@health.get("/health/live")
async def get_live() -> JsonObject:
    """Report that the server is alive."""
    return {"live": True}


@health.get("/health/ready")
def get_ready(store: StoreDep) -> JsonObject:
    """Report whether the server is ready: whether the database answers. The protocol's text names the member `live`."""
    with store.reading() as session:
        registry.list_models(session, after="", limit=1)
    return {"live": True, "ready": True}


@router.get("")
async def get_server() -> JsonObject:
    """Read the server's name, version and extensions."""
    return {"name": "epochal", "version": metadata.version("epochal"), "extensions": EXTENSIONS}


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
def get_metadata(name: Name, store: StoreDep, predictor: PredictorDep, version: str | None = None) -> JsonObject:
    """Read a model's versions, inputs and outputs."""
    asked = find_asked(store, name, version)
    served = find_served(predictor, asked)
    wanted = served.weights.preprocessing
    with store.reading() as session:
        versions = sorted(registry.usable_versions(session, name))
    pixels = [-1, *pixel_shape(wanted)]
    return {
        "name": name,
        "versions": [str(number) for number in versions],
        "platform": PLATFORM,
        "inputs": [
            {"name": INPUT, "datatype": "BYTES", "shape": [-1]},
            {"name": INPUT, "datatype": "UINT8", "shape": pixels},
            {"name": INPUT, "datatype": "FP32", "shape": pixels},
        ],
        "outputs": [_output(name, len(wanted.class_names)) for name in output_names(served)],
        "parameters": {"class_names": list(wanted.class_names)},
    }


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
def get_model_ready(name: Name, store: StoreDep, predictor: PredictorDep, version: str | None = None) -> JsonObject:
    """Report whether a model is ready: whether its weights exist and are intact."""
    find_served(predictor, find_asked(store, name, version))
    return {"name": name, "ready": True}


@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(
    name: Name,
    request: Request,
    store: StoreDep,
    settings: SettingsDep,
    caller: CallerDep,
    authenticator: AuthenticatorDep,
    predictor: PredictorDep,
    version: str | None = None,
) -> Response:
    """Run inference on a tensor of images; returns tensors."""
    whose = caller.name or (request.client.host if request.client else "")
    asked = await to_thread.run_sync(find_asked, store, name, version)
    served = await to_thread.run_sync(find_served, predictor, asked)
    wanted, names = served.weights.preprocessing, output_names(served)
    with request.app.state.predictions.room.upload(whose) as arrived:
        body = await read_body(request, arrived, settings.max_upload_mb * 1_000_000)
        authenticator.count_upload(caller, len(body))
        inference = await to_thread.run_sync(read_inference, body, request.headers.get(HEADER_LENGTH), wanted, names)
        del body
        answered = await predict_by_name(request, whose, asked, inference.images, ALL_CLASSES)
        return await to_thread.run_sync(_respond, inference, answered, wanted)


def find_asked(store: Store, name: str, version: str | None) -> Asked:
    """The version of a model in a path. Raises NotFound if there is none, Conflict if it was withdrawn."""
    if version is not None and not (version.isascii() and version.isdigit() and len(version) < 10):
        raise NotFound(f"model '{name[:100]}' has no version '{version[:100]}'; versions are numbers")
    return find_version(store, name, None if version is None else int(version))


def find_served(predictor: Predictor, asked: Asked) -> Served:
    """A version's weights. Raises Conflict where they are not there or damaged."""
    try:
        return predictor.find(asked.experiment_id, asked.weights)
    except CorruptFile as error:
        raise Conflict(f"version {asked.version} of model '{asked.name}': {error.detail}") from error


def output_names(served: Served) -> tuple[str, ...]:
    """The names of the outputs that these weights have."""
    return OUTPUTS if served.calibration is None else FITTED_OUTPUTS


def _output(name: str, num_classes: int) -> JsonObject:
    if name in (PROBABILITIES, CALIBRATED):
        return {"name": name, "datatype": "FP32", "shape": [-1, num_classes]}
    return {"name": name, "datatype": "BOOL" if name == KNOWN else "BYTES", "shape": [-1]}


def _respond(inference: Inference, answered: PredictionsDocument, wanted: Preprocessing) -> Response:
    probabilities = np.zeros((len(answered.predictions), len(wanted.class_names)), np.float32)
    calibrated = np.zeros_like(probabilities)
    for row, fitted, prediction in zip(probabilities, calibrated, answered.predictions, strict=True):
        for likely in prediction.top:
            row[likely.index] = likely.probability
            fitted[likely.index] = likely.calibrated_probability or 0.0
    known = np.array([bool(prediction.known) for prediction in answered.predictions])
    about: JsonObject = {
        "model_name": answered.model,
        "model_version": str(answered.version),
        **({} if inference.id is None else {"id": inference.id}),
        "parameters": {
            "experiment_id": answered.experiment_id,
            "epoch": answered.epoch,
            **answered.timings.model_dump(),
        },
    }
    labels = [prediction.label for prediction in answered.predictions]
    body, header_length = write_answer(
        about, probabilities, labels, inference.outputs, calibrated=calibrated, known=known
    )
    if header_length is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={HEADER_LENGTH: str(header_length)})
