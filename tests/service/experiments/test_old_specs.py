"""Experiments of spec version 1 give the same result when reproduced or resumed."""

from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from models.spec.parse import load_spec
from models.store import experiments, runs
from models.store.tables import Experiment
from tests.service.lab_of_one import SMALL, Filled, epoch

API = "/api/v1/experiments"


@pytest.fixture
def old(filled: Filled) -> int:
    """A completed experiment as version 1 stored it."""
    return filled.trained([epoch(1)], spec_version=1)


def spec_of(client: TestClient, experiment_id: int) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{API}/{experiment_id}").json()["spec"]
    return found


def test_a_reproduction_keeps_the_version(client: TestClient, old: int) -> None:
    again = client.post(f"{API}/{old}/reproduce")
    assert again.status_code == 202
    assert spec_of(client, again.json()["id"]) == spec_of(client, old)
    assert spec_of(client, old)["spec_version"] == 1


def test_a_stored_spec_that_is_posted_again_keeps_the_version(client: TestClient, old: int) -> None:
    again = client.post(API, json=spec_of(client, old))
    assert spec_of(client, again.json()["id"])["spec_version"] == 1
    new = client.post(API, json=SMALL)
    assert spec_of(client, new.json()["id"])["spec_version"] == 2


def test_a_worker_that_resumes_a_record_without_a_version_takes_the_first(filled: Filled, old: int) -> None:
    with filled.store.writing() as session:
        stored = dict(experiments.get(session, old).spec)
        del stored["spec_version"]
        session.execute(update(Experiment).where(Experiment.id == old).values(spec=stored, status="cancelled"))
    with filled.store.writing() as session:
        experiments.request_resume(session, old)
    with filled.store.writing() as session:
        claim = runs.claim(session, old, "worker-2", 3)
        assert claim is not None
        assert claim.spec.is_version_1
        assert claim.spec.digest() == load_spec({**stored, "spec_version": 1}).digest()
