"""Routes of studies: create, list, get, cancel, resume, clone, delete; their curves and reports."""

from enum import StrEnum
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import JSONResponse

from models.errors import InvalidRequest, NotFound
from models.store import studies as stored
from models.store.states import StudyStatus
from models.studies.results import RowResult, StudyResult
from service.experiments.routes import IdempotencyKey
from service.http.caching import cached_until, study_changes
from service.http.dependencies import (
    BodyDep,
    CallerDep,
    DrawPlace,
    RenderingsDep,
    SettingsDep,
    StoreDep,
    WritePlace,
    WritesDep,
)
from service.http.errors import problems
from service.http.pictures import (
    BINARY,
    ETAG,
    NOT_MODIFIED,
    TEXT,
    picture_responses,
)
from service.http.preconditions import PreconditionDep, respond_with_version
from service.http.routing import Id, StrictRoute
from service.http.schema import STUDY_CHANGES_REQUEST_BODY, STUDY_REQUEST_BODY
from service.studies.documents import StudyDocument, StudyPage, StudyPlanDocument
from service.studies.draw import panels_of, render_panels
from service.studies.html import POLICY
from service.studies.pictures import PictureRequestDep
from service.studies.read import describe
from service.studies.report import read_report
from service.studies.robustness import render_robustness
from service.studies.search_draw import render_search
from service.studies.studies import Studies, list_studies

router = APIRouter(prefix="/studies", tags=["studies"], route_class=StrictRoute)
LOCATION = {"Location": {"description": "The study's address.", "schema": {"type": "string"}, "required": True}}
PICTURE = {**picture_responses(), **problems(401, 404, 422)}


class ReportFormat(StrEnum):
    """A report's format."""

    HTML = "html"
    """One page with everything inside."""
    MARKDOWN = "md"
    """Text with pictures as data."""
    PDF = "pdf"
    """Pages, by WeasyPrint."""


REPORT_TYPES = {
    ReportFormat.HTML: "text/html; charset=utf-8",
    ReportFormat.MARKDOWN: "text/markdown; charset=utf-8",
    ReportFormat.PDF: "application/pdf",
}


async def get_studies(request: Request) -> Studies:
    """Return the service of studies."""
    studies: Studies = request.app.state.studies
    return studies


StudiesDep = Annotated[Studies, Depends(get_studies)]


@router.post(
    "",
    status_code=202,
    openapi_extra=STUDY_REQUEST_BODY,
    responses={
        202: {"description": "Stored, and begun.", "headers": LOCATION},
        200: {"description": "With `dry_run`: the rows that it would run.", "model": StudyPlanDocument},
        **problems(401, 403, 413, 415, 422, 429, 503, 507),
    },
)
async def create_study(
    body: BodyDep,
    caller: CallerDep,
    studies: StudiesDep,
    writes: WritesDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    dry_run: Annotated[bool, Query(description="Return the rows that it would run, and store nothing.")] = False,
) -> StudyDocument:
    """Create a study, as JSON or YAML: a base spec with variants or a grid, or one of the package's by `preset`."""
    if dry_run:
        plan = await writes.run(studies.plan, body.document)
        return JSONResponse(plan.model_dump(mode="json"))  # type: ignore[return-value]
    document, created = await writes.run(studies.create, body.document, caller, idempotency_key, body.raw)
    response.headers["Location"] = document.links["self"]
    if not created:
        response.headers["Idempotent-Replayed"] = "true"
    return document


@router.get("", responses=problems(401, 422))
def list_all_studies(
    store: StoreDep,
    status: Annotated[StudyStatus | None, Query(description="Only studies of this status.")] = None,
    cursor: Annotated[str | None, Query(max_length=2000, description="`next` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Studies on a page.")] = 50,
) -> StudyPage:
    """List studies, the newest first, a page at a time."""
    with store.reading() as session:
        return list_studies(session, status, cursor, limit)


@router.get(
    "/{study_id}",
    response_model=StudyDocument,
    responses={200: {"headers": ETAG}, **NOT_MODIFIED, **problems(401, 404)},
)
@cached_until(study_changes)
def get_study(study_id: Id, store: StoreDep, settings: SettingsDep, request: Request) -> Response:
    """Read a study: its status, progress, and rows with scores and differences."""
    with store.reading() as session:
        document = describe(session, stored.get(session, study_id), settings.experiments_dir)
    return respond_with_version(request, document)


@router.delete("/{study_id}", status_code=204, responses=problems(401, 403, 404, 409, 412, 422))
def delete_study(
    study_id: Id,
    studies: StudiesDep,
    when: PreconditionDep,
    _: Annotated[None, WritePlace],
    experiments: Annotated[bool, Query(description="Delete the experiments that it made too.")] = False,
) -> None:
    """Delete a study that has ended. Its experiments stay unless asked, and those of other studies in any case."""
    studies.delete(study_id, with_experiments=experiments, when=when)


