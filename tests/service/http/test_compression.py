"""Compressible answers are sent as gzip to clients that accept it, with correct headers and the same content."""

import gzip
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from models.store.states import ArtifactKind
from service.app import create_app
from service.http.compression import plain_tag
from tests.service.lab_of_one import Filled, LiveServer, client_of, epoch, settings_in

API = "/api/v1/experiments"
GZIP, PLAIN = {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "identity"}
FORMS = {"gzip": GZIP, "plain": PLAIN}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A lab with a long experiment, number 1, that tests do not change."""
    filled = Filled(settings_in(tmp_path_factory.mktemp("compression")))
    claim = filled.start(filled.add())
    filled.append(claim, [epoch(number) for number in range(1, 60)])
    filled.keep(claim, ArtifactKind.KERNELS, {"kernels": np.ones((59, 4, 3, 5, 5), np.float32)}, {})
    filled.settle(claim)
    with client_of(filled.settings) as client:
        yield client
    filled.store.dispose()


@pytest.mark.parametrize(
    "path",
    [
        API,
        f"{API}/1",
        f"{API}/1/metrics",
        f"{API}/1/metrics.csv",
        f"{API}/1/curves.svg",
        f"{API}/1/kernels.json?epoch=last",
        f"{API}/1/layers",
        "/api/v1/schema",
        "/openapi.json",
        "/metrics",
        "/",
        "/experiments/1",
        "/new",
        "/docs",
        "/static/epochal.css",
        "/static/epochal.js",
    ],
)
def test_text_is_compressed_for_whoever_accepts_it(lab: TestClient, path: str) -> None:
    plain = lab.get(path, headers=PLAIN)
    assert plain.status_code == 200
    assert "content-encoding" not in plain.headers
    for _ in range(2):  # made, and then perhaps kept
        with lab.stream("GET", path, headers=GZIP) as answer:
            raw = b"".join(answer.iter_raw())
        if len(plain.content) < 1000:
            assert "content-encoding" not in answer.headers
            continue
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) == len(raw) < 0.6 * len(plain.content)
        if path != "/metrics":  # it counts requests
            assert gzip.decompress(raw) == plain.content
        for one in (answer, plain):
            assert "Accept-Encoding" in one.headers["vary"]
        assert plain_tag(answer.headers.get("etag", "")) == plain.headers.get("etag", "")


@pytest.mark.parametrize("path", [f"{API}/1/curves.png", f"{API}/1/kernels.png?epoch=last", "/healthz", f"{API}/99"])
def test_pixels_and_short_answers_are_not(lab: TestClient, path: str) -> None:
    assert "content-encoding" not in lab.get(path, headers=GZIP).headers


@pytest.mark.parametrize("path", [f"{API}/1/metrics.csv", f"{API}/1/curves.svg", "/static/epochal.css"])
def test_one_tag_stands_for_both_forms(lab: TestClient, path: str) -> None:
    tag = lab.get(path, headers=GZIP).headers["etag"]
    assert tag.startswith("W/")  # a strong one would claim that the bytes are the same
    for headers in (GZIP, PLAIN):
        for given in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
            answer = lab.get(path, headers={**headers, "If-None-Match": given})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag
            assert "Accept-Encoding" in answer.headers["vary"]
            assert "content-encoding" not in answer.headers


def test_a_strong_tag_is_another_one_for_the_compressed_form(lab: TestClient) -> None:
    tags = {name: lab.get(f"{API}/1", headers=headers).headers["etag"] for name, headers in FORMS.items()}
    assert tags["plain"][0] == '"'
    assert tags["gzip"] == f'{tags["plain"][:-1]}-gzip"'
    for tag in tags.values():
        for headers in FORMS.values():
            assert lab.get(f"{API}/1", headers={**headers, "If-None-Match": tag}).status_code == 304


def test_answers_that_depend_on_two_headers_name_both(lab: TestClient) -> None:
    for path in (f"{API}/1/metrics", f"{API}/1/metrics.csv"):
        assert lab.get(path, headers=GZIP).headers["vary"] == "Accept, Accept-Encoding"


def test_a_head_request_tells_of_the_form_that_would_be_sent(lab: TestClient) -> None:
    answer = lab.head(f"{API}/1/metrics", headers=GZIP)
    with lab.stream("GET", f"{API}/1/metrics", headers=GZIP) as whole:
        assert int(answer.headers["content-length"]) == len(b"".join(whole.iter_raw()))
    assert answer.headers["content-encoding"] == "gzip"


def test_kept_answers_are_not_compressed_again(lab: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        API,
        f"{API}/1/metrics.csv",
        f"{API}/1/curves.svg",
        f"{API}/1/kernels.json?epoch=last",
        "/static/epochal.css",
    ]
    first = [lab.get(path, headers=GZIP).content for path in paths]

    def refuse(data: bytes) -> bytes:
        raise AssertionError("compressed again")

    for module in ("compression", "rendered"):
        monkeypatch.setattr(f"service.http.{module}.compress", refuse)
    assert [lab.get(path, headers=GZIP).content for path in paths] == first


def test_a_form_with_a_secret_is_not_compressed_beside_what_a_stranger_chose(settings: Settings) -> None:
    with client_of(settings.model_copy(update={"auth": True})) as client:
        form = client.get("/login", params={"next": "/" + "a" * 400}, headers=GZIP)
        assert 'name="token"' in form.text
        assert "content-encoding" not in form.headers


def test_event_streams_begin_at_once_and_are_not_compressed(settings: Settings, filled: Filled) -> None:
    number = filled.add()
    with (
        LiveServer(create_app(settings)) as server,
        httpx.stream("GET", f"{server.url}{API}/{number}/events?after=999", headers=GZIP, timeout=10) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in stream.headers


def test_what_pages_load_is_kept_for_good_under_the_address_of_its_contents(lab: TestClient) -> None:
    address = lab.get("/").text.split('rel="stylesheet" href="')[1].split('"')[0]
    assert "immutable" in lab.get(address).headers["cache-control"]
    for other in (address.partition("?")[0], address[:-1]):
        assert lab.get(other).headers["cache-control"] == "private, no-cache"
