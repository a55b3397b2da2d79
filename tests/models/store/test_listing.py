import base64
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from models.errors import InvalidRequest
from models.store import Store, experiments, history, listing, runs
from models.store.listing import SORTS, list_page, load_listed
from models.store.states import Status
from tests.models.store.helpers import add_experiment, make_metrics, make_spec, start


def create(session: Session, val_loss: float | None, **body: Any) -> int:
    """An experiment in an open session, with one epoch if there is a loss for it."""
    experiment_id = experiments.create(session, make_spec(**body), layers=[], warnings=[]).id
    if val_loss is not None:
        claimed = runs.claim(session, experiment_id, "w", 3)
        assert claimed is not None
        history.append_epoch(session, claimed, make_metrics(1, val_loss=val_loss))
    return experiment_id


def walk(session: Session, limit: int, **asked: Any) -> list[int]:
    """Every page's ids in order."""
    found, cursor = [], None
    while True:
        page = list_page(session, limit=limit, cursor=cursor, **asked)
        found += page.ids
        assert len(page.ids) == limit or page.next_cursor is None
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


losses = st.none() | st.sampled_from([0.5, 1.0, 1.5, math.nan]) | st.floats(-1e12, 1e12)
names = st.sampled_from(["", "a", "b", "é", "zz", "🙂"])
rows = st.lists(st.tuples(losses, names), max_size=12)
few_or_many = pytest.mark.parametrize("few", [1000, 0], ids=["sorting few", "walking many"])


def expected_order(session: Session, made: list[int], sort: str, descending: bool) -> list[int]:
    if sort in ("created", "id"):
        return sorted(made, reverse=descending)
    if sort == "name":
        return sorted(made, key=lambda i: (experiments.get(session, i).name.encode(), i), reverse=descending)
    series, which = sort.split(".")
    found = experiments.summaries(session, made)
    value: dict[int, float | None] = {
        i: found[i]["best"].get(series, {}).get("value") if which == "best" else found[i]["last"].get(series)
        for i in made
    }
    measured = [(number, i) for i, number in value.items() if number is not None]
    ordered = [i for _, i in sorted(measured, reverse=descending)]
    return ordered + sorted((i for i in made if value[i] is None), reverse=True)


