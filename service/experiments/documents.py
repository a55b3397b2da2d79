"""JSON documents of experiments, and their construction from stored rows."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from models.curves.metrics import Summaries
from models.plain import JsonObject
from models.store.listing import Listed
from models.store.states import RunStatus, Status
from models.store.tables import Experiment, Run
from service.http.documents import API, Document
from service.http.prefix import with_prefix, with_prefix_in_suggestions


class Best(Document):
    """The best value of a series."""

    value: float
    epoch: int = Field(description="The first epoch that had it, counted from 1.")


class RunProgressDocument(BaseModel):
    """RunProgressDocument of training."""

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


class StudyReference(Document):
    """A study that an experiment is a run of."""

    id: int
    title: str


class ExperimentItem(Document):
    """An experiment in a list, without its spec and runs."""

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
    progress: RunProgressDocument | None
    best: dict[str, Best] = Field(description="By series; losses are best when low, accuracies when high.")
    last: dict[str, float | None] = Field(description="By series; null where it was not finite.")
    test: JsonObject | None = Field(description="The best weights measured on the test split, if asked for.")
    warnings: list[JsonObject] = Field(description="Warnings about the spec from its submission.")
    reproduces: int | None = Field(description="The experiment whose spec this one repeats.")
    continues: int | None = Field(description="The experiment whose epochs this one began with.")
    links: dict[str, str]


class ExperimentDocument(ExperimentItem):
    """An experiment with its complete spec and its runs."""

    spec: JsonObject = Field(description="Complete; can be POSTed again. GET /api/v1/schema describes it.")
    notes: str = Field(description="The users' notes; empty if there are none.")
    environment: JsonObject | None = Field(description="Versions, hardware and threads that it was trained with.")
    runs: list[RunDocument]
    studies: list[StudyReference] = Field(description="The studies that it is a run of.")


class ExperimentPage(Document):
    """One page of a list."""

    items: list[ExperimentItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int = Field(description="Number of experiments that match the filters.")


class LayersDocument(Document):
    """The layers of a network, in order."""

    experiment_id: int
    layers: list[JsonObject] = Field(description="name, type, output_shape, kernel_shape or null, parameters.")

    @classmethod
    def of(cls, row: Experiment) -> "LayersDocument":
        """Build the document from the layers stored at submission."""
        return cls(experiment_id=row.id, layers=row.layers or [])


def links_of(experiment_id: int) -> dict[str, str]:
    """Return the addresses of an experiment's resources."""
    root = with_prefix(f"{API}/experiments/{experiment_id}")
    return {
        "self": root,
        "page": with_prefix(f"/experiments/{experiment_id}"),
        "metrics": f"{root}/metrics",
        "metrics_csv": f"{root}/metrics.csv",
        "curves": f"{root}/curves.png",
        "kernels": f"{root}/kernels.png",
        "layers": f"{root}/layers",
        "events": f"{root}/events",
        "verdict": f"{root}/verdict",
        "confusion": f"{root}/confusion",
        "roc": f"{root}/roc",
        "mistakes": f"{root}/mistakes",
        "calibration": f"{root}/calibration",
        "predictions": f"{root}/predictions",
    }


def experiment_item(row: Listed, summaries: Summaries) -> ExperimentItem:
    """Build an experiment's entry in a list."""
    return ExperimentItem(**_item_members(row, summaries))


def experiment_document(
    row: Experiment, summaries: Summaries, runs: Sequence[Run], studies: Sequence[tuple[int, str]]
) -> ExperimentDocument:
    """Build the complete document of an experiment; `studies` are the ids and titles of those that it is a run of."""
    return ExperimentDocument(
        **_item_members(row, summaries),
        spec=row.spec,
        notes=row.notes or "",
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
        studies=[StudyReference(id=number, title=title) for number, title in studies],
    )


def _item_members(row: Experiment | Listed, summaries: Summaries) -> JsonObject:
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
        "warnings": with_prefix_in_suggestions(row.warnings),
        "reproduces": row.reproduces,
        "continues": row.continues,
        "links": links_of(row.id),
    }
