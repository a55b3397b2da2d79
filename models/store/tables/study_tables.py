"""Tables of studies: their rows, their runs, and what is measured at their end."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.findings import FindingJson
from models.networks.layer import Layer
from models.plain import JsonObject
from models.store.columns import JsonColumn, now
from models.store.search_state import SearchState
from models.store.states import StudyState
from models.store.tables.base import EXPERIMENT, Base, BigInt
from models.studies.budget import BudgetPlan
from models.studies.images import RowImages


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
