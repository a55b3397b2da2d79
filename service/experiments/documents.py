"""The JSON documents of the API, and how a stored row becomes one."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.responses import Response

from models.curves.metrics import EpochMetrics
from models.errors import Conflict
from models.store.pages import Listed
from models.store.states import ProbeStatus, RunStatus, Status
from models.store.tables import Experiment, Probe, Run
from service.http.prefix import under, under_in

API = "/api/v1"

Summaries = dict[str, dict[str, Any]]


class Document(BaseModel):
    """A document's members are what is listed; what they hold may grow."""

    model_config = ConfigDict(extra="forbid")


def respond(document: BaseModel) -> Response:
    """A document as an answer, for routes that are asked often: FastAPI would check and convert it once more."""
    return Response(document.model_dump_json(), media_type="application/json")


class Best(Document):
    """The best value of a series."""

    value: float
    epoch: int = Field(description="The first epoch that had it, counted from 1.")


class Progress(BaseModel):
    """Where training is at this moment."""

    model_config = ConfigDict(extra="allow")

    epoch: int | None = Field(default=None, description="The epoch being trained, counted from 1.")
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    images_per_second: float | None = None
    phase: str | None = None


class RunDocument(Document):
    """One attempt at an experiment by one worker."""

    attempt: int
    worker: str
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None
    start_epoch: int = Field(description="Epochs that were already done when it began.")
    reason: str | None


class ExperimentItem(Document):
    """An experiment as lists show it."""

    id: int
    name: str
    tags: list[str]
    status: Status
    reason: str | None = Field(description="Why it failed, diverged or was cancelled.")
    model: str
    dataset: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: Progress | None
    best: dict[str, Best] = Field(description="By series; losses are best when low, accuracies when high.")
    last: dict[str, float | None] = Field(description="By series; null where it was not finite.")
    test: dict[str, Any] | None = Field(description="The best weights measured on the test split, if asked for.")
    warnings: list[dict[str, Any]] = Field(description="What was odd about the spec from the start.")
    reproduces: int | None = Field(description="The experiment whose spec this one repeats.")
    links: dict[str, str]


class ExperimentDocument(ExperimentItem):
    """An experiment whole: with its complete spec and its runs."""

    spec: dict[str, Any] = Field(description="Complete, and good for POSTing again. GET /api/v1/schema describes it.")
    environment: dict[str, Any] | None = Field(description="What it was trained with.")
    runs: list[RunDocument]


