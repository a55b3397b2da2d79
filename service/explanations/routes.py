"""Routes for the prediction of one image in detail: explanations, feature maps, timelines."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from models.store import experiments
from service.explanations.ask import Explainer
from service.explanations.draw_explanation import render_explanation
from service.explanations.draw_feature_maps import render_feature_maps
from service.explanations.draw_timeline import render_timeline
from service.explanations.explain import ExplanationDocument, Method, explain
from service.explanations.feature_maps import compute_feature_maps
from service.explanations.timeline import TimelineDocument, follow_image
from service.http.access import Caller
from service.http.dependencies import AuthenticatorDep, CallerDep, SettingsDep, StoreDep
from service.http.disconnect import while_connected
from service.http.documents import Responses
from service.http.errors import NotAcceptable, problems
from service.http.negotiation import choose_type
from service.http.pictures import BINARY, MEDIA_TYPES, TEXT, Picture, picture_headers
from service.http.routing import Id, StrictRoute
from service.http.schema import IMAGE_REQUEST_BODY
from service.http.uploads import Upload, read_images
from service.predictions.predict import PredictionQueue
from service.predictions.predictor import Predictor
from service.predictions.routes import PredictorDep

router = APIRouter(prefix="/experiments", tags=["explanations"], route_class=StrictRoute)
"""Paths that a viewer's key may POST to."""

JSON_TYPE = "application/json"
PROBLEMS = problems(400, 401, 403, 404, 406, 409, 413, 415, 422, 429, 503, 507)


class Form(StrEnum):
    """Format of an answer."""

    PNG = "png"
    """Pixels."""
    SVG = "svg"
    """Vectors."""
    JSON = "json"
    """Numbers."""


TYPES = {Form.PNG: MEDIA_TYPES[Picture.PNG], Form.SVG: MEDIA_TYPES[Picture.SVG], Form.JSON: JSON_TYPE}
AnyForm = Annotated[
    Form | None, Query(alias="format", description="png, svg or json; the Accept header's if left out.")
]
PictureForm = Annotated[Picture | None, Query(alias="format", description="png or svg; the Accept header's.")]
Target = Annotated[str | None, Query(max_length=1000, description="A class, by name or number; the predicted one.")]
Which = Annotated[Literal["best", "last"], Query(description="Weights of the best or the last epoch.")]


def _answers(**also: Any) -> Responses:
    content = {"image/png": BINARY, "image/svg+xml": TEXT}
    return {200: {"description": "The answer.", "content": content, **also}, **PROBLEMS}


