"""The FastAPI application: middleware, routers, exception handlers and lifespan."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib import metadata
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State
from starlette.routing import BaseRoute

from models.plain import JsonObject
from models.queue import make_celery
from models.settings import Settings, get_settings
from models.store import Store
from models.store.stamps import Stamps
from service.catalogue import routes as catalogue
from service.catalogue.describing import shared_describing
from service.catalogue.inspector import Inspector
from service.curves import routes as curves
from service.datasets import routes as datasets
from service.datasets.datasets import Datasets
from service.evaluation import routes as evaluation
from service.experiments import events
from service.experiments import routes as experiments
from service.experiments.listing import ListedItems
from service.experiments.live import LiveEvents
from service.experiments.submit import Submissions
from service.explanations import routes as explanations
from service.explanations.ask import Explainer
from service.export import routes as export
from service.health import routes as health
from service.health.check import Readiness
from service.health.instruments import Gauges, Instruments
from service.http.access import Authenticator, LoginNeeded, keys_needed
from service.http.caching import Caching, cached_routes
from service.http.compression import Compression
from service.http.connections import Connections
from service.http.cors import Cors
from service.http.dependencies import authorise, authorise_viewer
from service.http.documents import API
from service.http.errors import ANY_PROBLEM, install_handlers
from service.http.origins import HostNames
from service.http.perimeter import Perimeter
from service.http.prefix import StripPrefix
from service.http.protocol import CLOSING, CONNECTIONS
from service.http.proxies import TrustedProxies
from service.http.queues import BoundedQueue
from service.http.rendered import Renderings
from service.http.schema import openapi_document
from service.kernels import routes as kernels
from service.measurements import routes as measurements
from service.measurements.preflights import Preflights
from service.open_inference import routes as open_inference
from service.predictions import routes as predictions
from service.predictions.predict import PredictionQueue
from service.predictions.predictor import Predictor
from service.registry import routes as registry
from service.registry.models import Models
from service.registry.predict import Versions
from service.studies import of_experiments
from service.studies import routes as studies
from service.studies.studies import Studies
from service.uploads import routes as uploads
from service.web import datasets as dataset_pages
from service.web import routes as pages
from service.web import sessions
from service.web.rendering import render_problem
from service.webhooks import routes as webhooks
from service.webhooks.connect import Connector
from service.webhooks.send import Sender
from service.webhooks.webhooks import Webhooks

logger = logging.getLogger(__name__)

OWN_PATHS = (
    *("", "api", "healthz", "readyz", "metrics", "openapi.json"),
    *("datasets", "docs", "experiments", "login", "logout", "new", "static", "studies", "v2"),
)
"""First segments of the application's paths."""


def create_app(
    settings: Settings | None = None,
    *,
    on_start: Callable[[], object] | None = None,
    on_stop: Callable[[], object] | None = None,
) -> FastAPI:
    """Create the application of one lab; its parts are created at startup and closed at shutdown.

    `on_start` is called at the end of startup, before the first request; `on_stop` at the end of shutdown.
    """
    settings = settings or get_settings()
    instruments, proxies = Instruments(), TrustedProxies(settings.trusted_proxies)
    app = FastAPI(
        title="Epochal",
        version=metadata.version("epochal"),
        lifespan=_lifespan(settings, instruments, proxies, on_start, on_stop),
        docs_url=None,  # its assets would come from a CDN; pages.py has a page of its own
        redoc_url=None,
        openapi_url=None,  # pages.py too: its servers depend on the proxy
        redirect_slashes=False,
        responses=ANY_PROBLEM,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # instruments.py has the metrics
        routes=_routes(),
    )
    app.add_middleware(Compression)
    app.add_middleware(Caching, routes=cached_routes(API, (experiments.router, curves.router, studies.router)))
    app.add_middleware(
        Perimeter,
        hosts=HostNames(settings.allowed_hosts, any_address=keys_needed(settings)),
        proxies=proxies,
        max_body_bytes=settings.max_upload_mb * 1_000_000,
        max_dataset_bytes=settings.max_dataset_mb * 1_000_000,
        observe=instruments.count,
    )
    app.add_middleware(Cors, allowed_origins=settings.allowed_origins)
    app.add_middleware(StripPrefix, root_path=settings.root_path, trusts=proxies.sent, own=OWN_PATHS)
    install_handlers(app, render_page=render_problem)
    app.add_exception_handler(LoginNeeded, pages.send_to_login)
    app.openapi = partial(_openapi, app.title, app.version)  # type: ignore[method-assign]
    return app