@router.post("/{study_id}/cancel", responses=problems(401, 403, 404, 409))
def cancel_study(study_id: Id, studies: StudiesDep, _: Annotated[None, WritePlace]) -> StudyDocument:
    """Cancel a study, and its own runs that no other study waits for (idempotent)."""
    return studies.cancel(study_id)


@router.post("/{study_id}/resume", responses=problems(401, 403, 404, 409, 429, 507))
def resume_study(study_id: Id, studies: StudiesDep, caller: CallerDep, _: Annotated[None, WritePlace]) -> StudyDocument:
    """Resume a study that was cancelled or whose runs failed."""
    return studies.resume(study_id, caller)


@router.post(
    "/{study_id}/clone",
    status_code=202,
    openapi_extra=STUDY_CHANGES_REQUEST_BODY,
    responses={
        202: {"description": "Stored, and begun.", "headers": LOCATION},
        **problems(401, 403, 404, 413, 415, 422, 429, 503, 507),
    },
)
async def clone_study(
    study_id: Id, body: BodyDep, caller: CallerDep, studies: StudiesDep, writes: WritesDep, response: Response
) -> StudyDocument:
    """Create a study like this one with some of its keys changed: {"seeds": 3}. Runs of equal specs are shared."""
    document = await writes.run(studies.clone, study_id, body.document, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.get("/{study_id}/curves.{picture}", response_class=Response, responses=PICTURE)
def draw_study_curves(
    asked: PictureRequestDep,
    _: Annotated[None, DrawPlace],
    rows: Annotated[
        str | None,
        Query(max_length=2000, examples=["narrow,baseline,wide"], description="Keys of rows, from left to right."),
    ] = None,
) -> Response:
    """Draw the rows side by side on one scale: evolution from left to right."""
    result = asked.read()
    chosen = list(result.rows) if rows is None else _rows_of(result, rows)
    panels = panels_of(chosen)
    titles = [(panel.title, panel.note) for panel in panels]
    key = ("study-curves", result.title, titles, [[run.history for run in row.runs] for row in chosen])
    return asked.respond(key, partial(render_panels, panels, title=result.title))


@router.get("/{study_id}/robustness.{picture}", response_class=Response, responses=PICTURE)
def draw_study_robustness(asked: PictureRequestDep, _: Annotated[None, DrawPlace]) -> Response:
    """Draw each row's accuracy on corrupted images by strength, a panel for each corruption."""
    result = asked.read()
    rows = result.robustness
    key = ("study-robustness", result.title, [(row.row, row.title, row.clean, row.accuracy) for row in rows])
    return asked.respond(key, partial(render_robustness, rows, title=result.title))


@router.get("/{study_id}/search.{picture}", response_class=Response, responses=PICTURE)
def draw_study_search(asked: PictureRequestDep, _: Annotated[None, DrawPlace]) -> Response:
    """Draw a search: accuracy by trial with the best one so far, and by the value of each field."""
    result = asked.read()
    if (found := result.search) is None:
        curves = f"/api/v1/studies/{asked.study_id}/curves.png"
        raise NotFound(f"study {asked.study_id} is not a search", fix=f"GET {curves} draws its rows")
    key = ("study-search", result.title, found.trials, found.importances, found.spec.model_dump_json())
    return asked.respond(key, partial(render_search, found, title=result.title))


@router.get(
    "/{study_id}/report.{form}",
    response_class=Response,
    responses={
        200: {
            "description": "The report.",
            "content": {"text/html": TEXT, "text/markdown": TEXT, "application/pdf": BINARY},
            "headers": ETAG,
        },
        **NOT_MODIFIED,
        **problems(401, 404, 422, 501),
    },
)
def get_study_report(
    study_id: Id,
    form: ReportFormat,
    store: StoreDep,
    settings: SettingsDep,
    renderings: RenderingsDep,
    request: Request,
    _: Annotated[None, DrawPlace],
) -> Response:
    """Read the report of a study: question, set-up, table, curves, kernels, verdicts, cost, conclusions."""
    with store.reading() as session:
        report = read_report(session, stored.get(session, study_id), settings.experiments_dir)
    headers = {"Content-Security-Policy": POLICY} if form is ReportFormat.HTML else {}
    return renderings.respond(
        request,
        ("study-report", form.value, *report.key),
        REPORT_TYPES[form],
        lambda: report.render(form.value),
        headers,
    )


def _rows_of(result: StudyResult, keys: str) -> list[RowResult]:
    """The rows named in `keys`, in that order. Separated by semicolons if it has one, else by commas."""
    chosen = [key.strip() for key in keys.split(";" if ";" in keys else ",") if key.strip()]
    known = {row.key: row for row in result.rows}
    unknown = [key for key in chosen if key not in known]
    if unknown or not chosen:
        message = f"there is no row '{(unknown or [''])[0][:60]}'; there are {', '.join(known)}"
        raise InvalidRequest(f"rows: {message}", errors=[{"field": "rows", "message": message}])
    return [known[key] for key in chosen]
