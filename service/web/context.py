"""Context of the page templates: rows of the list, one experiment, the form."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from models.curves.metrics import EpochMetrics
from models.errors import EpochalError
from models.spec.presets import experiment_presets, model_presets
from models.store import Status, artifacts, events, experiments, history
from models.store.states import ArtifactKind
from service.curves.draw import MAX_RUNS
from service.curves.read import compared_ids
from service.experiments import listing
from service.experiments.documents import ExperimentDocument, ExperimentItem
from service.experiments.submit import describe
from service.http.prefix import with_prefix, with_prefix_in_suggestions
from service.web.sparklines import Sparkline, sparkline

PAGE_SIZE = 25
SORTS = (
    ("created", "newest"),
    ("val_accuracy.best", "best validation accuracy"),
    ("val_loss.best", "lowest validation loss"),
    ("val_accuracy.last", "last validation accuracy"),
    ("name", "name"),
)
SEVERITIES = {"good": "good", "info": "note", "warning": "warning", "problem": "problem"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    item: ExperimentItem
    line: Sparkline | None
    done: float | None
    """Fraction of the training that is done, while it runs."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A status filter of the list: its count and its address."""

    name: str
    count: int
    address: str
    chosen: bool


def list_context(session: Session, **filters: Any) -> dict[str, Any]:
    """Context of the list: experiments with sparklines, and counts by status."""
    page = listing.page(session, limit=PAGE_SIZE, **filters)
    accuracies = history.read_series(session, [item.id for item in page.items], "val_accuracy")
    rows = [Row(item, sparkline(accuracies[item.id]), fraction_done(item)) for item in page.items]
    narrow = {name: filters.get(name) for name in ("model", "dataset", "tag", "search")}
    counts = experiments.count_by_status(session, **narrow)
    return {
        "rows": rows,
        "next": page.next,
        "total": page.total,
        "chips": _chips(counts, filters),
        "narrowed": [
            (name, value, _list_address(filters, **{name: None}))
            for name, value in narrow.items()
            if value and name != "search"
        ],
        "any": bool(sum(experiments.count_by_status(session).values())) if not page.total else True,
        "sorts": SORTS,
        "filters": {name: value or "" for name, value in filters.items() if name != "cursor"},
        "busy": bool(counts[Status.QUEUED] or counts[Status.RUNNING]),
        "most_compared": MAX_RUNS,
    }


def _chips(counts: dict[Status, int], filters: dict[str, Any]) -> list[Chip]:
    """Return the status filters with their counts under the other filters."""
    chosen = filters.get("status")
    shown = [status for status in Status if counts[status] or status is chosen]
    return [
        Chip("all", sum(counts.values()), _list_address(filters, status=None), not chosen),
        *(Chip(one.value, counts[one], _list_address(filters, status=one.value), one is chosen) for one in shown),
    ]


def _list_address(filters: dict[str, Any], **changes: str | None) -> str:
    """Return the address of the list's first page with some filters changed."""
    asked = {**filters, "cursor": None, **changes}
    usual = {"sort": SORTS[0][0]}
    query = urlencode({name: value for name, value in asked.items() if value and usual.get(name) != value})
    return with_prefix("/") + (f"?{query}" if query else "")


def fraction_done(item: ExperimentItem) -> float | None:
    """Return the fraction of training done, by epochs and steps."""
    progress = item.progress
    if item.status is not Status.RUNNING:
        return None
    if progress is None or not progress.epochs or not progress.epoch:  # it starts, and counts epochs from 1 then
        return 0.0
    within = (progress.step or 0) / progress.steps if progress.steps else 0.0
    return min(1.0, (progress.epoch - 1 + within) / progress.epochs)


def experiment_context(session: Session, experiment_id: int, compare: str | None) -> dict[str, Any]:
    """Context of an experiment's page."""
    row = experiments.get(session, experiment_id)
    document = describe(session, row)
    epochs = history.read(session, experiment_id)
    kinds = {record.kind for record in artifacts.list_for(session, experiment_id)}
    compare_problem = _why_not_compared(session, experiment_id, compare)
    return {
        "experiment": document,
        "done": fraction_done(document),
        "revision": f"{len(epochs)}-{row.updated_at.timestamp():.0f}" if row.status.terminal else str(len(epochs)),
        "num_epochs": len(epochs),
        "seconds": sum(epoch.seconds for epoch in epochs if epoch.seconds == epoch.seconds) if epochs else None,
        "tiles": tiles(document, epochs),
        "verdict": row.verdict or {},
        "findings": [
            {**finding, "severity": SEVERITIES.get(str(finding.get("severity")), "note")}
            for finding in with_prefix_in_suggestions(row.verdict.get("findings", ()) if row.verdict else ())
        ],
        "layers": row.layers or [],
        "parameters": sum(layer.get("parameters") or 0 for layer in row.layers or []),
        "has_kernels": ArtifactKind.KERNELS in kinds,
        "has_outputs": ArtifactKind.OUTPUTS_VALIDATION in kinds,
        "has_weights": bool(kinds & {ArtifactKind.WEIGHTS_BEST, ArtifactKind.WEIGHTS_LAST}),
        "compare": compare if not compare_problem else None,
        "compare_problem": compare_problem,
        "last_event": events.latest_id(session),
    }


def _why_not_compared(session: Session, experiment_id: int, compare: str | None) -> str | None:
    """Return why the experiments in `compare` cannot be compared, or None."""
    try:
        compared_ids(session, experiment_id, compare)
    except EpochalError as error:
        return error.detail
    return None


def tiles(document: ExperimentDocument, epochs: list[EpochMetrics]) -> list[dict[str, Any]]:
    """Return the main figures of an experiment, shown at the top of its page."""
    best, last = document.best, epochs[-1] if epochs else None
    found = []
    if accuracy := best.get("val_accuracy"):
        found.append({"name": "best validation accuracy", "percent": accuracy.value, "note": f"epoch {accuracy.epoch}"})
    if loss := best.get("val_loss"):
        found.append({"name": "lowest validation loss", "value": loss.value, "note": f"epoch {loss.epoch}"})
    if document.test:
        note = f"weights of epoch {document.test.get('epoch')}"
        found.append({"name": "test accuracy", "percent": document.test.get("accuracy"), "note": note})
    if last:
        found.append({"name": "last validation accuracy", "percent": last.val_accuracy, "note": f"epoch {last.epoch}"})
        found.append({"name": "images a second", "value": last.images_per_second, "note": "training part"})
    return found


def form_context(dataset: str | None = None) -> dict[str, Any]:
    """Context of the form for a new experiment: what it can start from, each on the dataset if one is named."""
    on = {"dataset": {"name": dataset}} if dataset else {}
    optimizer = {"name": "sgd", "lr": 0.01}
    networks = {
        name: {**on, "model": name, "epochs": 10, "batch_size": 32, "optimizer": optimizer} for name in model_presets()
    }
    whole = {
        name: {**body, **({"dataset": {**body.get("dataset", {}), "name": dataset}} if dataset else {})}
        for name, body in experiment_presets().items()
    }
    return {"experiments": whole, "models": networks}