@few_or_many
@given(rows=rows, limit=st.integers(1, 5), sort=st.sampled_from(SORTS), descending=st.booleans())
@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_put_together_are_the_sorted_list(
    store: Store,
    few: int,
    rows: list[tuple[float | None, str]],
    limit: int,
    sort: str,
    descending: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch, store.writing() as session:
        patch.setattr(listing, "FEW", few)
        made = [create(session, loss, name=name) for loss, name in rows]
        assert walk(session, limit, sort=sort, descending=descending) == expected_order(session, made, sort, descending)
        session.rollback()


@few_or_many
@given(rows=rows, added=rows, limit=st.integers(1, 4), sort=st.sampled_from(SORTS), descending=st.booleans())
@hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_that_are_added_while_paging_make_no_page_skip_or_repeat(
    store: Store,
    few: int,
    rows: list[tuple[float | None, str]],
    added: list[tuple[float | None, str]],
    limit: int,
    sort: str,
    descending: bool,
) -> None:
    with pytest.MonkeyPatch.context() as patch, store.writing() as session:
        patch.setattr(listing, "FEW", few)
        before = [create(session, loss, name=name) for loss, name in rows]
        coming, seen = list(added), []
        page = list_page(session, sort=sort, descending=descending, limit=limit)
        seen += page.ids
        while page.next_cursor is not None:
            if coming:
                loss, name = coming.pop()
                create(session, loss, name=name)
            page = list_page(session, sort=sort, descending=descending, limit=limit, cursor=page.next_cursor)
            seen += page.ids
        assert len(seen) == len(set(seen)), "repeated"
        assert set(before) <= set(seen), "skipped"
        session.rollback()


@few_or_many
def test_filters_narrow_the_list_and_the_total(store: Store, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FEW", few)
    with store.writing() as session:
        create(session, 1.0, tags=["red", "new"])
        create(session, 2.0, model="wide", tags=["red"])
        create(session, None, dataset="fashion_mnist", tags=["new"])
        create(session, None)
    with store.reading() as session:

        def ids(**asked: Any) -> list[int]:
            page = list_page(session, sort="id", descending=False, **asked)
            assert page.total == len(page.ids)
            by_loss = list_page(session, sort="val_loss.best", descending=False, **asked)
            assert sorted(by_loss.ids) == page.ids
            return page.ids

        assert ids() == [1, 2, 3, 4]
        assert ids(status="queued") == [3, 4]
        assert ids(status=Status.RUNNING) == [1, 2]
        assert ids(status="failed") == []
        assert ids(model="wide") == [2]
        assert ids(dataset="fashion_mnist") == [3]
        assert ids(tag="red") == [1, 2]
        assert ids(tag="red", model="baseline") == [1]
        assert ids(tag="new", status="queued", dataset="fashion_mnist", model="baseline") == [3]
        assert ids(tag="' OR 1=1 --") == []


def test_the_total_counts_every_page(store: Store) -> None:
    for _ in range(5):
        add_experiment(store)
    with store.reading() as session:
        page = list_page(session, limit=2)
        assert page.total == 5
        assert page.ids == [5, 4]
        assert page.next_cursor is not None
        assert list_page(session, limit=2, cursor=page.next_cursor).total == 5


def test_a_page_takes_few_queries_however_long_it_is(store: Store) -> None:
    for _ in range(20):
        start(store, tags=["a", "b"])
    statements = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        with store.reading() as session:
            page = list_page(session, sort="val_loss.best")
            experiments.summaries(session, page.ids)
            assert all(experiment.tags == ["a", "b"] for experiment in load_listed(session, page.ids))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) <= 6, selects
    assert sum("FROM summaries" in statement and "IN (" in statement for statement in selects) == 1
    assert not any("experiments.spec" in statement or "experiments.verdict" in statement for statement in selects)


@pytest.mark.parametrize("limit", [0, -1, 501, 10**9])
def test_a_limit_out_of_bounds_is_refused(store: Store, limit: int) -> None:
    with pytest.raises(InvalidRequest, match="limit"), store.reading() as session:
        list_page(session, limit=limit)


@pytest.mark.parametrize(
    "sort", ["", "val_loss", "best", "spec", "val_loss.worst", "epoch.best", "id; DROP TABLE runs"]
)
def test_an_unknown_sort_is_refused_with_the_choices(store: Store, sort: str) -> None:
    with pytest.raises(InvalidRequest) as caught, store.reading() as session:
        list_page(session, sort=sort)
    assert caught.value.fix is not None
    assert "val_accuracy.best" in caught.value.fix


def test_an_unknown_status_is_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="done"), store.reading() as session:
        list_page(session, status="done")


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


DAMAGED = [
    "",
    "x",
    "é",
    "????",
    "A" * 10_000,
    encoded({}),
    encoded([]),
    encoded(["created", True, "yesterday", 1]),
    encoded(["created", True, 5, 1]),
    encoded(["created", True, None, 1]),
    encoded(["created", True, "2026-01-01T00:00:00+00:00", 0]),
    encoded(["created", True, "2026-01-01T00:00:00+00:00", True]),
    encoded(["created", True, "2026-01-01T00:00:00+00:00", 2**63]),
    encoded(["created", True, "2026-01-01T00:00:00+00:00", "1"]),
    encoded(["id", True, 5, 5]),
]


@pytest.mark.parametrize("cursor", DAMAGED)
def test_a_damaged_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"), store.reading() as session:
        list_page(session, cursor=cursor)


@pytest.mark.parametrize("value", ["1", [1], {}, True, 1e999, "NaN", 10**400, -(10**400)])
def test_a_cursor_with_a_value_of_the_wrong_kind_is_refused(store: Store, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="cursor"), store.reading() as session:
        list_page(session, sort="val_loss.best", cursor=encoded(["val_loss.best", True, value, 1]))


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("created", "0001-01-01T00:00:00+23:59"),
        ("created", "9999-12-31T23:59:59-23:59"),
        ("created", "12345-01-01"),
        ("created", 5),
        ("name", "\0"),
        ("name", "\ud800"),
        ("id", 10**400),
        ("id", -1),
    ],
)
def test_a_cursor_that_no_row_can_have_made_is_refused(store: Store, sort: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="cursor"), store.reading() as session:
        list_page(session, sort=sort, cursor=encoded([sort, True, value, 1]))


@given(st.text() | st.binary().map(lambda data: base64.urlsafe_b64encode(data).decode()))
@hypothesis_settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cursor_whatever_is_a_server_error(store: Store, cursor: str) -> None:
    with store.reading() as session, suppress(InvalidRequest):
        list_page(session, cursor=cursor)
