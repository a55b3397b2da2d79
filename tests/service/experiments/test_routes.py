"""Submitting, listing, cancelling, resuming and deleting over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.store import Status, experiments
from tests.service.lab_of_one import SMALL, Filled, epoch

API = "/api/v1/experiments"


def count(filled: Filled) -> int:
    with filled.store.reading() as session:
        return sum(experiments.count_by_status(session).values())


def test_a_submitted_experiment_is_stored_whole_and_waits_for_the_broker(client: TestClient, filled: Filled) -> None:
    answer = client.post(API, json={"model": "baseline", "epochs": 2, "tags": ["a", "b"], "name": "../../\\\x07\u202e"})
    assert answer.status_code == 202
    document = answer.json()
    assert answer.headers["location"] == f"{API}/{document['id']}" == document["links"]["self"]
    assert document["status"] == "queued"
    assert document["name"] == "../../\\\x07\u202e"
    assert document["tags"] == ["a", "b"]
    assert document["spec"]["optimizer"] == {
        "name": "sgd",
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "nesterov": False,
    }
    assert client.get(document["links"]["self"]).json() == document
    with filled.store.reading() as session:
        assert experiments.waiting(session) == [document["id"]]
    again = client.post(API, json=document["spec"])
    assert again.status_code == 202
    assert again.json()["spec"] == document["spec"]


def test_yaml_is_read_too(client: TestClient) -> None:
    text = "preset: lab-report/6e\nepochs: 2\noptimizer:\n  lr: 1e-2\n"
    answer = client.post(API, content=text, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 202
    assert answer.json()["model"] == "three_blocks_batch_norm"
    assert answer.json()["spec"]["optimizer"]["lr"] == 0.01


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model": "baseline", "epochs": 0}, "epochs"),
        ({"model": "baseline", "epochs": True}, "epochs"),
        ({"model": "basline"}, "model.name"),
        ({"model": "baseline", "epoch": 3}, "epoch"),
        ({"model": "baseline", "dataset": {"name": "cifar11"}}, "dataset.name"),
        ({"model": "baseline", "optimizer": {"lr": -1}}, "optimizer.lr"),
        ({"model": {"name": "cnn", "blocks": [{"convs": [{"channels": 4, "kernel_size": 31}] * 3}]}}, "model.blocks"),
        ({"model": {"name": "cnn", "blocks": [{"convs": [{"channels": 4096, "padding": 1}] * 32}] * 2}}, "model"),
        ([], "body"),
        ("text", "body"),
        (3, "body"),
    ],
)
def test_a_wrong_spec_names_its_field_and_leaves_nothing(
    client: TestClient, filled: Filled, body: Any, field: str
) -> None:
    answer = client.post(API, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["errors"][0]["field"].startswith(field)
    assert problem["fix"]
    assert count(filled) == 0


def test_other_content_types_are_refused(client: TestClient, filled: Filled) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        answer = client.post(API, content=b'{"model": "baseline"}', headers={"Content-Type": kind})
        assert answer.status_code == 415, kind
        assert "application/json" in answer.json()["fix"]
    assert count(filled) == 0


def test_a_key_makes_one_experiment_however_often_it_is_sent(client: TestClient, filled: Filled) -> None:
    headers = {"Idempotency-Key": "one"}
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post(API, json=SMALL, headers=headers), range(60)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert count(filled) == 1
    other = client.post(API, json={**SMALL, "epochs": 4}, headers=headers)
    assert other.status_code == 422
    assert client.post(API, json=SMALL, headers={"Idempotency-Key": "x" * 300}).status_code == 422
    assert count(filled) == 1


def test_lists_filter_sort_and_page(client: TestClient, filled: Filled) -> None:
    ids = [
        filled.trained([epoch(1, val_accuracy=accuracy, val_loss=2 - accuracy)], tags=["even" if n % 2 == 0 else "odd"])
        for n, accuracy in enumerate([0.5, 0.9, 0.1, 0.7])
    ]
    waiting = filled.add(model="wide")

    def listed(**params: Any) -> list[int]:
        answer = client.get(API, params=params)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    assert listed() == [waiting, *reversed(ids)]
    assert listed(status="queued") == [waiting]
    assert listed(model="wide") == [waiting]
    assert listed(tag="odd") == [ids[3], ids[1]]
    assert listed(dataset="fashion-mnist") == []
    best = [ids[1], ids[3], ids[0], ids[2]]
    assert listed(sort="val_accuracy.best") == [*best, waiting]
    assert listed(sort="val_accuracy.best", order="asc")[:4] == best[::-1]
    assert listed(sort="-val_accuracy.last")[:4] == best[::-1]
    assert listed(sort="val_loss.best")[:4] == best
    pages, cursor = [], None
    while True:
        page = client.get(API, params={"sort": "val_loss.best", "limit": 2, **({"cursor": cursor} if cursor else {})})
        pages += [item["id"] for item in page.json()["items"]]
        assert page.json()["total"] == 5
        if (cursor := page.json()["next"]) is None:
            break
    assert pages == [*best, waiting]
    assert "spec" not in page.json()["items"][0]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("stat=queued", "stat"),
        ("status=lost", "status"),
        ("limit=0", "limit"),
        ("limit=1e3", "limit"),
        ("sort=colour", None),
        ("cursor=zzz", None),
        ("cursor=%00", None),
        ("order=up", "order"),
    ],
)
def test_wrong_parameters_are_named(steady: TestClient, query: str, field: str | None) -> None:
    answer = steady.get(f"{API}?{query}")
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "invalid-request"
    if field:
        assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize(
    "identifier",
    [
        "0",
        "-1",
        "x",
        "1.0",
        "1e0",
        "+1",
        "01",
        "1_0",
        "9" * 12,
        "9" * 40,
        "9" * 5000,
        "%2e%2e",
        "%00",
        "1%20",
        "\u0661",
    ],
)
def test_what_is_no_id_is_not_found(steady: TestClient, identifier: str) -> None:
    for path in ("", "/metrics", "/curves.png", "/kernels.png", "/events", "/verdict", "/layers"):
        answer = steady.get(f"{API}/{identifier}{path}")
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert steady.post(f"{API}/{identifier}/cancel").status_code == 404
    assert steady.delete(f"{API}/{identifier}").status_code == 404


def test_cancelling_is_idempotent_and_knows_what_has_ended(client: TestClient, filled: Filled) -> None:
    queued = filled.add()
    for _ in range(2):
        answer = client.post(f"{API}/{queued}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    running = filled.start(filled.add()).experiment_id
    for _ in range(2):
        assert client.post(f"{API}/{running}/cancel").json()["status"] == "running"
    done = filled.trained([epoch(1)])
    assert client.post(f"{API}/{done}/cancel").status_code == 409


def test_resuming_queues_what_failed_again(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    assert client.post(f"{API}/{claim.experiment_id}/resume").status_code == 409
    filled.settle(claim, Status.FAILED, "killed")
    assert client.get(f"{API}/{claim.experiment_id}").json()["reason"] == "killed"
    answer = client.post(f"{API}/{claim.experiment_id}/resume")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert [run["status"] for run in answer.json()["runs"]] == ["failed"]


def test_deleting_removes_the_record_and_the_folder_but_nothing_that_runs(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    folder = filled.settings.experiments_dir / str(claim.experiment_id)
    folder.mkdir(parents=True)
    assert client.delete(f"{API}/{claim.experiment_id}").status_code == 409
    assert folder.exists()
    filled.settle(claim)
    answer = client.delete(f"{API}/{claim.experiment_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert not folder.exists()
    assert client.get(f"{API}/{claim.experiment_id}").status_code == 404
    assert client.delete(f"{API}/{claim.experiment_id}").status_code == 404


def test_layers_and_verdict(client: TestClient, filled: Filled) -> None:
    claim = filled.start(filled.add())
    layers = client.get(f"{API}/{claim.experiment_id}/layers").json()
    assert layers["layers"][0]["kernel_shape"] == [4, 3, 5, 5]
    assert client.get(f"{API}/{claim.experiment_id}/verdict").status_code == 409
    verdict = {
        "summary": "It learns.",
        "best_epoch": {"val_loss": 1},
        "stability": None,
        "findings": [{"code": "no-problem", "severity": "good", "sentence": "All is well.", "evidence": {}}],
    }
    filled.judge(claim, verdict)
    found = client.get(f"{API}/{claim.experiment_id}/verdict").json()
    assert found["summary"] == "It learns."
    assert found["findings"][0]["code"] == "no-problem"
    assert found["best_epoch"] == {"val_loss": 1}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"model": "baseline", "name": "old"}', "json"),
        (b"model: baseline\nname: |\n  two\n  lines\n", "yaml"),
        (b"model: baseline\nname: >-\n  folded\n  text\nepochs: 2\n", "yaml"),
        (b"{model: baseline}", "yaml"),
    ],
)
def test_a_name_can_be_given_beside_the_spec(client: TestClient, body: bytes, kind: str) -> None:
    headers = {"Content-Type": f"application/{kind}"}
    name = "a: 'b' \"c\" # \u4e2d"
    answer = client.post(API, params={"name": name}, content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.json()["name"] == name == answer.json()["spec"]["name"]
    wrong = client.post(
        API, params={"name": "x"}, content=b'{"model": "baseline",}', headers={"Content-Type": "application/json"}
    )
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid-request")
    assert client.post(API, params={"name": "x" * 201}, content=body, headers=headers).status_code == 422


def test_the_same_key_with_another_name_is_another_request(client: TestClient) -> None:
    def submit(name: str) -> int:
        headers = {"Idempotency-Key": "k"}
        return int(client.post(API, params={"name": name}, json={"model": "baseline"}, headers=headers).status_code)

    assert [submit("a"), submit("a"), submit("b")] == [202, 202, 422]
