"""Routes of the pages: list, experiment, form for a new one, API reference, static files."""

import json
from functools import lru_cache
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import RedirectResponse, Response

from models.errors import EpochalError, NotFound
from models.store import Status
from service.http.dependencies import CallerDep, RenderingsDep, SettingsDep, StoreDep
from service.http.errors import shown
from service.http.prefix import prefix, with_prefix, with_prefix_in
from service.http.routing import Id, StrictRoute
from service.web.caller import PageCaller
from service.web.context import experiment_context, form_context, list_context
from service.web.reference import reference_context
from service.web.rendering import render, static_files
from service.web.studies import studies_context, study_context

MAX_TARGET = 500
"""Characters of an address to which the login form leads back."""
FilterText = Annotated[str | None, Query(max_length=100)]


router = APIRouter(route_class=StrictRoute, include_in_schema=False)


async def send_to_login(request: Request, error: Exception) -> Response:
    """Redirect a browser without a session to the login form, with the way back."""
    assert isinstance(error, EpochalError)
    target = with_prefix(request.url.path) + (f"?{request.url.query}" if request.url.query else "")
    target = target if len(target) <= MAX_TARGET else with_prefix("/")
    return RedirectResponse(with_prefix(f"/login?next={quote(target, safe='')}"), status_code=303)


@router.get("/")
def show_list(
    caller: PageCaller,
    store: StoreDep,
    status: Status | None = None,
    model: FilterText = None,
    dataset: FilterText = None,
    tag: FilterText = None,
    search: Annotated[str | None, Query(max_length=200)] = None,
    sort: Annotated[str, Query(max_length=60)] = "created",
    order: Literal["asc", "desc"] | None = None,
    cursor: Annotated[str | None, Query(max_length=2000)] = None,
) -> Response:
    """Show the list of experiments, newest first, with sparklines."""
    with store.reading() as session:
        context = list_context(
            session,
            status=status,
            model=model,
            dataset=dataset,
            tag=tag,
            search=search,
            sort=sort,
            order=order,
            cursor=cursor,
        )
    return render("list.html", caller=caller, **context)


@router.get("/experiments/{experiment_id}")
def show_experiment(
    experiment_id: Id,
    caller: PageCaller,
    store: StoreDep,
    compare: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show one experiment, with live updates while it trains."""
    with store.reading() as session:
        context = experiment_context(session, experiment_id, compare)
    return render("experiment.html", caller=caller, **context)


@router.get("/studies")
def show_studies(
    caller: PageCaller, store: StoreDep, cursor: Annotated[str | None, Query(max_length=2000)] = None
) -> Response:
    """Show the list of studies, newest first."""
    with store.reading() as session:
        context = studies_context(session, cursor)
    return render("studies.html", caller=caller, **context)


@router.get("/studies/{study_id}")
def show_study(study_id: Id, caller: PageCaller, store: StoreDep, settings: SettingsDep) -> Response:
    """Show one study: its rows, their curves side by side, and its report."""
    with store.reading() as session:
        context = study_context(session, study_id, settings.experiments_dir)
    return render("study.html", caller=caller, **context)


@router.get("/new")
async def show_form(caller: PageCaller, preset: FilterText = None, dataset: FilterText = None) -> Response:
    """Show the form for a new experiment, on a dataset if one is named."""
    return render("new.html", caller=caller, chosen=preset, **form_context(dataset))


@router.get("/docs")
def show_reference(request: Request, caller: PageCaller) -> Response:
    """Show the API reference, from the OpenAPI document."""
    address = f"{request.url.scheme}://{request.url.netloc}{prefix()}"
    return render("reference.html", caller=caller, address=address, **reference_context(request.app.openapi()))


@router.get("/openapi.json")
def show_openapi(request: Request, caller: CallerDep) -> Response:
    """Return the OpenAPI document. In a thread: it takes a second to make, once."""
    return Response(_openapi_text(request.app, prefix() or "/"), media_type="application/json")


@lru_cache(maxsize=8)
def _openapi_text(app: FastAPI, address: str) -> bytes:
    """Return the serialised document; cached, since it has 200 kB."""
    return with_prefix_in(json.dumps({**app.openapi(), "servers": [{"url": address}]})).encode()


@router.get("/static/{name}")
def show_static(
    name: str, request: Request, renderings: RenderingsDep, v: Annotated[str | None, Query(max_length=40)] = None
) -> Response:
    """Return a static file; cached forever under an address with its digest."""
    if (found := static_files().get(name)) is None:
        raise NotFound(f"there is no file {shown(name)}", fix="GET / is the list of experiments")
    response = renderings.respond(request, ("static", name, found.digest), found.media_type, lambda: found.data)
    if v == found.digest:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response