async def get_explainer(request: Request) -> Explainer:
    """Return the service that requests explanations from workers."""
    explainer: Explainer = request.app.state.explainer
    return explainer


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request with its uploaded images."""

    request: Request
    caller: Caller
    whose: str
    uploads: list[Upload]
    predictor: Predictor
    queue: PredictionQueue

    async def respond(self, form: Form, render: Callable[..., bytes], experiment_id: int) -> Response:
        """Draw a picture in the queue of drawings."""
        name = await self.queue.threads.run(_name_of, self.request.app.state.store, experiment_id)
        data = await self.request.app.state.drawings.run(partial(render, name=name, format=form.value))
        picture = Picture(form.value)
        return Response(data, media_type=MEDIA_TYPES[picture], headers={**VARY, **picture_headers(picture)})


VARY = {"Vary": "Accept", "Cache-Control": "private, no-store"}


async def _arrive(
    request: Request,
    caller: CallerDep,
    authenticator: AuthenticatorDep,
    settings: SettingsDep,
    predictor: PredictorDep,
) -> AsyncIterator[Arrived]:
    queue: PredictionQueue = request.app.state.predictions
    whose = caller.name or (request.client.host if request.client else "")
    with queue.room.upload(whose) as arrived:
        uploads = await read_images(request, arrived, settings.max_upload_mb * 1_000_000)
        authenticator.count_upload(caller, sum(len(upload.data) for upload in uploads))
        yield Arrived(request, caller, whose, uploads, predictor, queue)


ArrivedDep = Annotated[Arrived, Depends(_arrive)]
ExplainerDep = Annotated[Explainer, Depends(get_explainer)]


@router.post(
    "/{experiment_id}/explanations",
    openapi_extra=IMAGE_REQUEST_BODY,
    response_class=Response,
    responses=_answers(model=ExplanationDocument),
)
async def create_explanation(
    experiment_id: Id,
    arrived: ArrivedDep,
    explainer: ExplainerDep,
    method: Annotated[
        Method, Query(description="occlusion, or with a worker grad_cam or integrated_gradients.")
    ] = Method.OCCLUSION,
    target: Target = None,
    weights: Which = "best",
    form: AnyForm = None,
) -> Response:
    """Show which pixels a prediction depends on, as a picture over the image or as numbers."""
    chosen = _choose(arrived.request, form, tuple(Form))
    work = explain(
        arrived.predictor,
        arrived.queue,
        explainer,
        arrived.caller,
        arrived.whose,
        experiment_id,
        weights,
        arrived.uploads,
        method,
        target,
    )
    explained = await while_connected(arrived.request, work)
    if chosen is Form.JSON:
        return Response(explained.document().model_dump_json(), media_type=JSON_TYPE, headers=VARY)
    return await arrived.respond(chosen, partial(render_explanation, explained), experiment_id)


@router.post(
    "/{experiment_id}/feature_maps",
    openapi_extra=IMAGE_REQUEST_BODY,
    response_class=Response,
    responses=_answers(),
)
async def create_feature_maps(
    experiment_id: Id,
    arrived: ArrivedDep,
    store: StoreDep,
    explainer: ExplainerDep,
    layer: Annotated[
        str | None, Query(max_length=200, description="A layer's name or number in `layers`; the first convolution.")
    ] = None,
    scaling: Annotated[
        Literal["layer", "map"], Query(description="Whether grey spans the layer or each map.")
    ] = "layer",
    weights: Which = "best",
    form: PictureForm = None,
) -> Response:
    """Draw a layer's outputs for one image, computed by a worker."""
    chosen = _choose(arrived.request, None if form is None else Form(form.value), (Form.PNG, Form.SVG))
    work = compute_feature_maps(
        store,
        arrived.predictor,
        arrived.queue,
        explainer,
        arrived.caller,
        arrived.whose,
        experiment_id,
        weights,
        arrived.uploads,
        layer,
    )
    found = await while_connected(arrived.request, work)
    render = partial(render_feature_maps, found, scaling="layer" if scaling == "layer" else "kernel")
    return await arrived.respond(chosen, render, experiment_id)


@router.post(
    "/{experiment_id}/timeline",
    openapi_extra=IMAGE_REQUEST_BODY,
    response_class=Response,
    responses=_answers(model=TimelineDocument),
)
async def create_timeline(
    experiment_id: Id,
    arrived: ArrivedDep,
    store: StoreDep,
    settings: SettingsDep,
    target: Target = None,
    form: AnyForm = None,
) -> Response:
    """Predict one image with the weights of every kept epoch: when it was learned, when forgotten."""
    chosen = _choose(arrived.request, form, (Form.JSON, Form.PNG, Form.SVG))
    work = follow_image(
        store, settings, arrived.predictor, arrived.queue, arrived.whose, experiment_id, arrived.uploads, target
    )
    timeline = await while_connected(arrived.request, work)
    if chosen is Form.JSON:
        return Response(timeline.document().model_dump_json(), media_type=JSON_TYPE, headers=VARY)
    return await arrived.respond(chosen, partial(render_timeline, timeline), experiment_id)


def _choose(request: Request, form: Form | None, offered: tuple[Form, ...]) -> Form:
    """The format that a request asks for, the first of `offered` where it leaves that open."""
    if form is not None:
        return form
    found = choose_type(request.headers.get("accept"), [TYPES[one] for one in offered])
    if found is None:
        raise NotAcceptable(
            f"this is available as {', '.join(TYPES[one] for one in offered)}", fix="change the Accept header"
        )
    return next(one for one in offered if TYPES[one] == found)


def _name_of(store: Any, experiment_id: int) -> str:
    with store.reading() as session:
        return f"#{experiment_id} {experiments.get(session, experiment_id).name}".strip()
