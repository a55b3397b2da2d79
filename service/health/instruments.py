"""Prometheus metrics of the API: counters, histograms and gauges."""

from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from models import queue
from models.store import Store, experiments, workers

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Instruments:
    """The metrics registry: request counters and durations, and gauges set at each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "epochal_http_requests_total", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "epochal_http_request_seconds",
            "Time until the answer began.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.experiments = Gauge("epochal_experiments", "Experiments by status.", ["status"], registry=self.registry)
        self.queue = Gauge(
            "epochal_queue_messages", "Messages on the queue; -1 without a broker.", registry=self.registry
        )
        self.workers = Gauge("epochal_workers", "Workers with a recent heartbeat.", registry=self.registry)
        self.streams = Gauge("epochal_event_streams", "Event streams that are open.", registry=self.registry)
        self._of: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """Counter and histogram by method, route and status: looking up labels takes longer than counting."""

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Record one answer under its route's template, so that ids do not become labels."""
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
        key = method, route, status
        if key not in self._of:
            self._of[key] = self.requests.labels(method, route, str(status)), self.seconds.labels(method, route)
        requests, durations = self._of[key]
        requests.inc()
        durations.observe(seconds)

    def render(self) -> bytes:
        """Render all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class Gauges:
    """Collects the lab's state into the gauges at each scrape."""

    instruments: Instruments
    store: Store
    celery: Celery
    count_streams: Callable[[], int]

    def read(self) -> bytes:
        """Set the gauges and render all metrics in Prometheus' text format."""
        with self.store.reading() as session:
            for status, count in experiments.count_by_status(session).items():
                self.instruments.experiments.labels(status.value).set(count)
            self.instruments.workers.set(len(workers.live(session)))
        length = queue.queue_length(self.celery)
        self.instruments.queue.set(-1 if length is None else length)
        self.instruments.streams.set(self.count_streams())
        return self.instruments.render()
