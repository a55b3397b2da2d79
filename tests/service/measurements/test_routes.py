"""Learning-rate tests and pre-flights over HTTP, measured by a worker outside the training queue."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import keys, measurements, workers
from models.store.states import MeasurementKind, Role
from service.measurements import learning_rate_tests, preflights
from tests.service.lab_of_one import SMALL, Filled, client_of

API = "/api/v1/learning-rate-tests"
RESULT = {
    "points": [{"lr": 10.0**-n, "loss": 2.3 - 0.1 * (6 - n)} for n in range(6, 0, -1)],
    "suggestion": {"lr": 0.01, "why": "the loss falls fastest there"},
    "diverged_at": None,
}


@pytest.fixture
def worker(filled: Filled) -> Iterator[list[int]]:
    """A worker that answers every measurement at once."""
    with filled.store.writing() as session:
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")
    stop, answered = threading.Event(), list[int]()

    def work() -> None:
        while not stop.wait(0.02):
            with filled.store.writing() as session:
                measurement = measurements.claim_next(session, "worker-1")
                if measurement is None:
                    continue
                answered.append(measurement.id)
                if measurement.kind is MeasurementKind.LR_TEST:
                    measurements.finish(session, measurement.id, RESULT)
                elif measurement.spec["seed"] == 13:
                    measurements.fail(session, measurement.id, "the dataset cannot be fetched")
                else:
                    measurements.finish(session, measurement.id, {"seconds_per_epoch": 1.5, "finite": True})

    thread = threading.Thread(target=work)
    thread.start()
    yield answered
    stop.set()
    thread.join()


def test_a_test_is_asked_for_measured_and_drawn(client: TestClient, filled: Filled) -> None:
    answer = client.post(API, json={**SMALL, "lr_min": 1e-5, "lr_max": 1, "steps": 50})
    assert answer.status_code == 202
    document = answer.json()
    assert answer.headers["location"] == document["links"]["self"] == f"{API}/{document['id']}"
    assert document["status"] == "queued"
    assert document["options"] == {"lr_min": 1e-5, "lr_max": 1, "steps": 50}
    assert client.get(document["links"]["curve"]).status_code == 409
    with filled.store.writing() as session:
        assert measurements.claim_next(session, "worker-1")
        measurements.finish(session, document["id"], RESULT)
    found = client.get(document["links"]["self"]).json()
    assert found["status"] == "completed"
    assert found["result"]["suggestion"]["lr"] == 0.01
    assert client.get(document["links"]["curve"]).content.startswith(b"\x89PNG")
    assert client.get(f"{API}/{document['id']}/curve.svg").status_code == 200
    assert client.get(f"{API}/999").status_code == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"lr_min": 0}, "lr_min"),
        ({"lr_min": 1, "lr_max": 0.1}, "lr_min"),
        ({"lr_max": "1"}, "lr_max"),
        ({"steps": True}, "steps"),
        ({"steps": 1e9}, "steps"),
        ({"steps": 10**15}, "steps"),
        ({"epochs": 0}, "epochs"),
        ({"lr_mim": 1}, "lr_mim"),
    ],
)
def test_wrong_ranges_are_named(client: TestClient, changes: dict[str, object], field: str) -> None:
    answer = client.post(API, json={**SMALL, **changes})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_dry_run_measures_and_queues_nothing(client: TestClient, filled: Filled, worker: list[int]) -> None:
    answer = client.post("/api/v1/experiments?dry_run=true", json=SMALL)
    assert answer.status_code == 200
    document = answer.json()
    assert document["seconds_per_epoch"] == 1.5
    assert document["num_parameters"] > 10_000
    assert isinstance(document["warnings"], list)
    assert len(worker) == 1
    assert client.get("/api/v1/experiments").json()["items"] == []
    assert client.get(f"{API}/{worker[0]}").status_code == 404  # a pre-flight is no learning-rate test
    failed = client.post("/api/v1/experiments?dry_run=true", json={**SMALL, "seed": 13})
    assert failed.status_code == 503
    assert "cannot be fetched" in failed.json()["detail"]


def test_a_dry_run_needs_a_worker(client: TestClient, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.post("/api/v1/experiments?dry_run=true", json=SMALL).status_code == 503
    with filled.store.writing() as session:
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")
    monkeypatch.setattr(preflights, "PREFLIGHT_SECONDS", 0.2)
    late = client.post("/api/v1/experiments?dry_run=true", json=SMALL)
    assert (late.status_code, late.headers["retry-after"]) == (503, "10")


def test_no_more_tests_are_taken_than_workers_will_get_to(
    client: TestClient, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_rate_tests, "MAX_WAITING_TESTS", 2)
    answers = [client.post(API, json=SMALL) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert int(answers[-1].headers["retry-after"]) > 0
    with filled.store.writing() as session:
        assert measurements.claim_next(session, "worker-1")
    assert client.post(API, json=SMALL).status_code == 202


def test_one_key_has_so_many_tests_and_others_theirs(
    settings: Settings, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_rate_tests, "MAX_TESTS_A_KEY", 2)
    with filled.store.writing() as session:
        ada, grace = ({"X-API-Key": keys.create(session, name, Role.SUBMITTER)[1]} for name in ("ada", "grace"))
    with client_of(settings.model_copy(update={"auth": True})) as client:
        answers = [client.post(API, json=SMALL, headers=ada) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert answers[-1].json()["code"] == "too-many-requests"
        assert "'ada' has 2 learning-rate tests" in answers[-1].json()["detail"]
        assert int(answers[-1].headers["retry-after"]) > 0
        assert client.post(API, json=SMALL, headers=grace).status_code == 202
        with filled.store.writing() as session:
            claimed = measurements.claim_next(session, "worker-1")
            assert claimed
        assert client.post(API, json=SMALL, headers=ada).status_code == 429  # one that runs has not ended
        with filled.store.writing() as session:
            measurements.finish(session, claimed.id, RESULT)
        assert client.post(API, json=SMALL, headers=ada).status_code == 202


def test_one_key_leaves_others_room_for_dry_runs(
    settings: Settings, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled.store.writing() as session:
        ada, grace = ({"X-API-Key": keys.create(session, name, Role.SUBMITTER)[1]} for name in ("ada", "grace"))
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")
    monkeypatch.setattr(preflights, "PREFLIGHT_SECONDS", 0.0)  # no worker answers
    with client_of(settings.model_copy(update={"auth": True})) as client, contextlib.ExitStack() as stack:
        queue = client.app.state.preflights.queue  # type: ignore[attr-defined]
        for _ in range(preflights.PREFLIGHTS_A_KEY):
            assert client.portal is not None
            stack.enter_context(client.portal.wrap_async_context_manager(queue.place("ada")))
        refused = client.post("/api/v1/experiments?dry_run=true", json=SMALL, headers=ada)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
        theirs = client.post("/api/v1/experiments?dry_run=true", json=SMALL, headers=grace)
        assert theirs.status_code == 503
        assert "no worker measured this" in theirs.json()["detail"]


def test_tests_are_listed_newest_first_a_page_at_a_time(client: TestClient, filled: Filled) -> None:
    numbers = [
        client.post(API, json={**SMALL, "model": model}).json()["id"] for model in ("baseline", "wide", "resnet18")
    ]
    with filled.store.writing() as session:
        assert measurements.claim_next(session, "worker-1")
        measurements.finish(session, numbers[0], RESULT)
        measurements.create(session, MeasurementKind.PREFLIGHT, parse_spec(SMALL))
    listed = client.get(API).json()
    assert (listed["total"], listed["next"]) == (3, None)
    assert [item["id"] for item in listed["items"]] == numbers[::-1]
    assert [item["model"] for item in listed["items"]] == ["resnet18", "wide", "baseline"]
    assert [item["suggestion"] for item in listed["items"]] == [None, None, RESULT["suggestion"]]
    assert client.get(listed["items"][2]["links"]["curve"]).status_code == 200
    first = client.get(API, params={"limit": 2}).json()
    client.post(API, json=SMALL)  # one that is added meanwhile neither repeats nor skips any
    second = client.get(API, params={"limit": 2, "cursor": first["next"]}).json()
    assert [item["id"] for page in (first, second) for item in page["items"]] == numbers[::-1]
    assert second["next"] is None
    done = client.get(API, params={"status": "completed"}).json()
    assert ([item["id"] for item in done["items"]], done["total"]) == ([numbers[0]], 1)


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=-1", "cursor=0", "limit=0", "limit=201", "status=done", "sort=id"]
)
def test_a_list_that_cannot_be_meant_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"{API}?{query}").status_code == 422