@cache
def _routes() -> list[BaseRoute]:
    """All routes. They hold nothing of an application, and FastAPI analyses each only once a process."""
    router = APIRouter(responses=ANY_PROBLEM, generate_unique_id_function=lambda route: route.name)
    # the first routes are found first: of a small network's answer, looking through all of them took a third
    for first in (predictions.router, registry.predictions, explanations.router):
        router.include_router(first, prefix=API, dependencies=[Depends(authorise_viewer)])
    for module in (
        experiments,
        curves,
        evaluation,
        kernels,
        events,
        measurements,
        catalogue,
        export,
        registry,
        studies,
        of_experiments,
        datasets,
        uploads,
        webhooks,
    ):  # in one level: FastAPI looks through each level's routers twice
        router.include_router(module.router, prefix=API, dependencies=[Depends(authorise)])
    router.include_router(health.router, prefix=API, include_in_schema=False)
    for public in (health.router, open_inference.health, open_inference.router, sessions.router):
        router.include_router(public)
    router.include_router(dataset_pages.router)
    router.include_router(pages.router)
    return router.routes


@cache
def _openapi(title: str, version: str) -> JsonObject:
    """The document of all routes; building it takes a second."""
    return openapi_document(title, version, _routes())


def _lifespan(
    settings: Settings,
    instruments: Instruments,
    proxies: TrustedProxies,
    on_start: Callable[[], object] | None,
    on_stop: Callable[[], object] | None,
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await run_in_threadpool(_build_parts, app.state, settings, instruments)
        if on_start is not None:
            on_start()
        live: LiveEvents = app.state.live
        closing = asyncio.Event()
        sender: Sender = app.state.sender
        tasks = [
            asyncio.create_task(background) for background in (live.run(), _close_streams(live, closing), sender.run())
        ]
        try:
            yield {CLOSING: closing, CONNECTIONS: Connections(proxies)}
        finally:
            live.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await run_in_threadpool(_close_parts, app.state)
            if on_stop is not None:
                on_stop()

    return lifespan


def _build_parts(state: State, settings: Settings, instruments: Instruments) -> None:
    """Create the application's parts on `state`, where the routes' dependencies find them."""
    state.settings = settings
    state.store = Store(settings)
    state.store.migrate()
    if not state.store.sqlite_safe:
        logger.warning("SQLite %s can damage a database that several processes write", state.store.sqlite_version)
    state.stamps = Stamps(state.store)
    celery = make_celery(settings)
    state.authenticator = Authenticator(settings, state.store, state.stamps)
    state.writes = BoundedQueue("writes", places=8)
    state.drawings = BoundedQueue("drawings", places=4)
    state.renderings = Renderings()
    state.describing = shared_describing()
    state.inspector = Inspector(settings, state.store, state.describing)
    state.listed = ListedItems()
    state.live = live = LiveEvents(state.store, state.stamps, state.authenticator)
    state.submissions = Submissions(settings, state.store, celery)
    state.studies = Studies(settings, state.store, state.inspector, state.submissions)
    state.preflights = Preflights(state.store, celery, state.writes)
    state.predictor = Predictor(state.store, settings, state.stamps)
    state.predictions = PredictionQueue()
    state.versions = Versions(state.store, state.stamps)
    state.datasets = Datasets(settings, state.store)
    state.explainer = Explainer(state.store, celery, state.writes)
    state.models = Models(settings, state.store, state.predictor)
    state.webhooks = Webhooks(settings, state.store)
    state.sender = Sender(state.store, Connector(allow_private=settings.webhook_private))
    state.readiness = Readiness(state.store, celery)
    state.gauges = Gauges(instruments, state.store, celery, count_streams=lambda: live.num_streams)


def _close_parts(state: State) -> None:
    """Close threads, files and database connections."""
    state.predictor.close()
    state.stamps.close()
    state.store.dispose()


async def _close_streams(live: LiveEvents, closing: asyncio.Event) -> None:
    await closing.wait()
    live.close()
