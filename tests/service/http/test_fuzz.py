"""Fuzzing: no random path, query, header, cookie or body of any route causes a status of 500.

The routes are those of the OpenAPI document and the pages. A short run by default, the same one every time;
`make fuzz` tries many more, each time others.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from models.store import keys
from models.store.listing import SORTS
from models.store.states import Role
from service.app import create_app
from service.http.access import FORM_COOKIE, SESSION_COOKIE
from service.http.errors import MAX_PROBLEM_BYTES, PROBLEM_TYPE
from tests.service.lab_of_one import Filled, LiveServer, client_of, epoch, read_all, settings_in
from tests.service.predictions.trained import Lab

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
PAGES = [
    ("GET", path)
    for path in (
        "/",
        "/experiments/{id}",
        "/new",
        "/datasets",
        "/datasets/{name}",
        "/docs",
        "/login",
        "/openapi.json",
        "/static/x",
    )
]
FORMS = [("POST", "/login"), ("POST", "/logout"), ("POST", "/datasets"), ("POST", "/api/v1/uploads/{id}")]
ENDED = "1"
KNOWN = {"experiment_id": ENDED, "id": ENDED, "name": "cats", "version": "1", "split": "validation", "index": "0"}
"""Values of placeholders in paths for which there is something to answer; "1" for all others."""
PATIENT = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES < 100,
    suppress_health_check=list(HealthCheck),
)

NASTY = [
    *("", "\0", "\n", "\r\nX: y", "\x1b[2J", "\u202e", "..", "../../etc/passwd", "%00", "%", "%0a", "[", "{}", "[]"),
    *("null", "true", "NaN", "-1", "0", "1", "2", "1e999", "9" * 30, "9" * 400, "9" * 5000, "-" * 400, "best", "last"),
    *("http://[", "http://a]b", "http://127.0.0.1", "https://127.0.0.1:0", "//x", "a" * 3000, "\u00e4", "\U0001f600"),
    *(
        "application/json",
        "application/yaml",
        "text/html",
        "text/html;q=x",
        "*/*;q=0",
        "image/png",
        "multipart/form-data",
    ),
    *(
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json; charset=x",
        "bytes=0-",
    ),
    *("1,2,3", ",", ";", "=", '"', 'W/"', "*", "gzip", "gzip;q=nan", "e30.e30", "Bearer", "Bearer ", "Basic e30="),
    *("features.0", "created", "val_loss.best", "asc", "completed", "seconds", "same-origin", "1.2.3.4", "[::1]:x"),
]
words = st.sampled_from(NASTY) | st.text(max_size=40) | st.integers().map(str) | st.floats().map(str)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
cursors = st.tuples(st.sampled_from(SORTS), st.booleans(), plain, plain).map(
    lambda found: base64.urlsafe_b64encode(json.dumps(found).encode()).decode().rstrip("=")
)
values = words | cursors
HEADERS = [
    *("tus-resumable", "upload-length", "upload-offset", "upload-metadata", "x-http-method-override"),
    *(
        "accept",
        "accept-encoding",
        "authorization",
        "content-type",
        "cookie",
        "host",
        "idempotency-key",
        "if-none-match",
    ),
    *("last-event-id", "origin", "referer", "sec-fetch-site", "x-api-key", "x-forwarded-for", "x-forwarded-proto"),
    *(
        "x-forwarded-prefix",
        "x-forwarded-host",
        "forwarded",
        "access-control-request-method",
        "range",
        "content-length",
    ),
]
cookies = st.builds("{}={}".format, st.sampled_from([SESSION_COOKIE, FORM_COOKIE, "x", ""]), values)
headers = st.lists(st.tuples(st.sampled_from(HEADERS), values) | st.tuples(st.just("cookie"), cookies), max_size=4)
PARTS = [
    "model",
    "optimizer",
    "dataset",
    "preset",
    "epochs",
    "lr_scheduler",
    "class_weights",
    "augmentation",
    "lr_min",
    "x",
]
documents = st.dictionaries(
    st.sampled_from(PARTS) | words, plain | st.dictionaries(words, plain, max_size=3), max_size=5
)
bodies = st.one_of(
    st.binary(max_size=300),
    documents.map(lambda document: json.dumps(document).encode()),
    words.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.dictionaries(st.sampled_from(["key", "token", "next", "x"]), words, max_size=3).map(
        lambda form: urlencode(form, errors="surrogatepass").encode()
    ),
    st.tuples(words, words, st.binary(max_size=60)).map(
        lambda part: (
            f'--x\r\nContent-Disposition: form-data; name="{part[0]}"; filename="{part[1]}"\r\n\r\n'.encode(
                "utf-8", "surrogatepass"
            )
            + part[2]
            + b"\r\n--x--\r\n"
        )
    ),
)


class Fuzzed:
    """The application, asked past every HTTP library."""

    def __init__(self, client: TestClient, key: str) -> None:
        self.client = client
        self.key = key

    def ask(
        self, method: str, path: str, query: str, given_headers: list[tuple[str, str]], body: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the answer."""
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in given_headers]
        names = {name for name, _ in raw}
        usual = {b"host": b"127.0.0.1", b"x-api-key": self.key.encode(), b"content-type": b"application/json"}
        if not names & {b"authorization", b"cookie", b"x-api-key"}:
            names.discard(b"x-api-key")
        raw += [(name, value) for name, value in usual.items() if name not in names]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": raw,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        incoming = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop() if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        assert self.client.portal is not None
        self.client.portal.call(self.client.app, scope, receive, send)  # type: ignore[arg-type]
        answer = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], dict(sent[0]["headers"]), answer


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    changes: dict[str, Any] = {"auth": True, "trusted_proxies": ["127.0.0.1"], "requests_per_minute": 10**9}
    filled = Filled(settings_in(tmp_path_factory.mktemp("fuzzed"), **changes))
    first = Lab(filled.store, filled.settings).train()
    assert str(first.id) == ENDED
    filled.append(first.claim, [epoch(1), epoch(2)])
    filled.settle(first.claim)
    filled.trained([epoch(1)], name="second")
    yield filled
    filled.store.dispose()


