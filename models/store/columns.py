"""Column types with the same behaviour on SQLite and PostgreSQL."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Enum
from sqlalchemy.types import TypeDecorator


def now() -> datetime:
    """Return the time in UTC. For display only, never compared with another machine's clock."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A timestamp: timezone-aware in Python, UTC in the database. SQLite stores no zone: it is added on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC. Raises ValueError for a time without a zone, which is ambiguous."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no timezone; use models.store.columns.now()")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def to_json(value: Any) -> str:
    """Serialise JSON for a column; NaN and Infinity, which JSON lacks, raise ValueError."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


JsonColumn = JSON(none_as_null=True)
"""JSON data; None is SQL NULL. The engine's serialiser is `to_json`."""


def words(choices: type[StrEnum]) -> Enum:
    """Column type of a StrEnum, stored as text, so that a new member needs no migration."""
    return Enum(
        choices,
        native_enum=False,
        create_constraint=False,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )
