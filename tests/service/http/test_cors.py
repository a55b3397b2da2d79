"""CORS: pages of allowed origins, and no others, use the API from a browser, with a key and without the cookie."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from models.store import keys
from models.store.states import Role
from service.http.access import SESSION_COOKIE
from tests.service.lab_of_one import BASE_URL, Filled, client_of

API = "/api/v1/experiments"
NOTEBOOKS, OTHER = "https://notebooks.example", "https://evil.example"
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
SPEC = {"model": "baseline", "epochs": 1}


@pytest.fixture
def lab(settings: Settings, filled: Filled) -> Iterator[TestClient]:
    filled.add()
    with client_of(settings.model_copy(update={"allowed_origins": [NOTEBOOKS, "http://127.0.0.1"]})) as client:
        yield client


def words(header: str) -> set[str]:
    return {word.strip().lower() for word in header.split(",")}


@pytest.mark.parametrize(
    "path", [API, f"{API}/1/cancel", "/api/v1/nothing", "/readyz", "/openapi.json", "/v2", "/v2/models/cats/infer"]
)
def test_a_preflight_of_a_named_origin_is_answered(lab: TestClient, path: str) -> None:
    answer = lab.options(path, headers={"Origin": NOTEBOOKS, **ASKING})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == NOTEBOOKS
    assert {"get", "post", "put", "delete"} <= words(answer.headers["access-control-allow-methods"])
    wanted = "authorization, x-api-key, idempotency-key, if-none-match, last-event-id, content-type"
    assert words(wanted) <= words(answer.headers["access-control-allow-headers"])
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [OTHER, "http://notebooks.example", f"{NOTEBOOKS}:8443", f"{NOTEBOOKS}.evil.example", "null", "", "https://["],
)
def test_one_of_another_is_not(lab: TestClient, origin: str) -> None:
    answer = lab.options(API, headers={"Origin": origin, **ASKING})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert lab.post(API, json=SPEC, headers={"Origin": origin or OTHER}).status_code == 403
    assert "Origin" in lab.get(API, headers={"Origin": origin}).headers["vary"]


def test_by_default_there_is_none(client: TestClient) -> None:
    assert client.options(API, headers={"Origin": NOTEBOOKS, **ASKING}).status_code == 405
    assert "vary" not in client.get("/healthz", headers={"Origin": NOTEBOOKS}).headers
    refused = client.post(API, json=SPEC, headers={"Origin": NOTEBOOKS})
    assert (refused.status_code, "EPOCHAL_ALLOWED_ORIGINS" in refused.json()["fix"]) == (403, True)


@pytest.mark.parametrize("path", ["/", "/new", "/login", "/logout", "/experiments/1", "/static/epochal.js"])
def test_pages_stay_with_this_labs_own_origin(lab: TestClient, path: str) -> None:
    assert lab.options(path, headers={"Origin": NOTEBOOKS, **ASKING}).status_code == 405
    assert "access-control-allow-origin" not in lab.get(path, headers={"Origin": NOTEBOOKS}).headers
    assert lab.post(path, headers={"Origin": NOTEBOOKS, "Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_answers_can_be_read_and_changes_made(lab: TestClient) -> None:
    headers = {"Origin": NOTEBOOKS, "Sec-Fetch-Site": "cross-site"}
    created = lab.post(API, json=SPEC, headers=headers)
    assert created.status_code == 202
    for answer in (created, lab.get(API, headers=headers), lab.get(API, headers=headers)):
        assert answer.headers["access-control-allow-origin"] == NOTEBOOKS
        assert {"location", "etag", "retry-after", "content-disposition"} <= words(
            answer.headers["access-control-expose-headers"]
        )
        assert "origin" in words(answer.headers["vary"])
    assert lab.delete(f"{API}/1", headers=headers).headers["access-control-allow-origin"] == NOTEBOOKS


def test_kept_answers_name_the_origin_of_whoever_asks_now(lab: TestClient) -> None:
    for origin in (NOTEBOOKS, OTHER, NOTEBOOKS):
        given = lab.get(API, headers={"Origin": origin}).headers.get("access-control-allow-origin")
        assert given == (NOTEBOOKS if origin == NOTEBOOKS else None)


def test_errors_can_be_read_too_those_of_the_perimeter_among_them(lab: TestClient) -> None:
    foreign_host = lab.get(API, headers={"Origin": NOTEBOOKS, "Host": "rebound.example"})
    too_large = lab.post(API, headers={"Origin": NOTEBOOKS, "Content-Length": str(10**12)}, content=b"x")
    for answer, status in (
        (foreign_host, 403),
        (too_large, 413),
        (lab.get(f"{API}/99", headers={"Origin": NOTEBOOKS}), 404),
    ):
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, NOTEBOOKS)


def test_the_cookie_of_this_labs_pages_is_not_taken_from_another_origin(settings: Settings, filled: Filled) -> None:
    filled.add()
    with filled.store.writing() as session:
        key = keys.create(session, "ada", Role.SUBMITTER)[1]
    guarded = settings.model_copy(update={"auth": True, "allowed_origins": [NOTEBOOKS, BASE_URL]})
    with client_of(guarded, follow_redirects=False) as client:
        token = client.get("/login").text.split('name="token" value="')[1].split('"')[0]
        client.post("/login", data={"key": key, "token": token, "next": "/"})
        assert SESSION_COOKIE in client.cookies
        for send in (client.get, client.post):
            assert (
                send(f"{API}/1" if send == client.get else f"{API}/1/cancel", headers={"Origin": NOTEBOOKS}).status_code
                == 401
            )
        assert client.get(f"{API}/1").status_code == 200
        assert client.post(f"{API}/1/cancel", headers={"Origin": BASE_URL}).status_code == 200  # its own, though named
        with_key = {"Origin": NOTEBOOKS, "Authorization": f"Bearer {key}"}
        assert client.get(f"{API}/1", headers=with_key).status_code == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", []),
        ("https://Notebooks.example/", [NOTEBOOKS]),
        ("https://notebooks.example:443, http://localhost:8888", [NOTEBOOKS, "http://localhost:8888"]),
        ('["http://[::1]:80"]', ["http://[::1]"]),
    ],
)
def test_the_setting_is_written_as_people_do(monkeypatch: pytest.MonkeyPatch, given: str, kept: list[str]) -> None:
    monkeypatch.setenv("EPOCHAL_ALLOWED_ORIGINS", given)
    assert Settings().allowed_origins == kept


@pytest.mark.parametrize(
    "value", ["*", "null", "notebooks.example", "https://*.example", "https://a/b", "ftp://a", "https://u@a"]
)
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EPOCHAL_ALLOWED_ORIGINS", value)
    with pytest.raises(ValueError, match="write each one out"):
        Settings()