@pytest.fixture(scope="module")
def fuzzed(filled: Filled) -> Iterator[Fuzzed]:
    with filled.store.writing() as session:
        _, key = keys.create(session, "fuzz", Role.SUBMITTER)
    with client_of(filled.settings) as client:
        yield Fuzzed(client, key)


def operations() -> list[tuple[str, str]]:
    """Every method and path that the lab describes, and its pages."""
    paths = create_app(settings_in(Path("/nowhere"))).openapi()["paths"]
    described = [(method.upper(), path) for path, found in paths.items() for method in found]
    return [*described, *PAGES, *FORMS]


def query_names() -> list[str]:
    """Every query parameter that some route knows."""
    paths = create_app(settings_in(Path("/nowhere"))).openapi()["paths"]
    found = {
        parameter["name"]
        for path in paths.values()
        for operation in path.values()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "query"
    }
    return sorted({*found, "next", "preset", "x"} - {"dry_run"})


QUERY_NAMES = query_names()
queries = st.lists(st.tuples(st.sampled_from(QUERY_NAMES), values), max_size=3)


@pytest.mark.parametrize(("method", "path"), operations())
def test_no_request_is_a_fault_of_the_server(fuzzed: Fuzzed, method: str, path: str) -> None:
    body = json.dumps({"experiment_id": int(ENDED)}).encode()
    assert fuzzed.ask("PUT", "/api/v1/models/cats", "", [], body)[0] in (200, 201)
    follows = path.endswith("/events")  # of an experiment that has ended: others have no end

    @PATIENT
    @given(st.data(), queries, headers, bodies)
    def answers(data: st.DataObject, query: list[tuple[str, str]], given_headers: Any, body: bytes) -> None:
        def fill(placeholder: re.Match[str]) -> str:
            known = KNOWN.get(placeholder[1], "1")
            chosen = known if follows or data.draw(st.booleans()) else data.draw(values)
            return quote(chosen, "", errors="surrogatepass")

        place = re.sub(r"{(.*?)}", fill, path)
        text = urlencode(query, errors="surrogatepass")
        status, answered, content = fuzzed.ask(method, place, text, given_headers, body)
        assert status < 500 or status in (503, 507), (status, content[:500])
        if answered.get(b"content-type", b"").startswith(PROBLEM_TYPE.encode()):
            assert len(content) <= MAX_PROBLEM_BYTES
            assert json.loads(content)["status"] == status

    answers()


def test_no_bytes_on_a_connection_are_a_fault_of_the_server(filled: Filled) -> None:
    with LiveServer(create_app(filled.settings)) as server:

        @PATIENT
        @given(
            st.sampled_from([b"", b"GET /login HTTP/1.1\r\n", b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\n"]),
            st.lists(st.binary(max_size=60) | st.sampled_from(NASTY).map(lambda text: text.encode()), max_size=6),
            st.sampled_from([b"\r\n", b": ", b"\n"]),
        )
        def answers(start: bytes, lines: list[bytes], between: bytes) -> None:
            with server.connect() as connection:
                connection.sendall(start + between.join(lines) + b"\r\n\r\n")
                connection.shutdown(1)
                assert b"HTTP/1.1 5" not in read_all(connection)

        answers()
