"""Tables of models: names with versions, which predictions ask for."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from models.store.columns import now
from models.store.states import WeightsChoice
from models.store.tables.base import EXPERIMENT, Base, BigInt


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
