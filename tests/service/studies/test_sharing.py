"""Runs that several studies have: who cancels them, resumes them and deletes them."""

from typing import Any

from starlette.testclient import TestClient

from models.settings import Settings
from models.store import keys
from models.store.states import Role
from tests.service.lab_of_one import Filled, client_of
from tests.service.studies.test_routes import BASE, WIDTHS, advance, post, train


def numbers_of(study: dict[str, Any]) -> list[int]:
    return [number for row in study["rows"] for number in row["experiment_ids"]]


def status_of(client: TestClient, number: int) -> str:
    return str(client.get(f"/api/v1/experiments/{number}").json()["status"])


def cancel(client: TestClient, study: dict[str, Any]) -> None:
    assert client.post(f"/api/v1/studies/{study['id']}/cancel").status_code == 200


def test_a_shared_run_ends_when_the_last_study_that_waits_for_it_is_cancelled(client: TestClient) -> None:
    first, second = post(client), post(client, {**WIDTHS, "title": "Again"})
    numbers = numbers_of(first)
    cancel(client, first)
    assert {status_of(client, number) for number in numbers} == {"queued"}
    cancel(client, second)
    assert {status_of(client, number) for number in numbers} == {"cancelled"}


def test_a_run_stays_a_study_s_when_the_one_that_made_it_is_deleted(client: TestClient) -> None:
    first, second = post(client), post(client, {**WIDTHS, "title": "Again"})
    cancel(client, first)
    assert client.delete(f"/api/v1/studies/{first['id']}?experiments=true").status_code == 204
    numbers = numbers_of(second)
    assert {status_of(client, number) for number in numbers} == {"queued"}
    cancel(client, second)
    assert {status_of(client, number) for number in numbers} == {"cancelled"}
    assert client.delete(f"/api/v1/studies/{second['id']}?experiments=true").status_code == 204
    assert client.get("/api/v1/experiments").json()["total"] == 0


def test_an_experiment_that_was_submitted_by_itself_goes_on(client: TestClient) -> None:
    alone = client.post("/api/v1/experiments", json=BASE).json()["id"]
    study = post(client)
    assert study["rows"][0]["experiment_ids"] == [alone]
    cancel(client, study)
    assert status_of(client, alone) == "queued"


def test_a_shared_run_that_was_cancelled_is_made_again_when_the_study_resumes(
    client: TestClient, filled: Filled
) -> None:
    alone = client.post("/api/v1/experiments", json=BASE).json()["id"]
    study = post(client)
    client.post(f"/api/v1/experiments/{alone}/cancel")
    for number in numbers_of(study)[1:]:
        train(filled, number)
    advance(filled, study["id"])
    assert client.get(f"/api/v1/studies/{study['id']}").json()["status"] == "completed"
    resumed = client.post(f"/api/v1/studies/{study['id']}/resume")
    assert resumed.status_code == 200, resumed.text
    (again,) = resumed.json()["rows"][0]["experiment_ids"]
    assert again != alone
    assert (status_of(client, alone), status_of(client, again)) == ("cancelled", "queued")


def test_resuming_a_study_keeps_to_the_quota_of_its_key(settings: Settings, filled: Filled) -> None:
    with filled.store.writing() as session:
        secret = keys.create(session, "ada", Role.SUBMITTER)[1]
    with client_of(settings.model_copy(update={"auth": True, "max_queued": 3})) as client:
        client.headers["X-API-Key"] = secret
        study = post(client)
        cancel(client, study)
        assert client.post("/api/v1/experiments", json={**BASE, "epochs": 9}).status_code == 202
        refused = client.post(f"/api/v1/studies/{study['id']}/resume")
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        assert client.get(f"/api/v1/studies/{study['id']}").json()["status"] == "cancelled"
