"""API keys, roles, rate limits, quotas, and the pages' sessions."""

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from models.store import keys
from models.store.states import Role
from service.http import access, credentials
from service.http.access import keys_needed
from tests.service.lab_of_one import SMALL, Filled, client_of, epoch, settings_in

API = "/api/v1/experiments"
OWN = {"Origin": "http://127.0.0.1"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": True, "max_queued": 2})


@pytest.fixture
def submitter(filled: Filled) -> str:
    return make_key(filled, "ada", Role.SUBMITTER)


@pytest.fixture
def viewer(filled: Filled) -> str:
    return make_key(filled, "vera", Role.VIEWER)


def make_key(filled: Filled, name: str, role: Role) -> str:
    with filled.store.writing() as session:
        return keys.create(session, name, role)[1]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys_are_optional_on_loopback_only(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert not keys_needed(settings_in(tmp_path, host=host))
        assert keys_needed(settings_in(tmp_path, host=host, auth=True))
    for host in ("0.0.0.0", "::", "192.168.1.5", "lab.example"):
        assert keys_needed(settings_in(tmp_path, host=host))


def test_nothing_is_told_to_strangers(client: TestClient, filled: Filled) -> None:
    identifier = filled.trained([epoch(1)])
    root = f"{API}/{identifier}"
    for path in (API, root, f"{root}/curves.png", f"{root}/events", "/api/v1/presets", "/metrics", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get(path, headers=bearer("epochal_wrong")).status_code == 401
    for path in (API, f"{root}/cancel", f"{root}/predictions", "/api/v1/learning-rate-tests"):
        assert client.post(path, json=SMALL).status_code == 401, path
    assert client.delete(root).status_code == 401
    for path in ("/healthz", "/static/epochal.css"):
        assert client.get(path).status_code == 200


def test_viewers_read_and_predict_and_change_nothing(client: TestClient, filled: Filled, viewer: str) -> None:
    identifier = filled.trained([epoch(1)])
    headers = bearer(viewer)
    assert client.get(API, headers=headers).status_code == 200
    assert client.get(f"{API}/{identifier}/curves.png", headers={"X-API-Key": viewer}).status_code == 200
    for answer in (
        client.post(API, json=SMALL, headers=headers),
        client.post(f"{API}/{identifier}/cancel", headers=headers),
        client.delete(f"{API}/{identifier}", headers=headers),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    files = {"image": ("a.png", b"x")}
    assert client.post(f"{API}/{identifier}/predictions", files=files, headers=headers).status_code == 409


def test_submitters_submit_up_to_their_quota(client: TestClient, filled: Filled, submitter: str) -> None:
    headers = bearer(submitter)
    first = client.post(API, json=SMALL, headers=headers)
    assert first.status_code == 202
    assert client.post(API, json=SMALL, headers=headers).status_code == 202
    third = client.post(API, json=SMALL, headers=headers)
    assert (third.status_code, third.headers["retry-after"]) == (429, "30")
    assert client.post(API, json=SMALL, headers=bearer(make_key(filled, "grace", Role.SUBMITTER))).status_code == 202
    client.post(f"{API}/{first.json()['id']}/cancel", headers=headers)
    assert client.post(API, json=SMALL, headers=headers).status_code == 202
    assert client.post(f"{API}/{first.json()['id']}/resume", headers=headers).status_code == 429


def test_what_is_stored_has_a_quota_too(settings: Settings, filled: Filled, submitter: str) -> None:
    with client_of(settings.model_copy(update={"max_queued": 9, "max_stored": 2})) as client:
        headers = bearer(submitter)
        first, _ = (client.post(API, json=SMALL, headers=headers).json()["id"] for _ in range(2))
        refused = client.post(API, json=SMALL, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, "too-many-requests")
        assert client.post(f"{API}/{first}/reproduce", headers=headers).status_code == 429
        client.post(f"{API}/{first}/cancel", headers=headers)
        assert client.post(f"{API}/{first}/resume", headers=headers).status_code == 202
        client.post(f"{API}/{first}/cancel", headers=headers)
        assert client.delete(f"{API}/{first}", headers=headers).status_code == 204
        assert client.post(API, json=SMALL, headers=headers).status_code == 202


def test_the_login_form_reads_some_kilobytes(browser: TestClient) -> None:
    for body in (b"&" * 20_000, b"key=" + b"k" * 20_000, b"a=b&" * 5000):
        answer = browser.post(
            "/login", content=body, headers={**OWN, "Content-Type": "application/x-www-form-urlencoded"}
        )
        assert answer.status_code == 413


def test_idempotency_keys_of_two_people_do_not_meet(client: TestClient, filled: Filled, submitter: str) -> None:
    other = make_key(filled, "grace", Role.SUBMITTER)
    ids = {
        client.post(API, json=SMALL, headers={**bearer(key), "Idempotency-Key": "1"}).json()["id"]
        for key in (submitter, other, submitter)
    }
    assert len(ids) == 2


def test_a_revoked_key_ends(
    client: TestClient, filled: Filled, submitter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.0)
    assert client.get(API, headers=bearer(submitter)).status_code == 200
    with filled.store.writing() as session:
        keys.revoke(session, "ada")
    assert client.get(API, headers=bearer(submitter)).status_code == 401


def test_requests_are_counted(settings: Settings, filled: Filled, submitter: str) -> None:
    with client_of(settings.model_copy(update={"requests_per_minute": 3})) as client:
        answers = [client.get(API, headers=bearer(submitter)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["retry-after"]) > 0


def test_uploads_are_counted(settings: Settings, filled: Filled, submitter: str) -> None:
    with client_of(settings.model_copy(update={"upload_mb_per_hour": 1})) as client:
        body = b'{"model": "baseline", "name": "' + b"x" * 600_000 + b'"}'
        headers = {**bearer(submitter), "Content-Type": "application/json"}
        assert client.post(API, content=body, headers=headers).status_code == 422
        assert client.post(API, content=body, headers=headers).status_code == 429


def test_guessing_keys_is_slowed_down(client: TestClient, submitter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [
        client.get(API, headers=bearer(f"guess-{n}")).status_code for n in range(access.FAILED_LOGINS_PER_MINUTE + 2)
    ]
    assert set(codes[:-2]) == {401}
    assert codes[-1] == 429
    assert client.get(API, headers=bearer(submitter)).status_code == 200  # from the same address


def test_a_key_works_as_soon_as_it_is_made(client: TestClient, filled: Filled) -> None:
    for number in range(3):
        assert client.get(API, headers=bearer("epochal_wrong")).status_code == 401
        assert client.get(API, headers=bearer(make_key(filled, f"new-{number}", Role.VIEWER))).status_code == 200


@pytest.fixture
def browser(client: TestClient) -> TestClient:
    client.headers["Accept"] = "text/html,application/xhtml+xml,*/*;q=0.8"
    client.follow_redirects = False
    return client


def log_in(browser: TestClient, key: str, **changes: str) -> int:
    page = browser.get("/login?next=/new")
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token
    form = {"key": key, "token": token[1], "next": "/new", **changes}
    answer = browser.post("/login", data=form, headers=OWN)
    if answer.status_code == 303:
        assert answer.headers["location"] == "/new"
    return answer.status_code


def test_pages_ask_for_a_key_once(browser: TestClient, filled: Filled, submitter: str) -> None:
    identifier = filled.add()
    answer = browser.get(f"/experiments/{identifier}?compare=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/login?next=%2Fexperiments%2F{identifier}%3Fcompare%3D1"
    assert log_in(browser, "epochal_wrong") == 401
    assert log_in(browser, submitter) == 303
    cookie = next(c for c in browser.cookies.jar if c.name == access.SESSION_COOKIE)
    assert submitter not in str(cookie.value)
    assert browser.get(f"/experiments/{identifier}").status_code == 200
    assert browser.get(API, headers={"Accept": "application/json"}).status_code == 200


def test_the_session_cookie_is_out_of_reach(browser: TestClient, submitter: str) -> None:
    page = browser.get("/login")
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token
    answer = browser.post("/login", data={"key": submitter, "token": token[1]}, headers=OWN)
    cookie = next(value for value in answer.headers.get_list("set-cookie") if access.SESSION_COOKIE in value).lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_login_form_from_elsewhere_is_refused(browser: TestClient, submitter: str) -> None:
    assert log_in(browser, submitter, token="forged") == 403
    forged = access.Authenticator.form_token(browser.app.state.authenticator)  # type: ignore[attr-defined]
    assert log_in(browser, submitter, token=forged) == 403  # signed here, but not for this browser


def test_a_session_changes_things_from_our_pages_only(browser: TestClient, filled: Filled, submitter: str) -> None:
    identifier = filled.add()
    assert log_in(browser, submitter) == 303
    assert browser.post(f"{API}/{identifier}/cancel").status_code == 403
    assert browser.post(f"{API}/{identifier}/cancel", headers={"Origin": "http://evil.example"}).status_code == 403
    assert browser.post(f"{API}/{identifier}/cancel", headers=OWN).status_code == 200


def test_sessions_end(browser: TestClient, filled: Filled, submitter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 0.0)
    assert log_in(browser, submitter) == 303
    assert browser.get("/").status_code == 200
    with filled.store.writing() as session:
        keys.revoke(session, "ada")
    assert browser.get("/").status_code == 303
    monkeypatch.setattr(access, "SESSION_SECONDS", -1)
    assert log_in(browser, make_key(filled, "grace", Role.SUBMITTER)) == 303
    assert browser.get("/").status_code == 303


def test_logging_out_ends_the_session_for_whoever_kept_its_cookie(
    browser: TestClient, submitter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "FRESH_SECONDS", 3600.0)  # what is known is not read again by itself
    assert log_in(browser, submitter) == 303
    kept = {"Cookie": f"{access.SESSION_COOKIE}={browser.cookies[access.SESSION_COOKIE]}"}
    assert browser.get("/", headers=kept).status_code == 200
    assert browser.post("/logout", headers=OWN).status_code == 303
    browser.cookies.clear()
    assert browser.get("/", headers=kept).status_code == 303
    assert browser.get(API, headers=kept).status_code == 401
    assert log_in(browser, submitter) == 303  # the key is as good as before


def test_a_session_outlives_a_restart(settings: Settings, browser: TestClient, submitter: str) -> None:
    assert log_in(browser, submitter) == 303
    cookie = {"Cookie": f"{access.SESSION_COOKIE}={browser.cookies[access.SESSION_COOKIE]}"}
    with client_of(settings) as again:
        assert again.get(API, headers=cookie).status_code == 200


def test_what_is_signed_or_stored_for_one_purpose_serves_no_other(browser: TestClient, submitter: str) -> None:
    page = browser.get("/login")
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token
    for value in (token[1], submitter):
        assert browser.get(API, headers={"Cookie": f"{access.SESSION_COOKIE}={value}"}).status_code == 401
    assert log_in(browser, submitter) == 303
    session = str(browser.cookies[access.SESSION_COOKIE])
    browser.cookies.clear()
    assert browser.get(API, headers=bearer(session)).status_code == 401
    assert log_in(browser, submitter, token=session) == 403


@pytest.mark.parametrize("broken", ["x", "x.y", "..", "e30.e30", "\u00e4", "a" * 4000, '"', "%00", "null", "{}"])
def test_a_damaged_cookie_is_no_session(browser: TestClient, broken: str) -> None:
    for name in (access.SESSION_COOKIE, access.FORM_COOKIE):
        cookie = f"{name}={broken}".encode("latin-1")
        assert browser.get(API, headers=[("Cookie", cookie)]).status_code == 401
        form = {"key": "k", "token": broken}
        assert browser.post("/login", data=form, headers=[("Cookie", cookie), *OWN.items()]).status_code == 403


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:x"])
def test_logging_in_leads_nowhere_else(browser: TestClient, submitter: str, target: str) -> None:
    page = browser.get("/login", params={"next": target})
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token
    answer = browser.post("/login", data={"key": submitter, "token": token[1], "next": target}, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert browser.post("/logout", headers=OWN).status_code == 303
    assert browser.get("/").status_code == 303


def test_the_secret_is_private_and_kept(settings: Settings, client: TestClient) -> None:
    path = settings.data_dir / access.SECRET_FILE
    assert path.stat().st_mode & 0o077 == 0
    before = path.read_bytes()
    with client_of(settings):
        assert path.read_bytes() == before
