"""Tables of experiments, their runs, and what runs leave: epochs, events and files."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.curves.metrics import EpochMetrics
from models.findings import FindingJson, VerdictJson
from models.networks.layer import Layer
from models.plain import JsonObject
from models.progress import RunProgress, TestResult
from models.store.columns import JsonColumn, now
from models.store.states import ArtifactKind, EventKind, RunStatus, Status
from models.store.tables.base import EXPERIMENT, Base, BigInt


class Experiment(Base):
    """An experiment: its spec, owner and status."""

    __tablename__ = "experiments"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "name", "id"),
        Index(None, "status", "created_at", "id"),
        Index(None, "model", "created_at", "id"),
        Index(None, "dataset", "created_at", "id"),
        Index(None, "owner", "status"),
        Index(None, "spec_digest"),
        Index(None, "reproduces"),
        Index(None, "continues"),
        {"sqlite_autoincrement": True},  # an id is never given twice, even after a delete
    )

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(100))
    dataset: Mapped[str] = mapped_column(String(100))
    status: Mapped[Status]
    attempt: Mapped[int] = mapped_column(default=0)
    """The fencing number: 0 before the first claim, one more with each; every write of a run carries it."""
    failed_attempts: Mapped[int] = mapped_column(default=0)
    """Attempts since the last submission or resume whose worker or process was lost."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    revision: Mapped[int] = mapped_column(default=1)
    """Incremented with every visible change; part of ETags."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    enqueued_at: Mapped[datetime | None]
    """When a message for it was first put on the queue since it was submitted or resumed, which is its place in the
    queue; None while it still has to be."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key it came with."""
    reproduces: Mapped[BigInt | None] = mapped_column(ForeignKey(EXPERIMENT, ondelete="SET NULL"))
    continues: Mapped[BigInt | None]
    """The experiment whose epochs it began with. No foreign key, which SQLite cannot add to a table that exists:
    experiments.delete() clears it."""
    spec_digest: Mapped[str] = mapped_column(String(64))
    dataset_fingerprint: Mapped[str | None] = mapped_column(String(100))
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it failed, diverged or was cancelled."""
    notes: Mapped[str | None] = mapped_column(Text)
    """The users' notes on it."""
    stop_requested: Mapped[str | None] = mapped_column(Text)
    """Why it is to end early, with what it has, as completed; None if nothing asks for it."""
    progress: Mapped[RunProgress | None] = mapped_column(JsonColumn)
    test: Mapped[TestResult | None] = mapped_column(JsonColumn)
    warnings: Mapped[list[FindingJson]] = mapped_column(JsonColumn, default=list)
    """Findings known from the spec alone."""
    spec: Mapped[JsonObject]
    layers: Mapped[list[Layer] | None] = mapped_column(JsonColumn)
    verdict: Mapped[VerdictJson | None] = mapped_column(JsonColumn)
    environment: Mapped[JsonObject | None]

    tag_rows: Mapped[list["ExperimentTag"]] = relationship(
        lazy="selectin", order_by="ExperimentTag.position", cascade="all, delete-orphan", passive_deletes=True
    )

    @property
    def tags(self) -> list[str]:
        """Its tags in the order they were given."""
        return [row.tag for row in self.tag_rows]


class ExperimentTag(Base):
    """One tag of one experiment."""

    __tablename__ = "experiment_tags"
    __table_args__ = (Index(None, "tag", "experiment_id"),)

    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int]


class Run(Base):
    """One attempt at an experiment by one worker."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "experiment_id", "attempt", unique=True), Index(None, "status"))

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"))
    attempt: Mapped[int]
    max_attempts: Mapped[int]
    worker: Mapped[str] = mapped_column(String(200))
    status: Mapped[RunStatus]
    heartbeat: Mapped[int] = mapped_column(default=0)
    """A counter incremented by the owner. A watcher measures its silence by the watcher's own clock."""
    start_epoch: Mapped[int] = mapped_column(default=0)
    """Epochs that were already done when it began."""
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)
    environment: Mapped[JsonObject | None]


class EpochRow(Base):
    """The metrics of one epoch; NULL for values not finite or not measured."""

    __tablename__ = "epoch_metrics"
    __table_args__ = ({"sqlite_with_rowid": False},)  # clustered by experiment: a history is one run of pages

    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    train_loss: Mapped[float | None]
    train_accuracy: Mapped[float | None]
    val_loss: Mapped[float | None]
    val_accuracy: Mapped[float | None]
    lr: Mapped[float | None]
    grad_norm: Mapped[float | None]
    seconds: Mapped[float | None]
    images_per_second: Mapped[float | None]
    peak_memory_mb: Mapped[float | None]
    class_accuracy: Mapped[list[float | None] | None] = mapped_column(JsonColumn)
    """Validation accuracy of each class; null for a class without images."""


class SummaryRow(Base):
    """The best and last value of one series, kept so that a list can be sorted by it."""

    __tablename__ = "summaries"
    __table_args__ = (
        Index(None, "series", "best", "experiment_id"),
        Index(None, "series", "last", "experiment_id"),
        {"sqlite_with_rowid": False},
    )

    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"), primary_key=True)
    series: Mapped[str] = mapped_column(String(40), primary_key=True)
    best: Mapped[float | None]
    best_epoch: Mapped[int | None]
    last: Mapped[float | None]


class Event(Base):
    """Something that happened to an experiment; its id is the id of the server-sent event."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "experiment_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"))
    kind: Mapped[EventKind]
    created_at: Mapped[datetime] = mapped_column(default=now)
    data: Mapped[JsonObject]


class Artifact(Base):
    """A file below the experiments folder, with the digest it was written with."""

    __tablename__ = "artifacts"
    __table_args__ = ({"sqlite_with_rowid": False},)

    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"), primary_key=True)
    kind: Mapped[ArtifactKind] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    path: Mapped[str] = mapped_column(String(300))
    sha256: Mapped[str] = mapped_column(String(64))
    num_bytes: Mapped[BigInt]
    created_at: Mapped[datetime] = mapped_column(default=now)


class IdempotencyKey(Base):
    """Which experiment a POST with this key made, and the digest of that POST's body."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "experiment_id"),)

    owner: Mapped[str] = mapped_column(String(100), primary_key=True)
    """Name of the API key, empty where none is needed."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    experiment_id: Mapped[BigInt] = mapped_column(ForeignKey(EXPERIMENT, ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)


assert set(EpochMetrics.__dataclass_fields__) <= set(EpochRow.__table__.columns.keys())
