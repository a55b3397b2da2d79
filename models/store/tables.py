"""SQLAlchemy tables. Small columns come before JSON ones, since SQLite reads a row from its start.

experiments 1--n runs, experiment_tags, epoch_metrics, summaries, events, artifacts, idempotency_keys, model_versions
models 1--n model_versions
studies 1--n study_rows 1--n study_runs n--1 experiments
studies 1--n study_additions
datasets 1--n dataset_versions 1--n dataset_jobs
webhooks 1--n webhook_deliveries
probes (measurements), api_keys and workers stand alone.
"""

from datetime import datetime
from typing import Annotated

from sqlalchemy import BigInteger, Double, ForeignKey, ForeignKeyConstraint, Index, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from models.curves.metrics import EpochMetrics
from models.data.description import DatasetProgress, ImportReportJson, InfoJson, JobOptions, VersionOptions
from models.errors import ProblemJson
from models.findings import FindingJson, VerdictJson
from models.networks.layer import Layer
from models.plain import JsonObject
from models.progress import RunProgress, TestResult
from models.store.columns import JsonColumn, UtcDateTime, now, words
from models.store.search_state import SearchState
from models.store.states import (
    ArtifactKind,
    DatasetJobKind,
    DatasetStatus,
    DeliveryStatus,
    EventKind,
    MeasurementKind,
    MeasurementStatus,
    Role,
    RunStatus,
    Status,
    StudyState,
    WeightsChoice,
)
from models.studies.budget import BudgetPlan
from models.studies.images import RowImages
from models.webhooks import WebhookEvent

# SQLite's integers all have 64 bits, but only one declared INTEGER numbers itself.
BigInt = Annotated[int, mapped_column(BigInteger().with_variant(Integer(), "sqlite"))]

EXPERIMENT = "experiments.id"


class Base(DeclarativeBase):
    """Every table, with names for every constraint, which batch migrations on SQLite need."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        float: Double,
        JsonObject: JsonColumn,
        list[JsonObject]: JsonColumn,
        Status: words(Status),
        RunStatus: words(RunStatus),
        EventKind: words(EventKind),
        ArtifactKind: words(ArtifactKind),
        MeasurementKind: words(MeasurementKind),
        MeasurementStatus: words(MeasurementStatus),
        Role: words(Role),
        WeightsChoice: words(WeightsChoice),
        StudyState: words(StudyState),
        DatasetStatus: words(DatasetStatus),
        DatasetJobKind: words(DatasetJobKind),
        DeliveryStatus: words(DeliveryStatus),
        WebhookEvent: words(WebhookEvent),
    }


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
    """When a message for it was last put on the queue; None while it still has to be."""
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


class Measurement(Base):
    """A short measurement that waits in the database for a worker."""

    __tablename__ = "probes"
    __table_args__ = (Index(None, "status", "id"), {"sqlite_autoincrement": True})

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    kind: Mapped[MeasurementKind]
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key that created it; None where none is required."""
    status: Mapped[MeasurementStatus]
    claimed_by: Mapped[str | None] = mapped_column(String(200))
    heartbeat: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)
    options: Mapped[JsonObject] = mapped_column(default=dict)
    spec: Mapped[JsonObject]
    result: Mapped[JsonObject | None]


class Model(Base):
    """A name under which a version of weights serves predictions."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class ModelVersion(Base):
    """One experiment's weights under a model's name. It never changes, but that it may be withdrawn."""

    __tablename__ = "model_versions"
    __table_args__ = (Index(None, "experiment_id"), Index(None, "owner"))

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    experiment_id: Mapped[BigInt | None] = mapped_column(ForeignKey(EXPERIMENT, ondelete="SET NULL"))
    """None once the experiment was deleted, which only a withdrawn version allows."""
    weights: Mapped[WeightsChoice]
    epoch: Mapped[int | None]
    """The epoch that the weights are of."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Digest of the weights' file."""
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key that made it; None where none is needed."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    withdrawn_at: Mapped[datetime | None]
    """When a rollback withdrew it. The version that is served is the newest that was not withdrawn."""


