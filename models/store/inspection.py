"""Validation of an untrusted database file, opened for reading only and without running code in it.

    inspect(path)     raises CorruptFile, or Conflict for another version's, unless it is a sound database of a lab

SQLite databases carry code: triggers, views, generated columns and expressions in indexes run when rows are read or
written. So the schema has to be, text for text, the one that this version's migrations make.
"""

import json
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Column, Double, Enum, Integer, String, Text, create_engine
from sqlalchemy.types import JSON, BigInteger

from models.errors import Conflict, CorruptFile, SpecError
from models.spec.parse import load_spec
from models.store import migrations
from models.store.columns import UtcDateTime
from models.store.sqlite import dbapi
from models.store.tables import Base

MAGIC = b"SQLite format 3\0"
STATISTICS = ("sqlite_stat1", "sqlite_stat4", "sqlite_sequence")
"""Tables that SQLite makes by itself."""
MOMENT = "????-??-?? ??:??:??"
FIRST_DAY = 1721425.5
"""The Julian day number of Python's earliest date."""


def inspect(path: Path) -> None:
    """Check that a file is an undamaged database with a lab's schema and values of the right kinds, and nothing else.

    Raises CorruptFile with what is wrong, Conflict if another version of Epochal wrote it.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise CorruptFile(f"{path.name} is not an SQLite database")
    try:
        with closing(_open(path)) as connection:
            schema = _schema(connection)
            _compare(schema, _expected(_revision(connection, schema)))
            _check_whole(connection)
            _check_values(connection)
    except (dbapi.Error, UnicodeError, OverflowError) as error:
        raise CorruptFile(f"{path.name} is damaged: {str(error)[:200]}") from error


def keys_in_use(path: Path) -> list[str]:
    """The names of the valid API keys in a database."""
    with closing(_open(path)) as connection:
        rows = connection.execute("SELECT name FROM api_keys WHERE revoked_at IS NULL ORDER BY name").fetchall()
    return [str(name) for (name,) in rows]


def _open(path: Path) -> Any:
    # Immutable: no log is replayed and nothing is written beside it. Untrusted: no function in a schema is called.
    connection = dbapi.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True, isolation_level=None)
    for pragma in ("trusted_schema = OFF", "query_only = ON", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _schema(connection: Any) -> dict[tuple[str, str], str]:
    """The schema: (type, name) to its SQL text, with spaces and quotes normalised."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    return {
        (str(kind), str(name)): "".join(str(sql or "").replace('"', "").split()).lower()
        for kind, name, sql in rows
        if name not in STATISTICS
    }


def _revision(connection: Any, schema: dict[tuple[str, str], str]) -> str:
    if ("table", "alembic_version") not in schema:
        raise CorruptFile("the database is not a lab's: it has no version")
    rows = connection.execute("SELECT version_num FROM alembic_version LIMIT 2").fetchall()
    if len(rows) != 1 or not isinstance(rows[0][0], str):
        raise CorruptFile("the database is not a lab's: it has no version")
    return str(rows[0][0])


@cache
def _expected(revision: str) -> Mapping[tuple[str, str], str]:
    """The schema that this version's migrations make, up to a revision."""
    engine = create_engine("sqlite://", module=dbapi)
    try:
        with engine.begin() as connection:
            config = migrations.make_config(connection)
            try:
                ScriptDirectory.from_config(config).get_revision(revision)
                command.upgrade(config, revision)
            except CommandError as error:
                raise Conflict(
                    f"the database was written by another version of Epochal ({revision[:40]!r})",
                    fix="use that version",
                ) from error
            return MappingProxyType(_schema(connection.connection.cursor()))
    finally:
        engine.dispose()


def _compare(found: Mapping[tuple[str, str], str], expected: Mapping[tuple[str, str], str]) -> None:
    for kind, name in sorted(found.keys() - expected.keys()):
        raise CorruptFile(f"the database holds the {kind} {name[:60]!r}, which no lab's database has")
    for kind, name in sorted(expected.keys() - found.keys()):
        raise CorruptFile(f"the database lacks the {kind} {name!r}")
    for kind, name in sorted(name for name, text in expected.items() if found[name] != text):
        raise CorruptFile(f"the {kind} {name!r} of the database differs from this version's")


def _check_whole(connection: Any) -> None:
    found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise CorruptFile(f"the database is damaged: {found.splitlines()[-1][:200]}")
    if lost := connection.execute("PRAGMA foreign_key_check").fetchone():
        raise CorruptFile(f"the database is damaged: a row of {lost[0]!r} refers to a missing row")


def _check_values(connection: Any) -> None:
    """Check that all values have their columns' types, since SQLite stores any value in any column."""
    for table in Base.metadata.sorted_tables:
        there = {row[1] for row in connection.execute(f'PRAGMA table_info("{table.name}")')}
        rules = " AND ".join(f"({_rule(column)})" for column in table.columns if column.name in there)
        query = f'SELECT 1 FROM "{table.name}" WHERE NOT ({rules}) LIMIT 1'  # noqa: S608 (names of our own tables)
        if rules and connection.execute(query).fetchone():
            raise CorruptFile(f"the database is damaged: the table {table.name!r} holds a value of a wrong kind")
    for number, spec in connection.execute("SELECT id, spec FROM experiments"):
        try:
            load_spec(json.loads(spec))
        except (SpecError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptFile(f"the database is damaged: experiment {number} has no valid spec") from error


def _rule(column: Column[Any]) -> str:
    """An SQL condition that holds of every value this column may have."""
    name, kind = f'"{column.name}"', column.type
    match kind:
        case Enum():
            rule = f"{name} IN ({', '.join(repr(str(word)) for word in kind.enums)})"
        case UtcDateTime():
            forms = f"({name} GLOB '{MOMENT}' OR {name} GLOB '{MOMENT}.??????')"
            rule = f"typeof({name}) = 'text' AND {forms} AND julianday({name}) >= {FIRST_DAY}"
        case JSON():
            rule = f"typeof({name}) = 'text' AND json_valid({name}) AND json_type({name}) IN ('object', 'array')"
        case String() | Text():
            rule = f"typeof({name}) = 'text' AND length({name}) <= {kind.length or 1_000_000}"
        case Double():
            rule = f"typeof({name}) IN ('real', 'integer')"
        case Integer() | BigInteger():
            rule = f"typeof({name}) = 'integer'"
        case _:
            rule = f"typeof({name}) <> 'blob'"
    return f"{name} IS NULL OR ({rule})" if column.nullable else f"{name} IS NOT NULL AND {rule}"
