"""Sorted, filtered and paged lists of experiments, for the API and the pages."""

import json
import threading
from typing import Any

from cachetools import LRUCache
from sqlalchemy.orm import Session

from models.curves.metrics import MAXIMISED, SERIES
from models.store import experiments
from models.store.listing import Page, list_page, load_listed, revisions
from service.experiments.documents import ExperimentItem, ExperimentPage, experiment_item
from service.http.prefix import prefix

MAX_ITEMS = 4096
"""The most cached items, of some 1.5 kB each."""
SORT_DESCRIPTION = (
    "created, id, name, or a metric's best or last value: val_accuracy.best, val_loss.last ... "
    f"(series: {', '.join(SERIES)}). A minus sign in front reverses the order."
)
ALIASES = {"created_at": "created", **{series: f"{series}.best" for series in SERIES}}
DESCENDING = {"created", "id", *(f"{series}.{which}" for series in MAXIMISED for which in ("best", "last"))}


def page(session: Session, *, sort: str = "created", order: str | None = None, **asked: Any) -> ExperimentPage:
    """Read one page, best first unless `order` or a minus sign reverses it; `asked` as for list_page()."""
    found = _find(session, sort, order, **asked)
    return ExperimentPage(items=_load(session, found.ids), next=found.next_cursor, total=found.total)


class ListedItems:
    """Serialises pages as JSON from items that are cached until their experiments change."""

    def __init__(self) -> None:
        self._cached: LRUCache[tuple[str, int], tuple[int, bytes]] = LRUCache(MAX_ITEMS)
        self._lock = threading.Lock()
        """By path prefix and experiment: its revision, and its item in JSON."""

    def page(
        self, session: Session, *, sort: str = "created", order: str | None = None, **asked: Any
    ) -> tuple[bytes, list[int]]:
        """Return a page as JSON, and the ids on it."""
        found = _find(session, sort, order, **asked)
        newest = revisions(session, found.ids)
        items = {one: self._known(one, newest[one]) for one in found.ids}
        for fresh in _load(session, [one for one, item in items.items() if not item]):
            items[fresh.id] = fresh.model_dump_json().encode()
            with self._lock:
                self._cached[prefix(), fresh.id] = newest[fresh.id], items[fresh.id]
        joined = b",".join(items[one] for one in found.ids)
        text = b'{"items":[%b],"next":%b,"total":%d}' % (joined, json.dumps(found.next_cursor).encode(), found.total)
        return text, found.ids

    def _known(self, experiment_id: int, revision: int) -> bytes:
        with self._lock:
            its_revision, item = self._cached.get((prefix(), experiment_id), (0, b""))
        return item if its_revision == revision else b""


def _find(session: Session, sort: str, order: str | None, **asked: Any) -> Page:
    name, descending = read_sort(sort, order)
    return list_page(session, sort=name, descending=descending, **asked)


def _load(session: Session, ids: list[int]) -> list[ExperimentItem]:
    if not ids:
        return []
    summaries = experiments.summaries(session, ids)
    return [experiment_item(row, summaries[row.id]) for row in load_listed(session, ids)]


def read_sort(sort: str, order: str | None = None) -> tuple[str, bool]:
    """Parse `sort` and `order` into the store's sort and whether it descends."""
    plain = sort.removeprefix("-")
    name = ALIASES.get(plain, plain)
    descending = order == "desc" if order else name in DESCENDING
    return name, descending != sort.startswith("-")