class Study(Base):
    """A study: experiments made to be compared."""

    __tablename__ = "studies"
    __table_args__ = (
        Index(None, "state"),
        Index(None, "owner", "idempotency_key"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    state: Mapped[StudyState]
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key that created it; None where none is required."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    body_sha256: Mapped[str | None] = mapped_column(String(64))
    """Of the body that came with the key."""
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    ticked_at: Mapped[datetime | None]
    """When a worker last counted its time."""
    spent_seconds: Mapped[float] = mapped_column(default=0.0)
    """Time in which something was measured or trained for it, pauses of the lab left out."""
    reason: Mapped[str | None] = mapped_column(Text)
    plan: Mapped[BudgetPlan | None] = mapped_column(JsonColumn)
    """How rows are shortened to fit the budget; None without a budget, and until the dry runs are made."""
    spec: Mapped[JsonObject]
    search: Mapped[SearchState | None] = mapped_column(JsonColumn)
    """The state of a search; None for another study."""


class StudyRow(Base):
    """One row of a study: what its runs have in common."""

    __tablename__ = "study_rows"

    study_id: Mapped[BigInt] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(String(200))
    baseline: Mapped[str | None] = mapped_column(String(200))
    """Key of the row that it is compared with; None for the baseline itself."""
    share: Mapped[float] = mapped_column(default=1.0)
    min_epochs: Mapped[int] = mapped_column(default=1)
    """Epochs that a budget leaves it at least."""
    repeats: Mapped[int] = mapped_column(default=1)
    """Seeds that it is to be run with."""
    measurement: Mapped[BigInt | None]
    """Its dry run, which rows that cost the same share."""
    learning_rate_test: Mapped[BigInt | None]
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it was not run."""
    title: Mapped[str] = mapped_column(Text)
    question: Mapped[str] = mapped_column(Text)
    shortened: Mapped[str | None] = mapped_column(Text)
    """What was left out to fit the budget, in words."""
    published: Mapped[JsonObject | None]
    spec: Mapped[JsonObject]
    """In full, of its first seed."""
    when_shortened: Mapped[JsonObject]
    """Fields that change too where little of the row is left."""
    planned: Mapped[JsonObject | None]
    """The shortened spec, from when its first run began."""
    layers: Mapped[list[Layer] | None] = mapped_column(JsonColumn)
    warnings: Mapped[list[FindingJson]] = mapped_column(JsonColumn, default=list)
    images: Mapped[RowImages] = mapped_column(JsonColumn)
    params: Mapped[JsonObject | None]
    """The values of a search's trial; None for another row."""


class StudyRun(Base):
    """One run of a row: an ordinary experiment, which other studies may have among theirs."""

    __tablename__ = "study_runs"
    __table_args__ = (Index(None, "experiment_id"),)

    study_id: Mapped[BigInt] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    repeat: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    experiment_id: Mapped[BigInt | None] = mapped_column(ForeignKey(EXPERIMENT, ondelete="SET NULL"))
    """None once that was deleted."""
    own: Mapped[bool]
    """Whether this study made it; it is left alone otherwise."""


class StudyAddition(Base):
    """An addition to a study's rows: runs combined to one score, or one run's score on corrupted images."""

    __tablename__ = "study_additions"

    study_id: Mapped[BigInt] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(220), primary_key=True)
    """What it is and of which row, as ensemble:wide; with no row where it is of several rows."""
    position: Mapped[int]
    measurement: Mapped[BigInt | None]
    """The measurement that is made for it; its result is copied here, since measurements are not kept for ever."""
    best_experiment: Mapped[BigInt | None]
    """The best of its runs by itself."""
    title: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    """Why there is no result, or what was left out of it."""
    experiment_ids: Mapped[list[int]] = mapped_column(JsonColumn)
    result: Mapped[JsonObject | None]


class Dataset(Base):
    """The name of an uploaded dataset. Built-in datasets have no rows."""

    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class DatasetVersion(Base):
    """One version of an uploaded dataset. Its files are in data_dir/datasets/NAME/VERSION once it is ready."""

    __tablename__ = "dataset_versions"
    __table_args__ = (Index(None, "owner"),)

    dataset: Mapped[str] = mapped_column(ForeignKey("datasets.name", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    status: Mapped[DatasetStatus]
    made_of: Mapped[int | None]
    """The version that images were relabelled in or dropped from; None for an upload."""
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    num_bytes: Mapped[BigInt] = mapped_column(default=0)
    """On the disk: of the archive while it is imported, of the arrays once it is ready."""
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key that made it; None where none is needed."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]
    reason: Mapped[ProblemJson | None] = mapped_column(JsonColumn)
    """Why it failed."""
    progress: Mapped[DatasetProgress | None] = mapped_column(JsonColumn)
    options: Mapped[VersionOptions] = mapped_column(JsonColumn, default=dict)
    info: Mapped[InfoJson | None] = mapped_column(JsonColumn)
    report: Mapped[ImportReportJson | None] = mapped_column(JsonColumn)


class DatasetJob(Base):
    """Work on a version of a dataset that waits for a worker, or that one is doing; deleted when it is done."""

    __tablename__ = "dataset_jobs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["dataset", "version"], ["dataset_versions.dataset", "dataset_versions.version"], ondelete="CASCADE"
        ),
        Index(None, "dataset", "version"),
        {"sqlite_autoincrement": True},  # a job's folder is named by its id, so an id is never given twice
    )

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    kind: Mapped[DatasetJobKind]
    attempts: Mapped[int] = mapped_column(default=0)
    """The fencing number: one more with each claim."""
    claimed_by: Mapped[str | None] = mapped_column(String(200))
    """The worker that does it; None while it waits."""
    heartbeat: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=now)
    options: Mapped[JobOptions] = mapped_column(JsonColumn, default=dict)


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


