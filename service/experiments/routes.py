"""Routes of experiments: submit, list, get, cancel, resume, reproduce, delete."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from starlette.responses import JSONResponse

from models.store import Status, experiments
from service.catalogue.inspector import InspectorDep
from service.experiments import listing
from service.experiments.continuation import Continuation, read_continuation
from service.experiments.details import read_details
from service.experiments.documents import ExperimentDocument, ExperimentPage, LayersDocument
from service.experiments.reproduction import ReproductionDocument, compare
from service.experiments.starting import find_start
from service.experiments.submit import Submissions, describe
from service.experiments.verdict import VerdictDocument
from service.http.caching import anything_changes, cached_until, experiment_changes, history_changes
from service.http.dependencies import BodyDep, CallerDep, SettingsDep, StoreDep, WritePlace, WritesDep
from service.http.errors import problems
from service.http.pictures import ETAG, NOT_MODIFIED
from service.http.preconditions import PreconditionDep, respond_with_version, version_of
from service.http.routing import Id, StrictRoute
from service.http.schema import DETAILS_REQUEST_BODY, SPEC_REQUEST_BODY, json_body
from service.measurements.preflights import PreflightDocument, PreflightsDep

router = APIRouter(prefix="/experiments", tags=["experiments"], route_class=StrictRoute)
ACCEPTED_HEADERS = {
    "Location": {"description": "The experiment's address.", "schema": {"type": "string"}, "required": True},
}


async def get_submissions(request: Request) -> Submissions:
    """Return the service that stores and enqueues experiments."""
    submissions: Submissions = request.app.state.submissions
    return submissions


async def get_listed(request: Request) -> listing.ListedItems:
    """Return the cache of list items."""
    listed: listing.ListedItems = request.app.state.listed
    return listed


SubmissionsDep = Annotated[Submissions, Depends(get_submissions)]
ListedDep = Annotated[listing.ListedItems, Depends(get_listed)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Requests with the same key create one experiment, however often they are sent.",
    ),
]


@router.post(
    "",
    status_code=202,
    openapi_extra=SPEC_REQUEST_BODY,
    responses={
        202: {"description": "Stored, and queued.", "headers": ACCEPTED_HEADERS},
        200: {"description": "With `dry_run`: the estimated and measured cost.", "model": PreflightDocument},
        **problems(401, 403, 413, 415, 422, 429, 503, 507),
    },
)
async def create_experiment(
    body: BodyDep,
    caller: CallerDep,
    inspector: InspectorDep,
    preflights: PreflightsDep,
    submissions: SubmissionsDep,
    writes: WritesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    name: Annotated[
        str | None, Query(max_length=200, description="The experiment's name, in place of the one in the body.")
    ] = None,
    dry_run: Annotated[bool, Query(description="Measure a few real steps on a worker, and queue nothing.")] = False,
) -> ExperimentDocument:
    """Submit an experiment, as JSON or YAML: a spec, or a preset with changes."""
    body = body.named(name)
    accepted = await writes.run(inspector.accept, body.document)
    weights = None
    if (wanted := accepted.spec.model.init_from) is not None:
        accepted, weights = await writes.run(
            find_start, accepted, wanted, inspector, submissions.store, submissions.settings.experiments_dir
        )
    if dry_run:
        measured = await preflights.measure(accepted, caller)
        return JSONResponse(measured.model_dump(mode="json"))  # type: ignore[return-value]
    document, created = await writes.run(submissions.submit, accepted, caller, idempotency_key, body.raw, weights)
    response.headers["Location"] = document.links["self"]
    if not created:
        response.headers["Idempotent-Replayed"] = "true"
    return document


@router.get("", response_model=ExperimentPage, responses=problems(401, 422))
@cached_until(anything_changes)
def list_experiments(
    request: Request,
    store: StoreDep,
    listed: ListedDep,
    status: Annotated[Status | None, Query(description="Only experiments of this status.")] = None,
    model: Annotated[str | None, Query(max_length=100, description="Only this network, by name.")] = None,
    dataset: Annotated[str | None, Query(max_length=100, description="Only this dataset.")] = None,
    tag: Annotated[str | None, Query(max_length=64, description="Only experiments with this tag.")] = None,
    search: Annotated[
        str | None,
        Query(max_length=200, description="Only experiments with each of these words in their name, notes or tags."),
    ] = None,
    sort: Annotated[str, Query(max_length=60, description=listing.SORT_DESCRIPTION)] = "created",
    order: Annotated[
        Literal["asc", "desc"] | None, Query(description="Newest, highest accuracy and lowest loss first by default.")
    ] = None,
    cursor: Annotated[str | None, Query(max_length=2000, description="`next` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Experiments on a page.")] = 50,
) -> Response:
    """List experiments, a page at a time."""
    with store.reading() as session:
        page, request.state.listed = listed.page(
            session,
            status=status,
            model=model,
            dataset=dataset,
            tag=tag,
            search=search,
            sort=sort,
            order=order,
            cursor=cursor,
            limit=limit,
        )
    return Response(page, media_type="application/json")


@router.get(
    "/{experiment_id}",
    response_model=ExperimentDocument,
    responses={200: {"headers": ETAG}, **NOT_MODIFIED, **problems(401, 404)},
)
@cached_until(experiment_changes)
def get_experiment(experiment_id: Id, store: StoreDep, request: Request) -> Response:
    """Read one experiment: its status, best and last metrics, runs and complete spec."""
    with store.reading() as session:
        document = describe(session, experiments.get(session, experiment_id))
    return respond_with_version(request, document)


@router.patch(
    "/{experiment_id}",
    openapi_extra=DETAILS_REQUEST_BODY,
    responses={200: {"headers": ETAG}, **problems(401, 403, 404, 412, 413, 415, 422, 429)},
)
async def change_experiment(
    experiment_id: Id,
    body: BodyDep,
    submissions: SubmissionsDep,
    writes: WritesDep,
    response: Response,
    when: PreconditionDep,
) -> ExperimentDocument:
    """Change an experiment's name, tags or notes, in any status; what is left out stays. Its spec never changes."""
    document = await writes.run(submissions.change, experiment_id, read_details(body.document), when)
    response.headers["ETag"] = version_of(document)
    return document


