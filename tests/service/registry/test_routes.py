"""A name that stays: put on an experiment's weights, asked for predictions, rolled back, removed."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.store import Status, keys, runs
from models.store.states import Role
from service.app import create_app
from tests.service.lab_of_one import BASE_URL, Filled, client_of
from tests.service.predictions.pictures import encode, gradient
from tests.service.predictions.trained import Lab, with_nan

API = "/api/v1"
MODELS = f"{API}/models"


def finish(filled: Filled, trained: Any, status: Status = Status.COMPLETED) -> int:
    with filled.store.writing() as session:
        runs.settle(session, trained.claim, status)
    return int(trained.id)


@pytest.fixture
def lab(filled: Filled) -> Lab:
    return Lab(filled.store, filled.settings)


@pytest.fixture
def experiment(filled: Filled, lab: Lab) -> int:
    """One that has completed, with weights."""
    return finish(filled, lab.train())


def image() -> bytes:
    from PIL import Image

    return encode(Image.fromarray(gradient()), "PNG")


def put(client: TestClient, name: str, experiment_id: int, **more: Any) -> Any:
    return client.put(f"{MODELS}/{name}", json={"experiment_id": experiment_id, **more})


def ask(client: TestClient, name: str, query: str = "") -> Any:
    return client.post(f"{MODELS}/{name}/predictions{query}", files={"image": ("a.png", image())})


def test_a_name_is_put_on_an_experiment_and_answers_as_it_does(client: TestClient, experiment: int) -> None:
    made = put(client, "cats", experiment, weights="best")
    assert made.status_code == 201, made.text
    assert made.headers["location"] == f"{MODELS}/cats"
    document = made.json()
    assert (document["name"], document["version"], document["experiment_id"]) == ("cats", 1, experiment)
    assert (document["weights"], document["epoch"]) == ("best", 3)
    assert client.get(f"{MODELS}/cats").json() == document
    assert client.get(MODELS).json() == {"items": [document], "next": None, "total": 1}

    answer = ask(client, "cats")
    assert answer.status_code == 200, answer.text
    by_name = answer.json()
    by_number = client.post(f"{API}/experiments/{experiment}/predictions", files={"image": ("a.png", image())}).json()
    assert (by_name["model"], by_name["version"], by_name["experiment_id"]) == ("cats", 1, experiment)
    assert (by_number["model"], by_number["version"]) == (None, None)
    assert by_name["predictions"] == by_number["predictions"]


def test_every_put_is_the_next_version_and_a_rollback_serves_the_one_before(
    client: TestClient, filled: Filled, lab: Lab, experiment: int
) -> None:
    other = finish(filled, lab.train(seed=1))
    assert put(client, "cats", experiment).json()["version"] == 1
    second = put(client, "cats", other)
    assert (second.status_code, second.json()["version"]) == (200, 2)
    answers = {version: ask(client, "cats", f"?version={version}").json() for version in (1, 2)}
    assert answers[1]["predictions"] != answers[2]["predictions"]
    assert ask(client, "cats").json()["experiment_id"] == other

    back = client.post(f"{MODELS}/cats/rollback")
    assert (back.status_code, back.json()["version"]) == (200, 1)
    assert ask(client, "cats").json()["predictions"] == answers[1]["predictions"]
    withdrawn = ask(client, "cats", "?version=2")
    assert withdrawn.status_code == 409
    assert "withdrawn" in withdrawn.json()["detail"]
    beyond = client.post(f"{MODELS}/cats/rollback")
    assert beyond.status_code == 409
    assert "no version before it" in beyond.json()["detail"]

    versions = client.get(f"{MODELS}/cats/versions").json()
    assert [(one["version"], one["serving"]) for one in versions["items"]] == [(2, False), (1, True)]
    assert [one["withdrawn_at"] is None for one in versions["items"]] == [False, True]
    assert put(client, "cats", other).json()["version"] == 3
    page = client.get(f"{MODELS}/cats/versions?limit=2").json()
    assert ([one["version"] for one in page["items"]], page["next"], page["total"]) == ([3, 2], "2", 3)
    rest = client.get(f"{MODELS}/cats/versions?cursor=2").json()
    assert [one["version"] for one in rest["items"]] == [1]


def test_a_version_to_roll_back_to_is_named_in_the_address_and_not_passed_over_in_a_body(
    client: TestClient, experiment: int
) -> None:
    for _ in range(3):
        put(client, "cats", experiment)
    refused = client.post(f"{MODELS}/cats/rollback", json={"to": 1})
    assert (refused.status_code, "?to=1" in refused.json()["fix"]) == (422, True)
    assert client.get(f"{MODELS}/cats").json()["version"] == 3
    assert client.post(f"{MODELS}/cats/rollback", json={}).json()["version"] == 2
    assert client.post(f"{MODELS}/cats/rollback?to=1").json()["version"] == 1


def test_an_experiment_that_a_name_points_at_is_not_deleted(
    client: TestClient, filled: Filled, lab: Lab, experiment: int
) -> None:
    other = finish(filled, lab.train(seed=1))
    put(client, "cats", experiment)
    put(client, "cats", other)
    for number, version in ((experiment, 1), (other, 2)):
        refused = client.delete(f"{API}/experiments/{number}")
        assert refused.status_code == 409
        problem = refused.json()
        assert f"version {version} of model 'cats'" in problem["detail"]
        assert problem["models"] == [{"model": "cats", "version": version}]
        assert client.get(f"{API}/experiments/{number}").status_code == 200
    client.post(f"{MODELS}/cats/rollback")
    assert client.delete(f"{API}/experiments/{other}").status_code == 204
    assert client.get(f"{MODELS}/cats/versions").json()["items"][0]["experiment_id"] is None
    assert client.delete(f"{MODELS}/cats").status_code == 204
    assert client.delete(f"{API}/experiments/{experiment}").status_code == 204
    for answer in (client.get(f"{MODELS}/cats"), client.delete(f"{MODELS}/cats"), ask(client, "cats")):
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_an_experiment_that_is_held_is_freed_by_what_each_refusal_says(
    client: TestClient, filled: Filled, lab: Lab, experiment: int
) -> None:
    put(client, "cats", experiment)
    alone = f"DELETE {MODELS}/cats removes the name"
    for path in (f"{API}/experiments/{experiment}", f"{MODELS}/cats/versions/1"):
        assert alone in client.delete(path).json()["fix"]
    put(client, "cats", finish(filled, lab.train(seed=1)))
    put(client, "cats", experiment)
    for step in (f"DELETE {MODELS}/cats/versions/1", f"POST {MODELS}/cats/rollback"):
        refused = client.delete(f"{API}/experiments/{experiment}")
        assert (refused.status_code, step in refused.json()["fix"]) == (409, True), refused.text
        assert client.request(*step.split()).status_code < 300
    assert client.delete(f"{API}/experiments/{experiment}").status_code == 204


def test_an_earlier_version_is_withdrawn_and_frees_its_experiment(
    client: TestClient, filled: Filled, lab: Lab, experiment: int
) -> None:
    other = finish(filled, lab.train(seed=1))
    put(client, "cats", experiment)
    put(client, "cats", other)
    fix = client.delete(f"{API}/experiments/{experiment}").json()["fix"]
    assert f"DELETE {MODELS}/cats/versions/1" in fix
    served = client.delete(f"{MODELS}/cats/versions/2")
    assert (served.status_code, "rollback" in served.json()["fix"]) == (409, True)
    for _ in range(2):
        assert client.delete(f"{MODELS}/cats/versions/1").status_code == 204
    assert ask(client, "cats", "?version=1").json()["detail"] == (
        "version 1 of model 'cats' was withdrawn; it serves version 2"
    )
    assert client.delete(f"{API}/experiments/{experiment}").status_code == 204
    assert client.post(f"{MODELS}/cats/rollback").status_code == 409
    for path in ("cats/versions/3", "dogs/versions/1", "cats/versions/x", "cats/versions/0"):
        assert client.delete(f"{MODELS}/{path}").status_code == 404, path


BAD_NAMES = [
    *("7", "K%C3%A4tzchen", "%E7%8C%AB", "a%20b", "-a", "..a", "a%00", "a" * 65, "a%0Ab", "%F0%9F%90%B1", "a'b")
]


def test_a_name_of_another_form_is_refused_with_the_rule(client: TestClient, experiment: int) -> None:
    for name in BAD_NAMES:
        refused = put(client, name, experiment)
        assert refused.status_code == 422, refused.text
        problem = refused.json()
        assert problem["errors"][0]["field"] == "name"
        assert "begins with a letter" in problem["detail"]
        for answer in (client.get(f"{MODELS}/{name}"), ask(client, name), client.post(f"{MODELS}/{name}/rollback")):
            assert answer.status_code == 404, answer.text
    assert client.get(MODELS).json()["total"] == 0


def test_a_body_of_another_form_names_the_field(client: TestClient, experiment: int) -> None:
    bodies: list[tuple[Any, str]] = [
        ({}, "experiment_id"),
        ([], "body"),
        (7, "body"),
        ({"experiment_id": "1"}, "experiment_id"),
        ({"experiment_id": 0}, "experiment_id"),
        ({"experiment_id": True}, "experiment_id"),
        ({"experiment_id": 1.0}, "experiment_id"),
        ({"experiment_id": 2**40}, "experiment_id"),
        ({"experiment_id": experiment, "weights": "worst"}, "weights"),
        ({"experiment_id": experiment, "weights": None}, "weights"),
        ({"experiment_id": experiment, "weight": "best"}, "weight"),
    ]
    for body, field in bodies:
        refused = client.put(f"{MODELS}/cats", json=body)
        assert refused.status_code == 422, refused.text
        assert refused.json()["errors"][0]["field"] == field
    assert client.get(f"{MODELS}/cats").status_code == 404


def test_what_cannot_be_served_gets_no_version(client: TestClient, filled: Filled, lab: Lab) -> None:
    assert put(client, "cats", 999).status_code == 404
    queued = put(client, "cats", filled.add())
    assert (queued.status_code, "is queued" in queued.json()["detail"]) == (409, True)
    running = lab.train()
    assert (put(client, "cats", running.id).status_code) == 409
    finish(filled, running)
    assert put(client, "cats", running.id, weights="last").status_code == 409, "it kept no last weights"
    path = next((lab.settings.experiments_dir / str(running.id)).rglob("weights-best*"))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    damaged = put(client, "cats", running.id)
    assert damaged.status_code == 409
    assert "digest" in damaged.json()["detail"]
    path.write_bytes(good)
    assert put(client, "cats", running.id).status_code == 201


def test_a_version_whose_weights_are_damaged_later_says_so_and_the_one_before_still_answers(
    settings: Any, filled: Filled, lab: Lab, experiment: int
) -> None:
    other = finish(filled, lab.train(seed=1))
    with client_of(settings) as client:
        put(client, "cats", experiment)
        put(client, "cats", other)
    path = next((lab.settings.experiments_dir / str(other)).rglob("weights-best*"))
    path.write_bytes(path.read_bytes()[:-8])
    with client_of(settings) as client:
        answer = ask(client, "cats")
        assert answer.status_code == 409, answer.text
        problem = answer.json()
        assert "version 2 of model 'cats'" in problem["detail"]
        assert "rollback" in problem["fix"]
        assert client.post(f"{MODELS}/cats/rollback").status_code == 200
        assert ask(client, "cats").status_code == 200


def test_weights_that_give_nan_are_a_conflict_that_names_the_model(
    client: TestClient, filled: Filled, lab: Lab
) -> None:
    trained = with_nan(lab.train())
    lab.save(trained)
    put(client, "cats", finish(filled, trained))
    answer = ask(client, "cats")
    assert answer.status_code == 409
    assert "model 'cats'" in answer.json()["detail"]


def test_two_clients_at_once_make_a_version_each(client: TestClient, experiment: int) -> None:
    made: list[Any] = []
    threads = [threading.Thread(target=lambda: made.append(put(client, "cats", experiment))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answer.json()["version"] for answer in made) == [1, 2, 3, 4, 5, 6]
    assert sorted(answer.status_code for answer in made) == [200, 200, 200, 200, 200, 201]
    assert client.get(f"{MODELS}/cats").json()["version"] == 6


@pytest.fixture
def guarded(settings: Any, filled: Filled) -> Iterator[tuple[TestClient, dict[str, dict[str, str]]]]:
    """A lab that asks for keys, and a viewer's and a submitter's."""
    changed = settings.model_copy(update={"auth": True, "max_stored": 3})
    with filled.store.writing() as session:
        texts = {role.value: keys.create(session, role.value, role)[1] for role in Role}
    app = create_app(changed)
    with TestClient(app, base_url=BASE_URL, raise_server_exceptions=False) as client:
        yield client, {role: {"Authorization": f"Bearer {text}"} for role, text in texts.items()}


def test_a_viewer_reads_and_predicts_and_a_submitter_changes(guarded: Any, experiment: int) -> None:
    client, headers = guarded
    body = {"experiment_id": experiment}
    assert client.put(f"{MODELS}/cats", json=body).status_code == 401
    assert client.put(f"{MODELS}/cats", json=body, headers=headers["viewer"]).status_code == 403
    made = client.put(f"{MODELS}/cats", json=body, headers=headers["submitter"])
    assert (made.status_code, made.json()["created_by"]) == (201, "submitter")
    for path in ("", "/cats", "/cats/versions"):
        assert client.get(f"{MODELS}{path}", headers=headers["viewer"]).status_code == 200
        assert client.get(f"{MODELS}{path}").status_code == 401
    files = {"image": ("a.png", image())}
    assert client.post(f"{MODELS}/cats/predictions", files=files, headers=headers["viewer"]).status_code == 200
    assert client.post(f"{MODELS}/cats/predictions", files=files).status_code == 401
    assert client.post(f"{MODELS}/cats/rollback", headers=headers["viewer"]).status_code == 403
    assert client.delete(f"{MODELS}/cats", headers=headers["viewer"]).status_code == 403
    assert client.delete(f"{MODELS}/cats/versions/1", headers=headers["viewer"]).status_code == 403
    assert client.delete(f"{MODELS}/cats", headers=headers["submitter"]).status_code == 204


def test_a_key_makes_so_many_versions_and_no_more(guarded: Any, experiment: int) -> None:
    client, headers = guarded
    body = {"experiment_id": experiment}
    answers = [client.put(f"{MODELS}/cats", json=body, headers=headers["submitter"]) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 429]
    assert "of 3 allowed" in answers[3].json()["detail"]
    assert client.get(f"{MODELS}/cats", headers=headers["viewer"]).json()["version"] == 3


def test_a_damaged_cursor_is_refused(client: TestClient, experiment: int) -> None:
    put(client, "cats", experiment)
    for address in (f"{MODELS}?cursor=%00", f"{MODELS}?cursor=1", f"{MODELS}/cats/versions?cursor=x"):
        assert client.get(address).status_code == 422
