"""Column types that hold what they promise on SQLite and PostgreSQL alike."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Enum
from sqlalchemy.types import TypeDecorator


def now() -> datetime:
    """The time, in UTC. Shown to people and never compared with another machine's."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: timezone-aware in Python, UTC in the database. SQLite keeps no zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a time without a zone: nobody could say later which moment it was."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no timezone; use models.store.columns.now()")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def to_json(value: Any) -> str:
    """JSON for a column; NaN and Infinity raise ValueError, since they are not JSON and break every reader."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


JsonColumn = JSON(none_as_null=True)
"""JSON data; None is SQL NULL. The engine's serialiser is `to_json`."""


def words(choices: type[StrEnum]) -> Enum:
    """A column of one of a StrEnum's values, stored as its word, so that a new member needs no migration."""
    return Enum(
        choices,
        native_enum=False,
        create_constraint=False,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )
