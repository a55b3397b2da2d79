"""Behind proxies with a path prefix, stripped or not, every address the lab returns has the prefix."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from models.errors import EpochalError
from models.settings import Settings
from models.spec.parse import load_spec
from models.store import experiments, keys
from models.store.states import Role
from service.app import create_app
from service.cli.client import Client
from tests.service.datasets.photos import photos
from tests.service.lab_of_one import BASE_URL, Filled, LiveServer, client_of, epoch

PREFIX = "/group/epochal"
HTML = {"Accept": "text/html"}
API = "/api/v1"
LINK = re.compile(r'\b(?:href|src|action|data-(?!root)[a-z]+)="(/[^"]*)"')


def under_prefix(settings: Settings, prefix: str = PREFIX, **changes: Any) -> Settings:
    return settings.model_copy(update={"root_path": prefix, **changes})


@pytest.fixture
def prefixed(settings: Settings, filled: Filled) -> Iterator[TestClient]:
    with client_of(under_prefix(settings)) as client:
        yield client


IN_TEXT = re.compile(r"\b(?:GET|POST|PUT|PATCH|DELETE) (/[^\s<&]*)")


def addresses_in(document: Any) -> list[str]:
    """Every text in a document that begins with a slash, and every address that a message names."""
    if isinstance(document, dict):
        return [one for value in document.values() for one in addresses_in(value)]
    if isinstance(document, list):
        return [one for value in document for one in addresses_in(value)]
    if not isinstance(document, str):
        return []
    return [document] if document.startswith("/") else IN_TEXT.findall(document)


@pytest.mark.parametrize("taken_off", [True, False], ids=["prefix taken off", "prefix left"])
def test_documents_and_pages_give_addresses_under_the_prefix(
    prefixed: TestClient, filled: Filled, taken_off: bool
) -> None:
    before = "" if taken_off else PREFIX
    claim = filled.start(filled.add(tags=["a"]))
    filled.append(claim, [epoch(1)])
    finding = {"code": "c", "severity": "info", "sentence": "s", "suggestion": "POST /api/v1/learning-rate-tests it"}
    filled.judge(claim, {"summary": "s", "findings": [finding]})
    filled.settle(claim)
    found: list[str] = []
    number = claim.experiment_id
    for path in (f"{API}/experiments", f"{API}/experiments/{number}", f"{API}/experiments/{number}/verdict"):
        for _ in range(2):  # made, and then kept
            found += addresses_in(prefixed.get(before + path).json())
    for path in ("/", f"/experiments/{number}", "/new", "/docs", "/nothing", "/?tag=none"):
        answer = prefixed.get(before + path, headers=HTML)
        assert answer.headers["content-type"].startswith("text/html"), path
        assert f'data-root="{PREFIX}"' in answer.text
        found += LINK.findall(answer.text) + IN_TEXT.findall(answer.text)
    for path in (f"{API}/schema", f"{API}/presets", f"{API}/architectures", f"{API}/datasets"):
        found += addresses_in(prefixed.get(before + path).json())
    for path in (f"{API}/experiments/99", "/nothing", "/static/nothing", f"{API}/experiments?statu=x"):
        problem = prefixed.get(before + path).json()
        assert problem["type"].startswith(f"{PREFIX}/docs#")
        found += addresses_in(problem)
    assert len(found) > 60
    own = [address for address in found if address not in ("/nothing", f"{before}/nothing")]
    assert [address for address in own if not address.startswith(f"{PREFIX}/")] == []
    static = {address for address in own if "/static/" in address}
    assert len(static) == 3
    for address in (*static, f"{PREFIX}{API}/experiments/{number}/curves.png", PREFIX, f"{PREFIX}/"):
        assert prefixed.get(address).status_code == 200


def test_comparisons_warnings_studies_and_datasets_do_too(prefixed: TestClient, filled: Filled) -> None:
    first = filled.trained([epoch(number) for number in range(1, 6)])
    warned = {"code": "c", "severity": "warning", "sentence": "s", "evidence": {}, "suggestion": "GET /api/v1/presets"}
    with filled.store.writing() as session:
        original = experiments.get(session, first)
        original.warnings = [warned]
        again = experiments.create(session, load_spec(original.spec), layers=None, warnings=[], reproduces=first).id
    rows = {"base": {"model": "baseline", "epochs": 1}, "variants": [{"key": "a", "overrides": {"epochs": 2}}]}
    study = prefixed.post(f"{API}/studies", json=rows)
    dataset = prefixed.post(
        f"{API}/datasets?name=photos", content=photos(), headers={"Content-Type": "application/zip"}
    )
    test = prefixed.post(f"{API}/learning-rate-tests", json={"model": "baseline"})
    documents = [answer.json() for answer in (study, dataset, test)]
    paths = [
        f"experiments/{first}",
        f"experiments/{first}/stability?compare={again}",
        f"experiments/{again}/reproduction",
    ]
    for path in (*paths, "experiments", "studies", "datasets", "learning-rate-tests", "models", "schema"):
        answer = prefixed.get(f"{API}/{path}")
        assert answer.status_code == 200, answer.text
        documents.append(answer.json())
    for answer in (study, dataset, test):
        assert answer.headers["location"].startswith(f"{PREFIX}/")
    found = [address for document in documents for address in addresses_in(document)]
    assert f"{PREFIX}/api/v1/presets" in found, "a warning's suggestion"
    assert [address for address in found if not address.startswith(f"{PREFIX}/")] == []
    page = prefixed.get(f"/experiments/{first}", headers=HTML).text
    assert set(IN_TEXT.findall(page)) == {f"{PREFIX}/api/v1/presets"}
    for path in ("/studies", f"/studies/{study.json()['id']}", "/datasets", "/datasets/photos"):
        page = prefixed.get(path, headers=HTML).text
        links = LINK.findall(page) + IN_TEXT.findall(page)
        assert len(links) > 5, path
        assert [link for link in links if not link.startswith(f"{PREFIX}/")] == []


@pytest.mark.parametrize("ended", [True, False], ids=["replayed", "followed"])
def test_events_give_addresses_under_the_prefix_of_who_reads_them(
    settings: Settings, filled: Filled, ended: bool
) -> None:
    finding = {"code": "c", "severity": "info", "sentence": "s", "suggestion": "POST /api/v1/learning-rate-tests it"}
    claim = filled.start(filled.add())

    def work() -> None:
        filled.append(claim, [epoch(1)])
        filled.judge(claim, {"summary": "s", "findings": [finding]})
        filled.settle(claim)

    if ended:
        work()
    prefixes, readers = ("/one", "", "/two"), []
    with LiveServer(create_app(trusting_loopback(settings))) as server, contextlib.ExitStack() as open_streams:
        address = f"{server.url}{API}/experiments/{claim.experiment_id}/events"
        for prefix in prefixes:
            opened = httpx.stream("GET", address, headers={"X-Forwarded-Prefix": prefix}, timeout=30)
            lines = open_streams.enter_context(opened).iter_lines()
            assert next(lines).startswith("retry")
            readers.append(lines)
        if not ended:
            work()
        for prefix, lines in zip(prefixes, readers, strict=True):
            assert IN_TEXT.findall("\n".join(lines)) == [f"{prefix}/api/v1/learning-rate-tests"]


def test_answers_that_lead_elsewhere_lead_under_the_prefix(prefixed: TestClient) -> None:
    created = prefixed.post(f"{API}/experiments", json={"model": "baseline", "epochs": 1})
    assert created.headers["location"] == f"{PREFIX}{API}/experiments/{created.json()['id']}"
    assert prefixed.get(created.headers["location"]).status_code == 200
    test = prefixed.post(f"{API}/learning-rate-tests", json={"model": "baseline"})
    assert test.headers["location"] == f"{PREFIX}{API}/learning-rate-tests/{test.json()['id']}"
    described = prefixed.get("/openapi.json")
    assert described.json()["servers"] == [{"url": PREFIX}]
    named = IN_TEXT.findall(described.text)
    assert named
    assert [address for address in named if not address.startswith(f"{PREFIX}/")] == []
    assert f"http://127.0.0.1{PREFIX}{API}/experiments" in prefixed.get("/docs", headers=HTML).text


def test_without_a_prefix_nothing_changes(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/"}]
    assert 'href="/new"' in client.get("/", headers=HTML).text


def test_the_session_is_kept_and_forgotten_under_the_prefix(settings: Settings, filled: Filled) -> None:
    with filled.store.writing() as session:
        key = keys.create(session, "ada", Role.SUBMITTER)
    with client_of(under_prefix(settings, auth=True), follow_redirects=False) as client:
        sent = client.get("/experiments/1?compare=2", headers=HTML)
        assert sent.status_code == 303
        assert sent.headers["location"].startswith(f"{PREFIX}/login?next={PREFIX.replace('/', '%2F')}%2Fexperiments")
        form = client.get(sent.headers["location"])
        token = form.text.split('name="token" value="')[1].split('"')[0]
        target = form.text.split('name="next" value="')[1].split('"')[0]
        assert target == f"{PREFIX}/experiments/1?compare=2"
        entered = client.post(f"{PREFIX}/login", data={"key": key, "token": token, "next": target})
        assert (entered.status_code, entered.headers["location"]) == (303, target)
        cookies = entered.headers.get_list("set-cookie")
        assert len(cookies) == 2
        assert all(f"Path={PREFIX};" in f"{cookie};" for cookie in cookies)
        assert client.get(f"{PREFIX}/").status_code == 200
        left = client.post(f"{PREFIX}/logout", headers={"Origin": BASE_URL})
        assert left.headers["location"] == f"{PREFIX}/login"
        assert f"Path={PREFIX}" in left.headers["set-cookie"]
        assert client.get(f"{PREFIX}/", headers=HTML).status_code == 303


@pytest.mark.parametrize("target", ["//evil.example/x", "/\\evil.example", "https://evil.example", "", "x"])
def test_nobody_is_sent_elsewhere_after_logging_in(prefixed: TestClient, target: str) -> None:
    sent = prefixed.get("/login", params={"next": target}, follow_redirects=False)
    assert sent.headers["location"] == f"{PREFIX}/"


@pytest.mark.parametrize("prefix", ["/experiments", "/static", "/docs", "/new/docs"])
def test_a_prefix_that_is_named_like_a_path_of_the_lab(settings: Settings, filled: Filled, prefix: str) -> None:
    number = filled.add()
    with client_of(under_prefix(settings, prefix)) as client:
        for before in ("", prefix):
            links = client.get(f"{before}{API}/experiments/{number}").json()["links"]
            assert links["self"] == f"{prefix}{API}/experiments/{number}"
            assert client.get(links["self"]).status_code == 200
            assert client.get(links["page"], headers=HTML).status_code == 200
            assert client.get(f"{before}/docs", headers=HTML).status_code == 200
            assert client.get(f"{before}/static/epochal.css").status_code == 200


@pytest.mark.parametrize("path", ["/groupie/new", "/group", "/group/epochalx/new", "/new/group/epochal"])
def test_what_only_looks_like_the_prefix_is_none(prefixed: TestClient, path: str) -> None:
    assert prefixed.get(path).status_code == 404


def trusting_loopback(settings: Settings) -> Settings:
    return settings.model_copy(update={"trusted_proxies": ["127.0.0.1"]})


def forwarded(app: Any, value: str | list[str], peer: str = "127.0.0.1") -> str:
    """The prefix that a problem's type shows to somebody at an address."""
    client = TestClient(app, base_url=BASE_URL, client=(peer, 4000))  # starts nothing: no part of the lab is asked
    values = [value] if isinstance(value, str) else value
    answer = client.get("/nothing", headers=[("X-Forwarded-Prefix", one) for one in values])
    return str(answer.json()["type"]).removesuffix("/docs#not-found")


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("/epochal", "/epochal"),
        ("epochal/", "/epochal"),
        ("/outer, /inner", "/outer/inner"),
        (["/outer", "/inner"], "/outer/inner"),
        ("", ""),
        ("/", ""),
        ("//evil.example", ""),
        ("/a/../b", ""),
        ('/"><script>', ""),
        ("/a;Path=/", ""),
        ("/api", ""),
        ("/" + "a" * 300, ""),
    ],
)
def test_a_trusted_proxy_states_the_prefix(settings: Settings, value: str | list[str], prefix: str) -> None:
    assert forwarded(create_app(trusting_loopback(settings)), value) == prefix


