"""Tables of workers, and of the measurements that wait for them."""

from datetime import datetime

from sqlalchemy import Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.plain import JsonObject
from models.store.columns import now
from models.store.states import MeasurementKind, MeasurementStatus
from models.store.tables.base import Base, BigInt


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


class WorkerRow(Base):
    """A worker's registration and heartbeat."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int] = mapped_column(Integer)
    device: Mapped[str] = mapped_column(String(100))
    heartbeat: Mapped[int] = mapped_column(default=0)
    seen_at: Mapped[datetime] = mapped_column(default=now)
