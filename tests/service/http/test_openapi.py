"""Every route answers valid requests and many invalid ones as the OpenAPI document describes.

A short, repeatable run of schemathesis; the long one is `schemathesis run URL/openapi.json` against a running lab.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import numpy as np
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models.store import Status, measurements
from models.store.states import ArtifactKind, MeasurementKind
from service.app import create_app
from tests.service.lab_of_one import SMALL, Filled, LiveServer, epoch, settings_in

HTTP_PAGE = Path(__file__).parents[3] / "docs" / "http.md"
load_all_checks()
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("application/offset+octet-stream")
def part_of_an_upload(_: Any, value: Any) -> bytes:
    """The body of a tus upload: bytes as they are."""
    data = getattr(value, "data", value)
    return data if isinstance(data, bytes) else str(data).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live lab with experiments in several states, behind a server."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("fuzzed")))
    filled.trained([epoch(1), epoch(2)], name="first")
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    filled.judge(claim, {"summary": "s", "findings": [{"code": "c", "severity": "good", "sentence": "s"}]})
    filled.keep(claim, ArtifactKind.KERNELS, {"kernels": np.ones((1, 4, 3, 5, 5), np.float32)}, {})
    filled.settle(claim, Status.FAILED, "out of memory")
    with filled.store.writing() as session:
        from models.spec.parse import parse_spec

        measurement = measurements.create(session, MeasurementKind.LR_TEST, parse_spec(SMALL), {})
        measurements.finish(session, measurement.id, {"points": [{"lr": 0.1, "loss": 1.0}], "suggestion": None})
    with LiveServer(create_app(filled.settings)) as server:
        yield server.url
    filled.store.dispose()


@pytest.fixture(scope="module")
def described(address: str) -> Any:
    """The lab's own description of itself."""
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize(
    "tag",
    [
        "experiments",
        "curves",
        "kernels",
        "predictions",
        "models",
        "learning-rate tests",
        "catalogue",
        "health",
        "datasets",
        "uploads",
        "studies",
        "evaluation",
        "export",
        "explanations",
        "webhooks",
    ],
)
def test_every_answer_conforms(described: Any, tag: str) -> None:
    operations = [
        result.ok() for result in described.include(tag=tag).exclude(path_regex="/events$").get_all_operations()
    ]
    assert operations
    for operation in operations:
        send_what_fits_and_what_does_not(operation)


def send_what_fits_and_what_does_not(operation: Any) -> None:
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=3,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def answers_conform(case: Any) -> None:
            answer = case.call(timeout=60)
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            case.validate_response(answer, checks=CHECKS)

        try:
            answers_conform()
        except hypothesis.errors.Unsatisfiable:  # an operation without parameters has nothing to get wrong
            assert mode is GenerationMode.NEGATIVE


def test_the_document_is_valid_and_describes_every_route(address: str) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in schemas, reference
    assert "ExperimentSpec" in schemas
    assert [name for name in schemas if "__" in name] == [], "two documents of one name have their modules in it"
    names = [operation["operationId"] for found in document["paths"].values() for operation in found.values()]
    assert len(names) == len(set(names))
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation.get("description"), path
            assert operation["responses"]["default"]["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }, path


def test_docs_have_a_line_for_every_route(address: str) -> None:
    rows = [line for line in HTTP_PAGE.read_text().splitlines() if line.startswith("| `")]
    missing = []
    for path in httpx.get(f"{address}/openapi.json").json()["paths"]:
        words = [part.partition(".{")[0] for part in path.removeprefix("/api/v1").split("/")]
        names = [word for word in words if word and not word.startswith("{")]
        if not any(all(name in row for name in names) for row in rows):
            missing.append(path)
    assert missing == []