class ExperimentPage(Document):
    """One page of a list."""

    items: list[ExperimentItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int = Field(description="Experiments that the filters let through.")


class Epoch(Document):
    """The metrics of one epoch; null stands for what was not finite or not measured."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    lr: float | None
    grad_norm: float | None
    seconds: float | None
    images_per_second: float | None
    peak_memory_mb: float | None


class MetricsDocument(Document):
    """The curves of an experiment."""

    experiment_id: int
    epochs: list[Epoch]
    best: dict[str, Best]


class ProbeDocument(Document):
    """A measurement that a worker makes beside the queue."""

    id: int
    status: ProbeStatus
    spec: dict[str, Any]
    options: dict[str, Any]
    result: dict[str, Any] | None
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class ProbeItem(Document):
    """A learning rate test as lists show it."""

    id: int
    status: ProbeStatus
    model: str
    dataset: str
    options: dict[str, Any] = Field(description="The range: lr_min, lr_max, steps.")
    suggestion: dict[str, Any] | None = Field(description="The rate and why, once it is completed.")
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class ProbePage(Document):
    """One page of a list."""

    items: list[ProbeItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int = Field(description="Tests that the filter lets through.")


class LayersDocument(Document):
    """The layers of a network, in order."""

    experiment_id: int
    layers: list[dict[str, Any]] = Field(description="name, type, output_shape, kernel_shape or null, parameters.")

    @classmethod
    def of(cls, row: Experiment) -> "LayersDocument":
        """The layers of an experiment's network, known since its spec was accepted."""
        return cls(experiment_id=row.id, layers=row.layers or [])


class Finding(BaseModel):
    """One thing that a careful reader would say about a history."""

    model_config = ConfigDict(extra="allow")

    code: str
    severity: str = Field(description="good, info, warning or problem.")
    sentence: str
    evidence: dict[str, Any] | None = None
    suggestion: str | None = None


class VerdictDocument(BaseModel):
    """How training went, in plain words."""

    model_config = ConfigDict(extra="allow")

    experiment_id: int
    summary: str
    findings: list[Finding]

    @classmethod
    def of(cls, row: Experiment) -> "VerdictDocument":
        """The stored verdict. Raises Conflict while there is none."""
        if row.verdict is None:
            raise Conflict(
                f"experiment {row.id} is {row.status} and has no verdict{'' if row.status.terminal else ' yet'}",
                fix="wait until its first epochs are measured" if not row.status.terminal else None,
            )
        return cls(**{**row.verdict, "findings": with_addresses(row.verdict), "experiment_id": row.id})


def with_addresses(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """A verdict's findings, with the addresses that suggestions name as whoever asked has to write them."""
    return [
        {**finding, "suggestion": under_in(finding["suggestion"])} if finding.get("suggestion") else finding
        for finding in verdict.get("findings", ())
    ]


def links_of(experiment_id: int) -> dict[str, str]:
    """Where everything about an experiment is found."""
    root = under(f"{API}/experiments/{experiment_id}")
    return {
        "self": root,
        "page": under(f"/experiments/{experiment_id}"),
        "metrics": f"{root}/metrics",
        "metrics_csv": f"{root}/metrics.csv",
        "curves": f"{root}/curves.png",
        "kernels": f"{root}/kernels.png",
        "layers": f"{root}/layers",
        "events": f"{root}/events",
        "verdict": f"{root}/verdict",
        "predictions": f"{root}/predictions",
    }


def experiment_item(row: Listed, summaries: Summaries) -> ExperimentItem:
    """An experiment as lists show it."""
    return ExperimentItem(**_item_members(row, summaries))


def experiment_document(row: Experiment, summaries: Summaries, runs: Sequence[Run]) -> ExperimentDocument:
    """An experiment whole."""
    return ExperimentDocument(
        **_item_members(row, summaries),
        spec=row.spec,
        environment=row.environment,
        runs=[
            RunDocument(
                attempt=run.attempt,
                worker=run.worker,
                status=run.status,
                started_at=run.started_at,
                ended_at=run.ended_at,
                start_epoch=run.start_epoch,
                reason=run.reason,
            )
            for run in runs
        ],
    )


def _item_members(row: Experiment | Listed, summaries: Summaries) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "tags": row.tags,
        "status": row.status,
        "reason": row.reason,
        "model": row.model,
        "dataset": row.dataset,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "progress": row.progress,
        "best": summaries["best"],
        "last": summaries["last"],
        "test": row.test,
        "warnings": row.warnings,
        "reproduces": row.reproduces,
        "links": links_of(row.id),
    }


def metrics_json(experiment_id: int, history: Iterable[EpochMetrics], summaries: Summaries) -> bytes:
    """The curves as JSON: a MetricsDocument, without an object for each of its epochs."""
    epochs = [metrics.as_json() for metrics in history]
    return to_json({"experiment_id": experiment_id, "epochs": epochs, "best": summaries["best"]})


def probe_document(row: Probe) -> ProbeDocument:
    """A learning-rate test or pre-flight as JSON."""
    return ProbeDocument(
        id=row.id,
        status=row.status,
        spec=row.spec,
        options=row.options or {},
        result=row.result,
        reason=row.reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        links=_links_of_probe(row.id),
    )


def probe_item(row: Probe, model: str) -> ProbeItem:
    """A learning rate test as lists show it."""
    return ProbeItem(
        id=row.id,
        status=row.status,
        model=model,
        dataset=row.spec["dataset"]["name"],
        options=row.options or {},
        suggestion=(row.result or {}).get("suggestion"),
        reason=row.reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        links=_links_of_probe(row.id),
    )


def _links_of_probe(probe_id: int) -> dict[str, str]:
    root = under(f"{API}/learning-rate-tests/{probe_id}")
    return {"self": root, "curve": f"{root}/curve.png"}
