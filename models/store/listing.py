"""Lists experiments: filtered, sorted by any measured series, paginated by a cursor.

A page begins after a (value, id) pair, never at an offset, so rows that are added meanwhile make it neither skip nor
repeat. Experiments without a value for the series that is sorted by come last, the newest first, in either direction.
"""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, literal, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.curves.metrics import SERIES
from models.errors import InvalidRequest
from models.findings import FindingJson
from models.progress import RunProgress, TestResult
from models.store.states import Status
from models.store.tables import Experiment, ExperimentTag, SummaryRow

MAX_LIMIT = 500
FEW = 1000
MAX_WORDS = 10
"""The most words of a search."""
COLUMNS: dict[str, InstrumentedAttribute[Any]] = {
    "created": Experiment.created_at,
    "id": Experiment.id,
    "name": Experiment.name,
}
SORTS = (*COLUMNS, *(f"{series}.{which}" for series in SERIES for which in ("best", "last")))


@dataclass(frozen=True, slots=True)
class Listed:
    """An experiment in a list: the columns of the same names, without the large ones."""

    id: int
    name: str
    model: str
    dataset: str
    status: Status
    reason: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: RunProgress | None
    test: TestResult | None
    warnings: list[FindingJson]
    reproduces: int | None
    continues: int | None
    tags: list[str]


LISTED = [getattr(Experiment, field.name) for field in fields(Listed) if field.name != "tags"]
EXPERIMENTS = Experiment.__table__.c
REVISIONS = select(EXPERIMENTS.id, EXPERIMENTS.revision).where(EXPERIMENTS.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True)
class Page:
    """A page of experiments, by their ids."""

    ids: list[int]
    next_cursor: str | None
    """The cursor of the next page; None at the end."""
    total: int
    """How many experiments match the filters, on all pages."""


@dataclass(frozen=True)
class _Cursor:
    """The last row of a page: its value (None among those without one) and id."""

    value: Any
    id: int


def list_page(
    session: Session,
    *,
    status: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    tag: str | None = None,
    search: str | None = None,
    sort: str = "created",
    descending: bool = True,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """One page. Raises InvalidRequest for an unknown sort or status, a limit out of bounds, or a damaged cursor."""
    if sort not in SORTS:
        raise InvalidRequest(f"there is no sort {sort!r}", fix=f"sort by one of {', '.join(SORTS)}")
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"limit must be from 1 to {MAX_LIMIT}, not {limit}")
    filters = [*_filters(status, model, dataset), *_search(search)]
    total = _count(session, filters, tag)
    start = None if cursor is None else _decode(cursor, sort, descending)
    ask = _Ask(filters, tag, total <= FEW, sort, descending, start)
    find = _by_column if sort in COLUMNS else _by_series
    found = find(session, ask, limit + 1) if total else []
    more = len(found) > limit
    return Page(
        [identifier for identifier, _ in found[:limit]],
        _encode(sort, descending, found[limit - 1]) if more else None,
        total,
    )


