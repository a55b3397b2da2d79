"""JSON documents of learning-rate tests."""

from datetime import datetime

from pydantic import Field

from models.plain import JsonObject
from models.store.states import MeasurementStatus
from models.store.tables import Measurement
from service.http.documents import API, Document
from service.http.prefix import with_prefix


class LearningRateTestDocument(Document):
    """A learning-rate test, measured by a worker."""

    id: int
    status: MeasurementStatus
    spec: JsonObject
    options: JsonObject
    result: JsonObject | None
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class LearningRateTestItem(Document):
    """A learning-rate test as lists show it."""

    id: int
    status: MeasurementStatus
    model: str
    dataset: str
    options: JsonObject = Field(description="The range: lr_min, lr_max, steps.")
    suggestion: JsonObject | None = Field(description="The rate and why, once it is completed.")
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    links: dict[str, str]


class LearningRateTestPage(Document):
    """One page of a list."""

    items: list[LearningRateTestItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int = Field(description="Number of tests that match the filter.")


def learning_rate_test_document(row: Measurement) -> LearningRateTestDocument:
    """A learning-rate test or pre-flight as JSON."""
    return LearningRateTestDocument(
        id=row.id,
        status=row.status,
        spec=row.spec,
        options=row.options or {},
        result=row.result,
        reason=row.reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        links=_links_of(row.id),
    )


def learning_rate_test_item(row: Measurement, model: str) -> LearningRateTestItem:
    """A learning-rate test as lists show it."""
    return LearningRateTestItem(
        id=row.id,
        status=row.status,
        model=model,
        dataset=row.spec["dataset"]["name"],
        options=row.options or {},
        suggestion=(row.result or {}).get("suggestion"),
        reason=row.reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        links=_links_of(row.id),
    )


def _links_of(test_id: int) -> dict[str, str]:
    root = with_prefix(f"{API}/learning-rate-tests/{test_id}")
    return {"self": root, "curve": f"{root}/curve.png"}
