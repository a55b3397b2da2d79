"""Storage of experiments: tables, queries, artifacts on disk, migrations."""

from models.store.states import Status
from models.store.store import Store

__all__ = ["Status", "Store"]
