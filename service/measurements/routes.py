"""Routes of learning-rate tests: loss against learning rate, measured by a worker."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.store.states import MeasurementStatus
from service.catalogue.inspector import InspectorDep
from service.http.dependencies import BodyDep, CallerDep, DrawPlace, RenderingsDep, StoreDep, WritesDep
from service.http.errors import problems
from service.http.pictures import MEDIA_TYPES, Picture, picture_headers, picture_responses
from service.http.routing import Id, StrictRoute
from service.http.schema import LEARNING_RATE_TEST_REQUEST_BODY
from service.measurements.documents import LearningRateTestDocument, LearningRateTestPage
from service.measurements.draw import render_lr_test
from service.measurements.learning_rate_tests import (
    finished_result,
    get_test,
    list_tests,
    split_range,
    start_test,
)

router = APIRouter(prefix="/learning-rate-tests", tags=["learning-rate tests"], route_class=StrictRoute)


@router.post(
    "",
    status_code=202,
    openapi_extra=LEARNING_RATE_TEST_REQUEST_BODY,
    responses={
        202: {
            "description": "Accepted; a worker measures it soon.",
            "headers": {"Location": {"schema": {"type": "string"}, "required": True}},
        },
        **problems(401, 403, 413, 415, 422, 429, 503, 507),
    },
)
async def create_learning_rate_test(
    body: BodyDep,
    caller: CallerDep,
    inspector: InspectorDep,
    store: StoreDep,
    writes: WritesDep,
    response: Response,
) -> LearningRateTestDocument:
    """Measure the loss at rates from lr_min to lr_max, on a spec's dataset and network."""
    spec, options = split_range(body.document)
    accepted = await writes.run(inspector.accept, spec)
    document = await writes.run(start_test, store, accepted, options, caller)
    response.headers["Location"] = document.links["self"]
    return document


@router.get("", responses=problems(401, 422))
def list_learning_rate_tests(
    store: StoreDep,
    status: Annotated[MeasurementStatus | None, Query(description="Only tests of this status.")] = None,
    cursor: Annotated[str | None, Query(max_length=2000, description="`next` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Tests on a page.")] = 50,
) -> LearningRateTestPage:
    """List learning-rate tests, the newest first, a page at a time."""
    return list_tests(store, status, cursor, limit)


@router.get("/{test_id}", responses=problems(401, 404, 422))
def get_learning_rate_test(test_id: Id, store: StoreDep) -> LearningRateTestDocument:
    """Read a learning-rate test: its curve, and a suggestion once it has completed."""
    return get_test(store, test_id)


@router.get(
    "/{test_id}/curve.{picture}",
    response_class=Response,
    responses={**picture_responses(), **problems(401, 404, 409, 422)},
)
def draw_learning_rate_test(
    test_id: Id,
    picture: Picture,
    store: StoreDep,
    renderings: RenderingsDep,
    request: Request,
    _: Annotated[None, DrawPlace],
) -> Response:
    """Draw loss against rate, with the suggestion and where it diverged."""
    result = finished_result(store, test_id)
    return renderings.respond(
        request,
        ("lr-test", test_id, result),
        MEDIA_TYPES[picture],
        lambda: render_lr_test(result, title=f"Learning-rate test #{test_id}", format=picture.value),
        picture_headers(picture),
    )
