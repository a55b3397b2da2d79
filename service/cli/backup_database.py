"""The copied database in a folder that is backed up or restored."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from models.store.artifacts import ArtifactRecord


@contextmanager
def reading(folder: Path) -> Iterator["Session"]:
    """A session that reads the SQLite database in a folder, whatever EPOCHAL_DATABASE_URL names."""
    from models.settings import Settings
    from models.store import Store

    store = Store(Settings(data_dir=folder).model_copy(update={"database_url": None}))
    try:
        with store.reading() as session:
            yield session
    finally:
        store.dispose()


def list_records(folder: Path) -> list["ArtifactRecord"]:
    """List the artifacts recorded in the database of a folder."""
    from sqlalchemy import select

    from models.store import artifacts
    from models.store.tables import Experiment

    with reading(folder) as session:
        numbers = session.scalars(select(Experiment.id)).all()
        return [record for number in numbers for record in artifacts.list_for(session, number)]