class ApiKey(Base):
    """An API key's name, role and SHA-256. The key itself is not stored."""

    __tablename__ = "api_keys"

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    role: Mapped[Role]
    key_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    revoked_at: Mapped[datetime | None]


class PageSession(Base):
    """A browser that has logged in. The token in its cookie is not stored."""

    __tablename__ = "sessions"
    __table_args__ = (Index(None, "key_id"),)

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[BigInt] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]


class Webhook(Base):
    """An address that is notified when experiments and studies end."""

    __tablename__ = "webhooks"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    url: Mapped[str] = mapped_column(String(2000))
    enabled: Mapped[bool] = mapped_column(default=True)
    owner: Mapped[str | None] = mapped_column(String(100))
    """Name of the API key that created it; None where none is required."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it is disabled."""
    secret: Mapped[str] = mapped_column(String(100))
    """What messages are signed with. It has to be known for that, so it is stored as it is, and shown once."""
    events: Mapped[list[str]] = mapped_column(JsonColumn)


class Delivery(Base):
    """One message to one webhook."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "status", "next_at"),
        Index(None, "webhook_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[BigInt] = mapped_column(primary_key=True)
    webhook_id: Mapped[BigInt] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[WebhookEvent]
    message_id: Mapped[str] = mapped_column(String(100))
    """The same in every attempt, so that a receiver knows what it has had."""
    status: Mapped[DeliveryStatus]
    attempts: Mapped[int] = mapped_column(default=0)
    """The fencing number: one more with each claim."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that failed since it was made or sent again by request; decides on the next pause."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    next_at: Mapped[datetime | None]
    """When it is due, or while it is sent, when its sender counts as silent; None once it has ended."""
    last_at: Mapped[datetime | None]
    last_status: Mapped[int | None]
    answer: Mapped[str | None] = mapped_column(Text)
    """The beginning of the last answer, or why there was none."""
    body: Mapped[str] = mapped_column(Text)


class WorkerRow(Base):
    """A worker's registration and heartbeat."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    device: Mapped[str] = mapped_column(String(100))
    heartbeat: Mapped[int] = mapped_column(default=0)
    seen_at: Mapped[datetime] = mapped_column(default=now)


assert set(EpochMetrics.__dataclass_fields__) <= set(EpochRow.__table__.columns.keys())
