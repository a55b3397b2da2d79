"""The API lives without anything else; the lab is ready only with all of its parts."""

from starlette.testclient import TestClient

from models.store import workers
from tests.service.lab_of_one import Filled, epoch


def test_alive_without_a_broker_or_a_worker(client: TestClient) -> None:
    for path in ("/healthz", "/api/v1/healthz"):
        assert client.get(path).json() == {"status": "ok"}


def test_what_is_missing_is_named(client: TestClient, filled: Filled) -> None:
    with filled.store.writing() as session:
        workers.beat(session, "worker-1", host="lab", pid=1, device="cpu")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    problem = answer.json()
    assert "broker" in problem["detail"]
    assert problem["checks"]["database"]["ok"]
    assert problem["checks"]["workers"] == {"ok": True, "names": ["worker-1"]}
    assert answer.headers["retry-after"]


def test_prometheus_counts_by_route_and_not_by_id(client: TestClient, filled: Filled) -> None:
    identifier = filled.trained([epoch(1)])
    client.get(f"/api/v1/experiments/{identifier}")
    client.get("/nothing/here")
    text = client.get("/metrics").text
    assert 'epochal_experiments{status="completed"} 1.0' in text
    assert 'route="/experiments/{experiment_id}",status="200"' in text
    assert 'route="none",status="404"' in text
    assert "epochal_queue_messages -1.0" in text
