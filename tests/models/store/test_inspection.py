"""Databases of this version and of every one before it pass an inspection; it writes nothing."""

from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from models.errors import CorruptFile
from models.store import migrations
from models.store.inspection import inspect
from models.store.sqlite import dbapi


def revisions() -> list[str]:
    with create_engine("sqlite://", module=dbapi).connect() as connection:
        script = ScriptDirectory.from_config(migrations.make_config(connection))
        return [revision.revision for revision in script.walk_revisions()]


@pytest.mark.parametrize("revision", revisions())
def test_every_versions_database_passes(revision: str, tmp_path: Path) -> None:
    path = tmp_path / "epochal.db"
    engine = create_engine(f"sqlite:///{path}", module=dbapi)
    with engine.begin() as connection:
        command.upgrade(migrations.make_config(connection), revision)
    engine.dispose()
    inspect(path)
    assert [found.name for found in tmp_path.iterdir()] == ["epochal.db"]


def test_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "epochal.db").write_text("no database")
    with pytest.raises(CorruptFile, match="is not an SQLite database"):
        inspect(tmp_path / "epochal.db")
