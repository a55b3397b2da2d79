"""A study is read again and again while it runs: what an answer costs, and when it is made anew."""

import itertools
from typing import Any

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from models.progress import RunProgress
from models.spec.parse import parse_spec
from models.store import experiments, history, measurements, runs, studies, study_snapshot
from models.store.states import MeasurementKind
from models.store.tables import StudyAddition
from service.http.caching import Caching
from service.studies.read import describe, describe_item
from tests.service.lab_of_one import Filled, epoch
from tests.service.studies.test_routes import train

limits = itertools.count(100)


@pytest.fixture
def filled(shared_filled: Filled) -> Filled:
    """The store of a lab that other tests use too."""
    return shared_filled


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    """Its client."""
    return shared_client


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the answers that had to be made."""
    paths: list[str] = []
    make = Caching._make

    async def counting(self: Any, key: Any, stamp: Any, scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await make(self, key, stamp, scope, receive, send)

    monkeypatch.setattr(Caching, "_make", counting)
    return paths


def post(client: TestClient, rows: int = 2, **more: Any) -> tuple[str, list[int]]:
    """A study that shares no run with another one: its address, and its experiments."""
    base = {"model": "baseline", "epochs": 2, "dataset": {"train_limit": next(limits), "val_limit": 100}}
    body = {"base": base, "grid": {"batch_size": [8 * (n + 1) for n in range(rows)]}, **more}
    study = client.post("/api/v1/studies", json=body).json()
    numbers = [number for row in study["rows"] for number in row["experiment_ids"]]
    return f"/api/v1/studies/{study['id']}", numbers


def number_of(address: str) -> int:
    return int(address.rpartition("/")[2])


def test_a_study_that_has_not_changed_is_not_sent_again(client: TestClient, made: list[str]) -> None:
    address, _ = post(client)
    first = client.get(address)
    again = client.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(address).content == first.content
    assert made == [address]


def test_a_change_of_one_of_its_runs_is_seen_at_once(client: TestClient, filled: Filled, made: list[str]) -> None:
    address, [first, second] = post(client)

    def read() -> dict[str, Any]:
        found = client.get(address)
        assert client.get(address, headers={"If-None-Match": found.headers["ETag"]}).status_code == 304
        return dict(found.json())

    assert read()["status"] == "queued"
    claim = filled.start(first)
    assert read()["status"] == "running"
    with filled.store.writing() as session:
        half = RunProgress(
            epoch=1, epochs=2, step=1, steps=2, seconds_left=9.0, images_per_second=9.0, phase="training"
        )
        runs.renew(session, claim, half)
    assert read()["progress"]["fraction"] == 0.125
    filled.append(claim, [epoch(1)])
    assert read()["rows"][0]["epochs_run"] == 1
    filled.settle(claim)
    assert read()["rows"][0]["val_accuracy"]["mean"] == 0.5
    client.delete(f"/api/v1/experiments/{second}")
    assert read()["rows"][1]["status"] == "deleted"
    client.post(f"{address}/cancel")
    assert read()["status"] == "cancelled"
    assert len(made) == 7


def test_a_measurement_that_begins_is_seen_at_once(client: TestClient, filled: Filled) -> None:
    address, numbers = post(client, robustness=True)
    for number in numbers:
        train(filled, number)
    with filled.store.writing() as session:
        asked = measurements.create(session, MeasurementKind.ROBUSTNESS, parse_spec({"model": "baseline"}), {})
        session.add(
            StudyAddition(
                study_id=number_of(address), key="robustness:base", position=0, measurement=asked.id,
                best_experiment=numbers[0], title="base", experiment_ids=numbers[:1],
            )
        )  # fmt: skip
    assert client.get(address).json()["robustness"][0]["status"] == "waiting"
    with filled.store.writing() as session:
        assert measurements.claim_next(session, "worker-1") is not None
    assert client.get(address).json()["robustness"][0]["status"] == "running"


def test_a_study_that_was_deleted_is_not_found(client: TestClient) -> None:
    address, _ = post(client)
    client.get(address)
    client.post(f"{address}/cancel")
    client.get(address)
    client.delete(address)
    assert client.get(address).status_code == 404


@pytest.mark.parametrize("how", [describe, describe_item])
def test_reading_a_study_of_many_runs_takes_as_many_queries_as_one_of_few(
    client: TestClient, filled: Filled, how: Any
) -> None:
    few, many = (post(client, rows) for rows in (2, 6))
    for number in few[1] + many[1]:
        train(filled, number)
    counts = []
    for address, _ in (few, many):
        statements: list[str] = []
        with filled.store.reading() as session:
            connection = session.connection()
            event.listen(connection, "before_cursor_execute", lambda *sent: statements.append(sent[2]))  # noqa: B023
            study = studies.get(session, number_of(address))
            _ = how(session, study, filled.settings.experiments_dir) if how is describe else how(session, study)
        counts.append(len(statements))
    assert counts[0] == counts[1]
    assert counts[0] < 16


@pytest.mark.parametrize("original_is_deleted", [False, True])
def test_a_run_that_continues_another_stands_for_no_row(
    client: TestClient, filled: Filled, original_is_deleted: bool
) -> None:
    limit = next(limits)
    spec = {"model": "baseline", "lr_scheduler": "cosine", "dataset": {"train_limit": limit, "val_limit": 100}}
    first = filled.start(filled.add(**{**spec, "epochs": 1}))
    filled.append(first, [epoch(1)])
    filled.settle(first)
    original = first.experiment_id
    continuation = filled.start(filled.add(**{**spec, "epochs": 2}))
    with filled.store.writing() as session:
        experiments.get(session, continuation.experiment_id).continues = original
        history.copy(session, original, continuation.experiment_id, 1)
    filled.append(continuation, [epoch(2)])
    filled.settle(continuation)
    if original_is_deleted:
        assert client.delete(f"/api/v1/experiments/{original}").status_code == 204
    study = client.post("/api/v1/studies", json={"base": {**spec, "epochs": 2}, "variants": [{"key": "it"}]}).json()
    assert study["rows"][0]["experiment_ids"] != [continuation.experiment_id]
    assert study["rows"][0]["status"] == "queued"


def test_scores_of_ended_runs_are_read_once(client: TestClient, filled: Filled) -> None:
    address, numbers = post(client)
    for number in numbers:
        train(filled, number)
    folder = filled.settings.experiments_dir

    def scores() -> list[Any]:
        with filled.store.reading() as session:
            snapshot = study_snapshot.StudySnapshot.read(session, studies.get(session, number_of(address)))
            return list(snapshot.scores(session, folder).values())

    assert all(one is other for one, other in zip(scores(), scores(), strict=True))
