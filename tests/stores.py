"""Databases of new labs: copies of one that was migrated once in this process; most tests take less than migrating."""

import tempfile
from functools import cache
from pathlib import Path

from models.files import make_folder
from models.settings import Settings
from models.store import Store


@cache
def _migrated() -> bytes:
    """A database file with tables and nothing in them."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        store = Store(settings)
        store.migrate()
        store.dispose()
        return settings.database_path.read_bytes()


def make_tables(settings: Settings) -> None:
    """Give a lab that has no database yet an empty one, with tables. Nothing happens for a lab on PostgreSQL."""
    if settings.database_url is None and not settings.database_path.exists():
        make_folder(settings.data_dir)
        settings.database_path.write_bytes(_migrated())


def new_store(settings: Settings) -> Store:
    """The store of a lab, with its tables."""
    make_tables(settings)
    store = Store(settings)
    store.migrate()
    return store