def test_nobody_else_does(settings: Settings) -> None:
    settings = trusting_loopback(settings)
    assert forwarded(create_app(settings), "/epochal", peer="192.0.2.7") == ""
    near = create_app(settings.model_copy(update={"trusted_proxies": ["192.0.2.0/24"]}))
    assert forwarded(near, "/epochal", peer="192.0.2.7") == "/epochal"
    assert forwarded(near, "/epochal", peer="::ffff:192.0.2.7") == "/epochal"
    assert forwarded(near, "/epochal", peer="127.0.0.1") == ""
    assert forwarded(create_app(settings.model_copy(update={"trusted_proxies": []})), "/epochal") == ""


def test_kept_answers_are_not_told_to_readers_under_another_prefix(settings: Settings, filled: Filled) -> None:
    number = filled.add()
    with client_of(trusting_loopback(settings), client=("127.0.0.1", 4000)) as near:
        for prefix in ("", "/one", "/two", "/one"):
            headers = {"X-Forwarded-Prefix": prefix}
            for path in (f"{API}/experiments/{number}", f"{API}/experiments"):
                document = near.get(path, headers=headers).json()
                item = document["items"][0] if "items" in document else document
                assert item["links"]["page"] == f"{prefix}/experiments/{number}"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("", ""), ("/", ""), ("epochal", "/epochal"), ("/epochal/", "/epochal"), ("/a/b.c_d~e-1", "/a/b.c_d~e-1")],
)
def test_the_setting_is_written_as_people_do(monkeypatch: pytest.MonkeyPatch, given: str, kept: str) -> None:
    monkeypatch.setenv("EPOCHAL_ROOT_PATH", given)
    assert Settings().root_path == kept


@pytest.mark.parametrize("value", ["/a b", "/..", "/a/./b", "/a//b", "https://x/y", "/api/v1", "/x?y", "/\u00e9"])
def test_a_prefix_that_cannot_be_meant_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EPOCHAL_ROOT_PATH", value)
    with pytest.raises((ValueError, EpochalError), match="write"):
        Settings()


def test_commands_use_a_lab_by_its_address_behind_a_proxy(settings: Settings, filled: Filled) -> None:
    number = filled.trained([epoch(1)])
    with LiveServer(create_app(under_prefix(settings))) as server, Client(f"{server.url}{PREFIX}/") as lab:
        assert lab.get(f"/experiments/{number}")["links"]["self"] == f"{PREFIX}{API}/experiments/{number}"
        assert lab.get_bytes(f"/experiments/{number}/metrics.csv").startswith(b"epoch,")
        assert [event.kind for event in lab.events(f"/experiments/{number}/events", None)][-1] == "end"
