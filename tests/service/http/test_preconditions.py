"""If-Match: a change is made of the resource that the client has seen, or answered with 412."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.data.catalogue import get_dataset
from models.spec.rows import parse_study
from models.store import Status, datasets, runs, studies
from models.store.states import DatasetJobKind
from models.store.studies import NewRow
from service.http.compression import plain_tag
from service.http.preconditions import Precondition
from service.studies.images import images_of
from tests.service.lab_of_one import LAYERS, SMALL, Filled, epoch
from tests.service.predictions.trained import Lab

API = "/api/v1"
OTHER = '"0123456789abcdef0123456789abcdef"'


@dataclass(frozen=True)
class Case:
    """One resource of a lab: its address, a change of it, and how it is deleted."""

    address: str
    change: Callable[[TestClient, dict[str, str]], Any]


def an_experiment(client: TestClient, filled: Filled) -> Case:
    address = f"{API}/experiments/{filled.trained([epoch(1)])}"
    return Case(address, lambda client, headers: client.patch(address, json={"notes": "seen"}, headers=headers))


def a_webhook(client: TestClient, filled: Filled) -> Case:
    made = client.post(f"{API}/webhooks", json={"url": "https://1.1.1.1/hook"})
    address = f"{API}/webhooks/{made.json()['id']}"
    return Case(address, lambda client, headers: client.patch(address, json={"name": "ours"}, headers=headers))


def a_model(client: TestClient, filled: Filled) -> Case:
    trained = Lab(filled.store, filled.settings).train()
    with filled.store.writing() as session:
        runs.settle(session, trained.claim, Status.COMPLETED)
    address, body = f"{API}/models/cats", {"experiment_id": trained.id}
    assert client.put(address, json=body).status_code == 201
    return Case(address, lambda client, headers: client.put(address, json=body, headers=headers))


def a_study(client: TestClient, filled: Filled) -> Case:
    parsed = parse_study({"base": SMALL, "grid": {"batch_size": [8]}})
    info = get_dataset("cifar10")
    with filled.store.writing() as session:  # a POST would start a process that builds its networks
        rows = [NewRow(row, LAYERS, [], images_of(row.spec, info)) for row in parsed.rows]  # type: ignore[arg-type]
        address = f"{API}/studies/{studies.create(session, parsed, rows).id}"
    return Case(address, lambda client, headers: client.post(f"{address}/cancel"))


def a_dataset(client: TestClient, filled: Filled) -> Case:
    with filled.store.writing() as session:
        datasets.create_version(
            session, "photos", owner=None, options={}, job=DatasetJobKind.IMPORT,
            job_options={"archive": "none", "filename": "a.zip", "import": {}}, num_bytes=1,
        )  # fmt: skip
    address = f"{API}/datasets/photos"
    return Case(address, lambda client, headers: client.put(address, content=b"no zip", headers=headers))


CASES = [an_experiment, a_webhook, a_model, a_study, a_dataset]


@pytest.mark.parametrize("make", CASES)
def test_what_has_changed_since_is_not_deleted(
    make: Callable[[TestClient, Filled], Case], client: TestClient, filled: Filled
) -> None:
    case = make(client, filled)
    tag = client.get(case.address).headers["etag"]
    assert client.get(case.address, headers={"If-None-Match": tag}).status_code == 304
    if make is not a_dataset:
        assert case.change(client, {}).status_code < 300
        stale = client.delete(case.address, headers={"If-Match": tag})
        assert (stale.status_code, stale.json()["code"]) == (412, "precondition-failed")
    for wrong in (OTHER, f"W/{client.get(case.address).headers['etag']}", "nonsense"):
        assert client.delete(case.address, headers={"If-Match": wrong}).status_code == 412
    now = client.get(case.address).headers["etag"]
    assert client.delete(case.address, headers={"If-Match": f"{OTHER}, {now}"}).status_code == 204
    assert client.delete(case.address, headers={"If-Match": now}).status_code == 404


@pytest.mark.parametrize("make", [an_experiment, a_webhook, a_model])
def test_a_change_is_made_of_what_was_seen_and_answers_with_the_next_tag(
    make: Callable[[TestClient, Filled], Case], client: TestClient, filled: Filled
) -> None:
    case = make(client, filled)
    tag = client.get(case.address).headers["etag"]
    assert case.change(client, {"If-Match": OTHER}).status_code == 412
    assert client.get(case.address).headers["etag"] == tag
    changed = case.change(client, {"If-Match": tag})
    assert changed.status_code == 200, changed.text
    now = client.get(case.address, headers={"Accept-Encoding": "identity"}).headers["etag"]
    assert now == plain_tag(changed.headers["etag"])
    assert case.change(client, {"If-Match": tag}).status_code == 412
    assert case.change(client, {"If-Match": "*"}).status_code == 200


def test_the_tag_of_a_compressed_answer_stands_for_the_same_document(client: TestClient, filled: Filled) -> None:
    case = an_experiment(client, filled)
    found = client.get(case.address, headers={"Accept-Encoding": "gzip"})
    assert found.headers["content-encoding"] == "gzip"
    assert case.change(client, {"If-Match": found.headers["etag"]}).status_code == 200


def test_a_name_that_is_not_there_is_made_only_without_if_match(client: TestClient, filled: Filled) -> None:
    case = a_model(client, filled)
    body = client.get(case.address).json()["experiment_id"]
    fresh = f"{API}/models/dogs"
    assert client.put(fresh, json={"experiment_id": body}, headers={"If-Match": "*"}).status_code == 412
    assert client.put(fresh, json={"experiment_id": body}, headers={"If-None-Match": "*"}).status_code == 201
    assert client.put(fresh, json={"experiment_id": body}, headers={"If-None-Match": "*"}).status_code == 412
    assert client.get(fresh).json()["version"] == 1


def test_of_two_rollbacks_of_what_both_have_seen_one_is_made(client: TestClient, filled: Filled) -> None:
    case = a_model(client, filled)
    body = client.get(case.address).json()["experiment_id"]
    for _ in range(2):
        client.put(case.address, json={"experiment_id": body})
    seen = {"If-Match": client.get(case.address).headers["etag"]}
    first, second = (client.post(f"{case.address}/rollback", headers=seen) for _ in range(2))
    assert (first.status_code, second.status_code, second.json()["code"]) == (200, 412, "precondition-failed")
    assert client.get(case.address).headers["etag"] == first.headers["etag"]
    assert client.get(case.address).json()["version"] == first.json()["version"]


def test_an_upload_for_another_version_is_refused_before_its_body_is_read(client: TestClient, filled: Filled) -> None:
    case = a_dataset(client, filled)
    assert case.change(client, {"If-Match": OTHER, "Content-Type": "application/zip"}).status_code == 412


def test_changes_of_different_fields_at_the_same_time_are_all_kept(client: TestClient, filled: Filled) -> None:
    address = f"{API}/experiments/{filled.trained([epoch(1)])}"
    wanted = {"name": "ours", "notes": "two lines\nof text", "tags": ["a", "b"]}
    start = threading.Barrier(len(wanted))

    def change(field: str) -> None:
        start.wait(20)
        assert client.patch(address, json={field: wanted[field]}).status_code == 200

    threads = [threading.Thread(target=change, args=(field,)) for field in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = client.get(address).json()
    assert {field: found[field] for field in wanted} == wanted


def test_of_two_who_have_seen_the_same_one_makes_the_change(client: TestClient, filled: Filled) -> None:
    address = f"{API}/experiments/{filled.trained([epoch(1)])}"
    tag, answers = client.get(address).headers["etag"], []
    start = threading.Barrier(2)

    def change(notes: str) -> None:
        start.wait(20)
        answers.append(client.patch(address, json={"notes": notes}, headers={"If-Match": tag}).status_code)

    threads = [threading.Thread(target=change, args=(notes,)) for notes in ("mine", "yours")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == [200, 412]


def test_without_a_condition_no_document_is_made() -> None:
    Precondition().check(lambda: pytest.fail("made"))
