"""Learning-rate tests: created, listed and read; a worker measures them, outside the training queue."""

from typing import Any, cast

from models.errors import Conflict, EpochalError, FieldError, InvalidRequest, NotFound, TooManyRequests, Unavailable
from models.measurements import DEFAULT_RANGE, LearningRateRange, SweepResult
from models.plain import JsonObject
from models.spec.parse import load_spec, model_label
from models.store import Store, measurements
from models.store.states import MeasurementKind, MeasurementStatus
from service.catalogue.accepted import Accepted
from service.catalogue.inspector import refuse_start
from service.http.access import Caller
from service.http.errors import invalid_fields
from service.http.paging import read_cursor
from service.measurements.documents import (
    LearningRateTestDocument,
    LearningRateTestPage,
    learning_rate_test_document,
    learning_rate_test_item,
)

MAX_WAITING_TESTS = 20
MAX_TESTS_A_KEY = 5
"""Learning-rate tests that one key may have waiting or being measured: others find room among MAX_WAITING_TESTS."""
TYPICAL_SECONDS = 20
"""About what one takes."""
BOUNDS: dict[str, tuple[float, float]] = {"lr_min": (1e-12, 100), "lr_max": (1e-12, 100), "steps": (10, 2000)}


def start_test(
    store: Store, accepted: Accepted, options: LearningRateRange, caller: Caller
) -> LearningRateTestDocument:
    """Create a learning-rate test for a worker to measure.

    Raises TooManyRequests when the caller has as many as one key may have, Unavailable when many wait already, and
    SpecError for a spec that starts from another experiment's weights: a test has its network's own start.
    """
    refuse_start(accepted.spec, "of a learning-rate test, which starts anew")
    with store.writing() as session:
        if caller.name is not None:
            its_own = measurements.count_unfinished(session, MeasurementKind.LR_TEST, caller.name)
            if its_own >= MAX_TESTS_A_KEY:
                raise TooManyRequests(
                    f"'{caller.name}' has {its_own} learning-rate tests queued or running, of {MAX_TESTS_A_KEY}",
                    fix="wait for their results, then send it again",
                    retry_after_seconds=TYPICAL_SECONDS,
                )
        waiting = measurements.count_waiting(session, MeasurementKind.LR_TEST)
        if waiting >= MAX_WAITING_TESTS:
            raise Unavailable(
                f"{waiting} learning-rate tests are waiting already",
                fix="try again later",
                retry_after_seconds=TYPICAL_SECONDS,
            )
        return learning_rate_test_document(
            measurements.create(session, MeasurementKind.LR_TEST, accepted.spec, options, caller.name)
        )


def get_test(store: Store, test_id: int) -> LearningRateTestDocument:
    """Read a learning-rate test. Raises NotFound."""
    with store.reading() as session:
        measurement = measurements.get(session, test_id)
        if measurement.kind is not MeasurementKind.LR_TEST:
            raise NotFound(f"there is no learning-rate test {test_id}")
        return learning_rate_test_document(measurement)


def list_tests(store: Store, status: MeasurementStatus | None, cursor: str | None, limit: int) -> LearningRateTestPage:
    """Read a page of learning-rate tests, newest first. Raises InvalidRequest for an invalid cursor."""
    before = read_cursor(cursor)
    with store.reading() as session:
        rows, more, total = measurements.list_page(
            session, MeasurementKind.LR_TEST, status=status, before=before, limit=limit
        )
        items = [learning_rate_test_item(row, _label_of(row.spec)) for row in rows]
    return LearningRateTestPage(items=items, next=str(items[-1].id) if more else None, total=total)


def _label_of(spec: JsonObject) -> str:
    try:
        return model_label(load_spec(spec).model)
    except EpochalError:  # another version wrote it
        return str(spec["model"]["name"])


def finished_result(store: Store, test_id: int) -> SweepResult:
    """Return the result of a learning-rate test. Raises Conflict while there is none."""
    document = get_test(store, test_id)
    if document.result is None:
        reason = f": {document.reason}" if document.reason else ""
        raise Conflict(f"learning-rate test {test_id} is {document.status}{reason}; there is no curve to draw")
    return cast(SweepResult, document.result)


def split_range(document: Any) -> tuple[JsonObject, LearningRateRange]:
    """Split a learning-rate test's body into its spec and its range of rates. Raises InvalidRequest."""
    if not isinstance(document, dict):
        raise invalid_fields([{"field": "body", "message": "must be an object with keys"}])
    spec = {name: value for name, value in document.items() if name not in DEFAULT_RANGE}
    given = {name: document.get(name, default) for name, default in DEFAULT_RANGE.items()}
    wrong = [entry for name in given if (entry := _check_option(name, given[name]))]
    if wrong:
        raise invalid_fields(wrong)
    options = cast(LearningRateRange, given)
    if options["lr_min"] >= options["lr_max"]:
        raise InvalidRequest(
            f"lr_min is {options['lr_min']:g} and lr_max {options['lr_max']:g}; lr_min must be the lower",
            fix="swap them",
            errors=[{"field": "lr_min", "message": "must be below lr_max"}],
        )
    return spec, options


def _check_option(name: str, value: Any) -> FieldError | None:
    low, high = BOUNDS[name]
    whole = name == "steps"
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        return {"field": name, "message": f"must be a{' whole' if whole else ''} number", "value": str(value)[:60]}
    if not low <= value <= high:
        nearest = min(max(value, low), high)
        return {"field": name, "message": f"must be from {low:g} to {high:g}, not {value:g}", "nearest": nearest}
    return None
