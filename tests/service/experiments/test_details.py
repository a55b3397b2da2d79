"""Name, tags and notes can be changed; the spec cannot. Experiments are found by words in them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from models.store import Status
from tests.service.lab_of_one import Filled, epoch

API = "/api/v1/experiments"


def found(client: TestClient, **query: str) -> list[int]:
    return [item["id"] for item in client.get(API, params=query).json()["items"]]


def test_name_tags_and_notes_change_and_the_spec_stays(client: TestClient, filled: Filled) -> None:
    number = filled.add(name="before", tags=["a", "b"])
    before = client.get(f"{API}/{number}").json()
    changes = {"name": "after", "tags": ["b", "c"], "notes": "the rate\nwas too high \u202e\x07"}
    answer = client.patch(f"{API}/{number}", json=changes)
    assert answer.status_code == 200
    after = client.get(f"{API}/{number}").json()
    assert answer.json() == after
    assert {field: after[field] for field in changes} == changes
    assert after["spec"] == before["spec"]
    only_notes = client.patch(f"{API}/{number}", json={"notes": ""}).json()
    assert (only_notes["name"], only_notes["tags"], only_notes["notes"]) == ("after", ["b", "c"], "")


def test_yaml_is_read_with_names_and_tags_as_text(client: TestClient, filled: Filled) -> None:
    number = filled.add()
    headers = {"Content-Type": "application/yaml"}
    changed = client.patch(f"{API}/{number}", content="name: 2024\ntags: [1, 2.50]\n", headers=headers).json()
    assert (changed["name"], changed["tags"]) == ("2024", ["1", "2.50"])


@pytest.mark.parametrize("status", [Status.RUNNING, Status.COMPLETED, Status.FAILED])
def test_an_experiment_is_renamed_in_any_status(client: TestClient, filled: Filled, status: Status) -> None:
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(1)])
    if status is not Status.RUNNING:
        filled.settle(claim, status)
    assert client.patch(f"{API}/{claim.experiment_id}", json={"name": "x"}).json()["status"] == status
    if status is Status.RUNNING:
        filled.append(claim, [epoch(2)])  # the run that goes on loses nothing, and takes nothing back
        assert client.get(f"{API}/{claim.experiment_id}").json()["name"] == "x"


@pytest.mark.parametrize(
    ("body", "field", "word"),
    [
        ({"epochs": 5}, "epochs", "never changes"),
        ({"spec": {}}, "spec", "never changes"),
        ({"dataset": {"name": "x"}, "name": "y"}, "dataset", "never changes"),
        ({"nmae": "x"}, "nmae", "known are name, tags, notes"),
        ({"name": 5}, "name", "string"),
        ({"name": "x" * 201}, "name", "200"),
        ({"tags": "a"}, "tags", ""),
        ({"tags": ["ok", " "]}, "tags.1", ""),
        ({"tags": ["x"] * 21}, "tags", "20"),
        ({"notes": "x" * 20_001}, "notes", "20000"),
        ([], "body", "object"),
        ("name", "body", "object"),
    ],
)
def test_what_cannot_be_changed_is_named_and_nothing_changes(
    client: TestClient, filled: Filled, body: Any, field: str, word: str
) -> None:
    number = filled.add(name="kept")
    answer = client.patch(f"{API}/{number}", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert word in answer.json()["errors"][0]["message"]
    assert client.get(f"{API}/{number}").json()["name"] == "kept"


def test_null_empties_a_field_and_one_that_is_left_out_stays(client: TestClient, filled: Filled) -> None:
    number = filled.add(name="first", tags=["a"])
    client.patch(f"{API}/{number}", json={"notes": "slow"})
    emptied = client.patch(f"{API}/{number}", json={"name": None, "notes": None}).json()
    assert (emptied["name"], emptied["notes"], emptied["tags"]) == ("", "", ["a"])
    assert client.patch(f"{API}/{number}", json={"tags": None}).json()["tags"] == []


def test_no_such_experiment_is_not_found(client: TestClient) -> None:
    assert client.patch(f"{API}/99", json={"name": "x"}).status_code == 404


def test_every_word_of_a_search_is_in_name_notes_or_tags(client: TestClient, filled: Filled) -> None:
    first = filled.add(name="Übung drei", tags=["Gruppe-A"])
    second = filled.add(name="100%_done")
    client.patch(f"{API}/{second}", json={"notes": "learning rate\ntoo HIGH, 学習率"})
    assert found(client, search="übung") == found(client, search="ÜBUNG gruppe") == [first]
    assert found(client, search="high done") == found(client, search="学習") == [second]
    assert found(client, search="übung high") == []
    assert found(client, search="0%_d") == found(client, search="%") == found(client, search="_") == [second]
    assert found(client, search="  ") == [second, first]
    page = client.get(API, params={"search": "u", "limit": 1}).json()
    assert page["total"] == len(found(client, search="u"))
    assert client.get(API, params={"search": "a " * 11}).status_code == 422
    assert client.get(API, params={"search": "a" * 201}).status_code == 422


def test_a_renamed_experiment_moves_in_lists_that_were_read_before(client: TestClient, filled: Filled) -> None:
    first, second = filled.add(name="b"), filled.add(name="c")
    assert found(client, sort="name") == [first, second]
    assert found(client, tag="t") == []
    client.patch(f"{API}/{second}", json={"name": "a", "tags": ["t"]})
    assert found(client, sort="name") == [second, first]
    assert found(client, tag="t") == [second]
    assert found(client, search="c") == []


def test_the_page_has_notes_and_a_search(client: TestClient, filled: Filled) -> None:
    number = filled.add(name="plain")
    client.patch(f"{API}/{number}", json={"notes": "<b>bold</b>"})
    html = {"Accept": "text/html"}
    assert "&lt;b&gt;bold&lt;/b&gt;" in client.get(f"/experiments/{number}", headers=html).text
    assert f"/experiments/{number}" in client.get("/?search=bold", headers=html).text
    assert "No experiment matches" in client.get("/?search=nothing", headers=html).text