@router.delete("/{experiment_id}", status_code=204, responses=problems(401, 403, 404, 409, 412))
def delete_experiment(
    experiment_id: Id, submissions: SubmissionsDep, when: PreconditionDep, _: Annotated[None, WritePlace]
) -> None:
    """Delete an experiment that is not running, with its curves, weights and kernels."""
    submissions.delete(experiment_id, when)


@router.post("/{experiment_id}/cancel", responses=problems(401, 403, 404, 409))
def cancel_experiment(
    experiment_id: Id, submissions: SubmissionsDep, _: Annotated[None, WritePlace]
) -> ExperimentDocument:
    """Cancel an experiment that is queued or running (idempotent)."""
    return submissions.cancel(experiment_id)


@router.post(
    "/{experiment_id}/resume",
    status_code=202,
    responses={202: {"description": "Queued again.", "headers": ACCEPTED_HEADERS}, **problems(401, 403, 404, 409, 429)},
)
def resume_experiment(
    experiment_id: Id,
    caller: CallerDep,
    submissions: SubmissionsDep,
    response: Response,
    _: Annotated[None, WritePlace],
) -> ExperimentDocument:
    """Resume an experiment that failed, diverged or was cancelled from its last checkpoint."""
    document = submissions.resume(experiment_id, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.post(
    "/{experiment_id}/continue",
    status_code=202,
    openapi_extra=json_body(Continuation, {"epochs": 20}),
    responses={
        202: {"description": "The new experiment, queued.", "headers": ACCEPTED_HEADERS},
        **problems(401, 403, 404, 409, 413, 415, 422, 429, 503, 507),
    },
)
async def continue_experiment(
    experiment_id: Id,
    body: BodyDep,
    caller: CallerDep,
    submissions: SubmissionsDep,
    writes: WritesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ExperimentDocument:
    """Train a completed experiment for more epochs, as a new experiment that begins with its epochs and weights."""
    asked = read_continuation(body.document)
    document, created = await writes.run(
        submissions.continue_with, experiment_id, asked, caller, idempotency_key, body.raw
    )
    response.headers["Location"] = document.links["self"]
    if not created:
        response.headers["Idempotent-Replayed"] = "true"
    return document


@router.post(
    "/{experiment_id}/reproduce",
    status_code=202,
    responses={
        202: {"description": "The new experiment, queued.", "headers": ACCEPTED_HEADERS},
        **problems(401, 403, 404, 429, 503),
    },
)
def reproduce_experiment(
    experiment_id: Id,
    caller: CallerDep,
    submissions: SubmissionsDep,
    response: Response,
    _: Annotated[None, WritePlace],
) -> ExperimentDocument:
    """Run the same spec again, to check whether the result is reproducible."""
    document = submissions.reproduce(experiment_id, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.get("/{experiment_id}/reproduction", responses=problems(401, 404, 409))
def get_reproduction(experiment_id: Id, store: StoreDep, settings: SettingsDep) -> ReproductionDocument:
    """Compare an experiment with the one it reproduces, or with the newest one that reproduces it."""
    with store.reading() as session:
        return compare(session, experiment_id, settings.experiments_dir)


@router.get("/{experiment_id}/layers", responses=problems(401, 404))
def list_layers(experiment_id: Id, store: StoreDep) -> LayersDocument:
    """List the network's layers with their shapes and parameter counts."""
    with store.reading() as session:
        return LayersDocument.of(experiments.get(session, experiment_id))


@router.get("/{experiment_id}/verdict", responses=problems(401, 404, 409))
@cached_until(history_changes)
def get_verdict(experiment_id: Id, store: StoreDep) -> VerdictDocument:
    """Read the verdict: how training went, in plain words, and what to try."""
    with store.reading() as session:
        return VerdictDocument.of(experiments.get(session, experiment_id))
