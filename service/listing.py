"""Lists of experiments as the API and the pages show them."""

from sqlalchemy.orm import Session

from models.metrics import MAXIMISED, SERIES
from models.store import Status, experiments
from service.documents import ExperimentPage, experiment_item

SORT_DESCRIPTION = (
    "created, id, name, or a metric's best or last value: val_accuracy.best, val_loss.last ... "
    f"(series: {', '.join(SERIES)}). A minus sign in front turns the order around."
)
ALIASES = {"created_at": "created", **{series: f"{series}.best" for series in SERIES}}
DESCENDING = {"created", "id", *(f"{series}.{which}" for series in MAXIMISED for which in ("best", "last"))}


def page(
    session: Session,
    *,
    status: Status | None = None,
    model: str | None = None,
    dataset: str | None = None,
    tag: str | None = None,
    sort: str = "created",
    order: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> ExperimentPage:
    """One page, the best first unless `order` or a minus sign says otherwise."""
    name, descending = read_sort(sort, order)
    found = experiments.list_page(
        session,
        status=status,
        model=model,
        dataset=dataset,
        tag=tag,
        sort=name,
        descending=descending,
        cursor=cursor,
        limit=limit,
    )
    summaries = experiments.summaries(session, [row.id for row in found.items])
    return ExperimentPage(
        items=[experiment_item(row, summaries[row.id]) for row in found.items],
        next=found.next_cursor,
        total=found.total,
    )


def read_sort(sort: str, order: str | None = None) -> tuple[str, bool]:
    """The store's name of a sort, and whether it descends."""
    plain = sort.removeprefix("-")
    name = ALIASES.get(plain, plain)
    descending = order == "desc" if order else name in DESCENDING
    return name, descending != sort.startswith("-")
