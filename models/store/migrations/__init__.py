"""Runs the schema's migrations in the caller's transaction, so that each is applied completely or not at all."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy.engine import Connection

from models.errors import Conflict

FOLDER = Path(__file__).parent


def make_config(connection: Connection) -> Config:
    """Alembic's configuration, without an .ini file, for a connection that is already in a transaction."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the schema to the newest revision."""
    if MigrationContext.configure(connection).get_current_heads() == (_newest(),):
        return
    try:
        command.upgrade(make_config(connection), "head")
    except CommandError as error:
        raise Conflict(
            f"the database was written by another version of Epochal ({error})",
            fix="use that version, or another data directory",
        ) from error


@cache
def _newest() -> str | None:
    """The newest revision in FOLDER, whose files are loaded once a process."""
    return ScriptDirectory(FOLDER).get_current_head()
