"""The curves of an experiment: as JSON, as CSV, drawn."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.datastructures import QueryParams
from starlette.responses import Response

from models.store import Store
from models.store.stamps import Stamps
from service.curves import stability
from service.curves.documents import ClassMetricsDocument, MetricsDocument
from service.curves.draw import render_curves
from service.curves.read import CSV_TYPE, as_csv, read_class_metrics, read_curves, read_epochs, read_metrics
from service.curves.stability import StabilityDocument
from service.http.caching import anything_changes, cached_until, history_changes
from service.http.dependencies import DrawPlace, RenderingsDep, SettingsDep, StoreDep
from service.http.documents import respond
from service.http.errors import NotAcceptable, problems
from service.http.negotiation import choose_type
from service.http.pictures import ETAG, MEDIA_TYPES, NOT_MODIFIED, TEXT, Picture, picture_headers, picture_responses
from service.http.rendered import Renderings
from service.http.routing import MAX_ID, Id, StrictRoute

router = APIRouter(prefix="/experiments", tags=["curves"], route_class=StrictRoute)

Points = Annotated[
    int | None,
    Query(ge=2, le=100_000, description="Thin to about this many epochs; best, worst and non-finite ones are kept."),
]
VARY = {"Vary": "Accept"}


def histories_change(stamps: Stamps, path: Mapping[str, str], query: QueryParams) -> int | None:
    """Valid until the experiment's history changes; with `compare`, until anything in the database does."""
    return anything_changes(stamps, path, query) if "compare" in query else history_changes(stamps, path, query)


@router.get(
    "/{experiment_id}/metrics",
    response_model=MetricsDocument,
    responses={
        200: {"description": "In the form that Accept prefers.", "content": {"text/csv": TEXT}},
        **NOT_MODIFIED,
        **problems(401, 404, 406, 422),
    },
)
@cached_until(history_changes)
def get_metrics(
    experiment_id: Id, store: StoreDep, renderings: RenderingsDep, request: Request, points: Points = None
) -> Response:
    """Read the metrics of every epoch, as JSON or, if Accept prefers it, as CSV."""
    chosen = choose_type(request.headers.get("accept"), ("application/json", "text/csv"))
    if chosen is None:
        raise NotAcceptable("metrics are available as application/json and text/csv", fix="change the Accept header")
    if chosen == "text/csv":
        return _csv(experiment_id, store, renderings, request, points)
    with store.reading() as session:
        metrics = read_metrics(session, experiment_id, points)
    return Response(metrics, headers=VARY, media_type="application/json")


@router.get("/{experiment_id}/metrics/classes", response_model=ClassMetricsDocument, responses=problems(401, 404, 422))
@cached_until(history_changes)
def get_class_metrics(experiment_id: Id, store: StoreDep, settings: SettingsDep) -> Response:
    """Read the validation accuracy of each class in every epoch."""
    with store.reading() as session:
        return respond(read_class_metrics(session, experiment_id, settings))


@router.get(
    "/{experiment_id}/metrics.csv",
    response_class=Response,
    responses={
        200: {"description": "One row an epoch (RFC 4180).", "content": {"text/csv": TEXT}, "headers": ETAG},
        **NOT_MODIFIED,
        **problems(401, 404, 422),
    },
)
@cached_until(history_changes)
def get_metrics_csv(
    experiment_id: Id, store: StoreDep, renderings: RenderingsDep, request: Request, points: Points = None
) -> Response:
    """Read the metrics of every epoch as CSV: one row an epoch, the first column `epoch`, counted from 1."""
    return _csv(experiment_id, store, renderings, request, points)


@router.get(
    "/{experiment_id}/curves.{picture}",
    response_class=Response,
    responses={**picture_responses(), **problems(401, 404, 422)},
)
@cached_until(histories_change)
def draw_curves(
    experiment_id: Id,
    picture: Picture,
    store: StoreDep,
    renderings: RenderingsDep,
    request: Request,
    _: Annotated[None, DrawPlace],
    x: Annotated[Literal["epoch", "seconds"], Query(description="The x-axis.")] = "epoch",
    compare: Annotated[
        str | None,
        Query(max_length=200, examples=["7,9"], description="Ids of experiments to overlay, with commas between."),
    ] = None,
) -> Response:
    """Draw loss and accuracy, training and validation on one scale, with the best epoch marked."""
    with store.reading() as session:
        curves = read_curves(session, experiment_id, compare)
    return renderings.respond(
        request,
        ("curves", x, *curves.key),
        MEDIA_TYPES[picture],
        lambda: render_curves(curves.runs, x=x, format=picture.value),
        picture_headers(picture),
    )


@router.get("/{experiment_id}/stability", responses=problems(401, 404, 422))
def get_stability(
    experiment_id: Id,
    store: StoreDep,
    settings: SettingsDep,
    compare: Annotated[int, Query(ge=1, le=MAX_ID, description="The experiment to compare with.", examples=[7])],
) -> StabilityDocument:
    """Compare how stable the curves of two experiments are."""
    with store.reading() as session:
        return stability.compare(session, settings, experiment_id, compare)


def _csv(experiment_id: int, store: Store, renderings: Renderings, request: Request, points: int | None) -> Response:
    with store.reading() as session:
        epochs = read_epochs(session, experiment_id, points)
    return renderings.respond(request, (experiment_id, epochs), CSV_TYPE, lambda: as_csv(epochs), VARY)