@dataclass(frozen=True)
class _Ask:
    """The parameters of a list: filters, sort, order, cursor, limit."""

    filters: list[ColumnElement[bool]]
    tag: str | None
    few: bool
    """Whether the filters leave so little that sorting it beats walking along a sorted index."""
    sort: str
    descending: bool
    start: _Cursor | None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filters. A tag that many have is checked row by row, one that few have is looked up."""
        if self.tag is None:
            return self.filters
        if self.few:
            return [*self.filters, Experiment.id.in_(_tagged(self.tag))]
        return [*self.filters, _tagged(self.tag).where(ExperimentTag.experiment_id == Experiment.id).exists()]


def _filters(status: str | None, model: str | None, dataset: str | None) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if status is not None:
        if status not in list(Status):
            raise InvalidRequest(f"there is no status {status!r}", fix=f"use one of {', '.join(Status)}")
        filters.append(Experiment.status == Status(status))
    if model is not None:
        filters.append(Experiment.model == model)
    if dataset is not None:
        filters.append(Experiment.dataset == dataset)
    return filters


def filtered(
    query: Select[*tuple[Any, ...]],
    *,
    model: str | None = None,
    dataset: str | None = None,
    tag: str | None = None,
    search: str | None = None,
) -> Select[*tuple[Any, ...]]:
    """A query over experiments, of those that a list with these filters shows in any status."""
    query = query.where(*_filters(None, model, dataset), *_search(search))
    return query if tag is None else query.where(Experiment.id.in_(_tagged(tag)))


def _search(text: str | None) -> list[ColumnElement[bool]]:
    """Conditions that every word is part of the name, the notes or a tag, in upper or lower case.

    Raises InvalidRequest for too many words.
    """
    words = (text or "").lower().split()
    if len(words) > MAX_WORDS:
        raise InvalidRequest(f"a search has at most {MAX_WORDS} words, not {len(words)}", fix="leave some words out")
    return [
        or_(
            func.lower(Experiment.name).contains(word, autoescape=True),
            func.lower(Experiment.notes).contains(word, autoescape=True),
            select(ExperimentTag.tag)
            .where(
                ExperimentTag.experiment_id == Experiment.id,
                func.lower(ExperimentTag.tag).contains(word, autoescape=True),
            )
            .exists(),
        )
        for word in words
    ]


def _tagged(tag: str) -> Select[int]:
    return select(ExperimentTag.experiment_id).where(ExperimentTag.tag == tag)


def _count(session: Session, filters: list[ColumnElement[bool]], tag: str | None) -> int:
    if tag is not None and not filters:
        query = select(func.count()).select_from(ExperimentTag).where(ExperimentTag.tag == tag)
    else:
        query = select(func.count()).select_from(Experiment).where(*filters)
        query = query if tag is None else query.where(Experiment.id.in_(_tagged(tag)))
    return session.scalar(query) or 0


Found = list[tuple[int, Any]]
"""Ids and the values they are sorted by."""
AnySelect = Select[*tuple[Any, ...]]


def _by_column(session: Session, ask: _Ask, count: int) -> Found:
    column = COLUMNS[ask.sort]
    query = select(Experiment.id, column).where(*ask.conditions())
    return _run(session, _ordered(query, column, Experiment.id, ask.descending, ask.start).limit(count))


def _by_series(session: Session, ask: _Ask, count: int) -> Found:
    """First the experiments that have a value, then those that have none."""
    series, which = ask.sort.split(".")
    value = SummaryRow.best if which == "best" else SummaryRow.last
    here = and_(SummaryRow.series == series, value.is_not(None))
    found: Found = []
    start = ask.start
    if start is None or start.value is not None:
        if ask.few:  # looked up experiment by experiment
            one = SummaryRow.series == series, SummaryRow.experiment_id == Experiment.id
            key: Any = select(value).where(*one).scalar_subquery()
            query = select(Experiment.id, key).where(key.is_not(None), *ask.conditions())
        else:
            key = value
            query = select(Experiment.id, key).join(SummaryRow, SummaryRow.experiment_id == Experiment.id)
            query = query.where(here, *ask.conditions())
        query = _ordered(query, key, Experiment.id if ask.few else SummaryRow.experiment_id, ask.descending, start)
        found += _run(session, query.limit(count))
        start = None
    if len(found) < count:
        measured = select(SummaryRow.experiment_id).where(here, SummaryRow.experiment_id == Experiment.id).exists()
        rest = select(Experiment.id, literal(None)).where(~measured, *ask.conditions())
        rest = _ordered(rest, Experiment.id, Experiment.id, True, start and _Cursor(start.id, start.id))
        found += _run(session, rest.limit(count - len(found)))
    return found


def _ordered(query: AnySelect, key: Any, identifier: Any, descending: bool, start: _Cursor | None) -> AnySelect:
    if start is not None:
        value = literal(start.value, key.type)
        beyond = key < value if descending else key > value
        later = identifier < start.id if descending else identifier > start.id
        # The first term alone bounds the walk along the index; SQLite does not see that in the second.
        query = query.where(key <= value if descending else key >= value, or_(beyond, later))
    if descending:
        return query.order_by(key.desc(), identifier.desc())
    return query.order_by(key.asc(), identifier.asc())


def _run(session: Session, query: AnySelect) -> Found:
    return [(identifier, value) for identifier, value in session.execute(query)]


def load_listed(session: Session, ids: Sequence[int]) -> list[Listed]:
    """The experiments of a page, in the order of their ids' list. Sorting was done on ids alone: the rows are wide."""
    tags: dict[int, list[str]] = {identifier: [] for identifier in ids}
    tagged = select(ExperimentTag.experiment_id, ExperimentTag.tag).where(ExperimentTag.experiment_id.in_(ids))
    for identifier, tag in session.execute(tagged.order_by(ExperimentTag.experiment_id, ExperimentTag.position)):
        tags[identifier].append(tag)
    rows = session.execute(select(*LISTED).where(Experiment.id.in_(ids))).mappings()
    found = {row["id"]: Listed(**row, tags=tags[row["id"]]) for row in rows}
    return [found[identifier] for identifier in ids]


def revisions(session: Session, ids: Sequence[int]) -> dict[int, int]:
    """How often each of these experiments has changed."""
    return dict(session.execute(REVISIONS, {"ids": ids}).all())


def _encode(sort: str, descending: bool, last: tuple[int, Any]) -> str:
    identifier, value = last
    plain = value.isoformat() if isinstance(value, datetime) else value
    text = json.dumps([sort, descending, plain, identifier], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, sort: str, descending: bool) -> _Cursor:
    """Parse and validate a cursor, which comes from a request."""
    try:
        text = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        its_sort, its_direction, value, identifier = json.loads(text)
        if (its_sort, its_direction) != (sort, descending):
            raise InvalidRequest(
                "this cursor belongs to a list with another sort or order", fix="keep sort and order while paging"
            )
        if type(identifier) is not int or not 0 < identifier < 2**63:
            raise ValueError(identifier)
        return _Cursor(_checked_value(sort, value), identifier)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRequest("the cursor is damaged", fix="use `next` unchanged, or get the first page") from error


def _checked_value(sort: str, value: Any) -> Any:
    if sort == "created":
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if sort == "id" and type(value) is int and 0 < value < 2**63:
        return value
    if sort == "name" and isinstance(value, str):
        value.encode()  # a lone surrogate is no name that was ever stored, nor is one with a NUL
        if "\0" in value:
            raise ValueError(value)
        return value
    if sort not in COLUMNS and (value is None or (type(value) in (int, float) and math.isfinite(value))):
        return None if value is None else float(value)
    raise ValueError(value)
