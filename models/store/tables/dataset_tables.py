"""Tables of uploaded datasets, their versions, and the work on them that waits."""

from datetime import datetime

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.data.description import DatasetProgress, ImportReportJson, InfoJson, JobOptions, VersionOptions
from models.errors import ProblemJson
from models.store.columns import JsonColumn, now
from models.store.states import DatasetJobKind, DatasetStatus
from models.store.tables.base import Base, BigInt


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
