"""The cost and size of an answer are bounded, whatever was sent."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from models.errors import EpochalError, SpecError
from models.settings import Settings
from models.spec import explain as explaining
from models.spec.parse import parse_spec
from models.store import keys
from models.store.states import Role
from service.http import routing
from service.http.body import MAX_YAML_VALUES, parse_json, parse_yaml
from service.http.errors import MAX_PROBLEM_BYTES, problem_document
from service.http.uploads import PARSED_AT_ONCE, read_images
from tests.service.lab_of_one import Filled, client_of

API = "/api/v1/experiments"
PATHS = ("/", "/new", "/docs", "/openapi.json", API, f"{API}/1", f"{API}/1/events", "/api/v1/presets", "/metrics")


@pytest.mark.parametrize("path", PATHS)
def test_strangers_are_told_nothing_about_parameters(settings: Settings, filled: Filled, path: str) -> None:
    with filled.store.writing() as session:
        _, key = keys.create(session, "ada", Role.VIEWER)
    with client_of(settings.model_copy(update={"auth": True}), follow_redirects=False) as client:
        for query in ("aaa", "a=1&a=2", "&".join(f"a{n}" for n in range(8000))):
            answer = client.get(f"{path}?{query}")
            assert answer.status_code in (401, 303)
            assert len(answer.content) + len(str(answer.headers)) < 4000
            assert client.get(f"{path}?{query}", headers={"X-API-Key": key}).status_code == 422


@pytest.mark.parametrize("path", ["/", API, "/healthz", "/login", "/api/v1/schema"])
def test_a_query_of_thousands_is_counted_and_not_looked_at(
    steady: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses: list[str] = []
    monkeypatch.setattr(routing, "get_close_matches", lambda name, *rest, **more: guesses.append(name) or [])
    answer = steady.get(f"{path}?" + "&".join(f"a{n}" for n in range(8000)))
    assert answer.status_code == 422
    assert "8,000 parameters" in answer.json()["detail"]
    assert guesses == []
    answer = steady.get(f"{path}?" + "&".join(f"a{n}" for n in range(60)))
    assert answer.status_code == 422
    assert len(guesses) == routing.MOST_GUESSES
    assert len(answer.content) <= MAX_PROBLEM_BYTES


@pytest.mark.parametrize("path", ["/?sort=id&sort=name", f"{API}?limit=1&limit=2", f"{API}?tag=a&tag=a"])
def test_a_parameter_that_is_given_twice_is_refused_by_name(steady: TestClient, path: str) -> None:
    answer = steady.get(path)
    assert answer.status_code == 422
    name = path.partition("?")[2].partition("=")[0]
    assert answer.json()["errors"] == [{"field": name, "message": "is given 2 times; give it once"}]


@pytest.mark.parametrize(
    "body",
    [
        {"model": "baseline", **{f"k{n}": 1 for n in range(15_000)}},
        {"model": "baseline", "optimizer": {"name": "sgd", **{f"k{n}": 1 for n in range(15_000)}}},
        {"model": "baseline", **{f"k{n}": 1 for n in range(150)}},
        {"model": {"name": "cnn", "blocks": [{f"k{n}": 1 for n in range(100)}] * 8}},
        {"model": "baseline", "class_weights": ["x"] * 15_000},
        {"model": "baseline", "tags": [1] * 15_000},
    ],
)
def test_a_spec_full_of_mistakes_is_explained_in_part(body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_for: list[Any] = []
    explain_one = explaining._explain_unknown_key
    monkeypatch.setattr(
        explaining, "_explain_unknown_key", lambda *given: looked_for.append(given) or explain_one(*given)
    )
    with pytest.raises(SpecError) as caught:
        parse_spec(body)
    assert len(looked_for) <= explaining.MOST_GUESSES
    assert len(caught.value.errors) <= explaining.MOST_ENTRIES + 2


def test_what_is_too_much_is_refused_before_it_is_read(steady: TestClient) -> None:
    for data in (b"[" + b"1," * 490_000 + b"1]", b"{" + b'"a":1,' * 140_000 + b'"a":1}'):
        with pytest.raises(EpochalError, match="more than 20,000 values"):
            parse_json(data)
    for data in (b"- a\n" * 40_000, b"[" + b"a," * 90_000 + b"a]", b"a: |\n" + b" x\n" * 60_000):
        with pytest.raises(EpochalError, match=f"more than {MAX_YAML_VALUES:,}"):
            parse_yaml(data)


def test_a_long_key_is_not_written_out_for_each_of_its_values() -> None:
    """A key of half a megabyte over ten thousand values was gigabytes of places."""
    document = {"k" * 500_000: list(range(10_000))}
    assert parse_json(json.dumps(document).encode()) == document
    with pytest.raises(EpochalError) as caught:
        parse_json(json.dumps({"k" * 500_000: [1 << 70]}).encode())
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    "extra",
    [
        {"errors": [{"field": "\u00e4" * 10_000, "message": "m" * 10_000}] * 200},
        {"checks": {str(n): "x" * 1000 for n in range(1000)}},
        {"choices": ["x" * 100_000]},
        {"nested": [[["x" * 1000] * 100] * 100] * 10},
    ],
)
def test_every_problem_has_a_bounded_size(extra: dict[str, Any]) -> None:
    document = problem_document(EpochalError("d" * 100_000, fix="f" * 100_000, **extra))
    assert len(json.dumps(document)) <= MAX_PROBLEM_BYTES
    assert {"type", "title", "status", "detail", "code", "fix"} <= document.keys()


def test_long_names_are_quoted_in_part(steady: TestClient) -> None:
    for answer in (
        steady.get("/" + "a" * 50_000),
        steady.put("/" + "a" * 50_000),
        steady.get(f"{API}/" + "9" * 50_000),
        steady.get(f"{API}?" + "a" * 15_000),
        steady.get(API, headers={"Host": "h" * 50_000}),
        steady.post(API, json={"model": "m" * 500_000}),
        steady.post(API, json={"m" * 500_000: 1}),
        steady.post(API, content=b"{}", headers={"Content-Type": "x" * 50_000}),
        steady.post(API, json={}, headers={"Origin": "http://" + "o" * 50_000}),
        steady.get(f"{API}/1/events", headers={"Last-Event-ID": "9" * 50_000}),
    ):
        assert 400 <= answer.status_code < 500
        assert len(answer.content) <= MAX_PROBLEM_BYTES, answer.text[:300]


def test_the_event_loop_goes_on_while_a_long_upload_is_parsed() -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    image = b"\r\n-" * (10 * PARSED_AT_ONCE // 3)
    rounds = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": head + image + b"\r\n--x--\r\n", "more_body": False}

    async def others() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def upload() -> None:
        elsewhere = asyncio.create_task(others())
        headers = [(b"content-type", b"multipart/form-data; boundary=x")]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        (found,) = await read_images(request, lambda num_bytes: None, 100_000_000)
        elsewhere.cancel()
        assert found.data == image

    asyncio.run(upload())
    assert rounds >= 10
