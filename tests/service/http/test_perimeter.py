"""Slow, endless, malformed and cross-origin requests, over real connections."""

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.testclient import TestClient

from models.settings import Settings
from service.app import create_app
from service.http import perimeter as limits
from service.http import protocol
from service.http.protocol import GuardedProtocol
from tests.processes import wait_until
from tests.service.lab_of_one import Filled, LiveServer, client_of, read_all, settings_in

API = "/api/v1/experiments"
HEAD = "POST /api/v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


class Impatient(GuardedProtocol):
    """As the real one, with less patience."""

    head_seconds = 0.5


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr(limits, "BODY_GRACE_SECONDS", 0.7)
    with LiveServer(create_app(settings), http=Impatient) as server:
        yield server


def problem_in(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, answer
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % problem["status"])
    return dict(problem)


@pytest.mark.parametrize(
    "start", [b"", b"\r\n\r\n", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "]
)
def test_a_head_that_does_not_come_is_not_waited_for(server: LiveServer, start: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(start)
        assert problem_in(read_all(connection))["code"] == "request-timeout"


def test_a_head_that_drips_meets_the_same_deadline(server: LiveServer) -> None:
    with server.connect() as connection:
        stop = threading.Event()

        def drip() -> None:
            try:
                connection.sendall(b"GET /healthz HTTP/1.1\r\n")
                while not stop.wait(0.05):
                    connection.sendall(b"X-A: b\r\n")
            except OSError:
                return

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert problem_in(read_all(connection))["code"] == "request-timeout"
        stop.set()
        dripping.join()


def test_a_second_request_that_stalls_is_ended_too(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = b""
        while not answer.endswith(b'"ok"}'):
            answer += connection.recv(65536)
        connection.sendall(b"GET /healthz HT")
        assert problem_in(read_all(connection))["code"] == "request-timeout"


def test_a_body_that_drips_is_ended(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD.encode() + b"Content-Length: 1000\r\n\r\n{")
        answer = read_all(connection)
        assert problem_in(answer)["code"] == "request-timeout"
        assert b"connection: close" in answer


def test_a_content_length_that_lies_is_ended(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD.encode() + b'Content-Length: 200\r\n\r\n{"model": "baseline"}')
        assert problem_in(read_all(connection))["code"] == "request-timeout"
    with server.connect() as connection:
        connection.sendall(HEAD.encode() + b'Content-Length: 5\r\n\r\n{"model": "baseline"}')
        assert b"HTTP/1.1 4" in read_all(connection)
    for both in (b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: 5\r\nContent-Length: 6"):
        with server.connect() as connection:
            connection.sendall(HEAD.encode() + both + b"\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")
            assert problem_in(read_all(connection))["status"] == 400


def test_a_huge_head_is_cut_off(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000)
        assert problem_in(read_all(connection))["status"] == 431


@pytest.mark.parametrize("chunk", [b"1\r\n \r\n", b"1;" + b"a" * 1000 + b"\r\n \r\n"])
def test_a_flood_of_tiny_chunks_is_cut_off(server: LiveServer, chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_BYTES", 3_000_000)
    with server.connect() as connection:
        connection.sendall(HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        send_until_it_is_cut_off(connection, chunk * 500)


def test_an_endless_body_is_cut_off_at_the_cap(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_BYTES", 3_000_000)
    small = settings.model_copy(update={"max_upload_mb": 1})
    with LiveServer(create_app(small)) as server, server.connect() as connection:
        connection.sendall(
            f"POST {API}/1/predictions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        send_until_it_is_cut_off(connection, b"10000\r\n" + b"a" * 65536 + b"\r\n")


def send_until_it_is_cut_off(connection: socket.socket, data: bytes) -> None:
    """Ends with a reset or a broken pipe, as it comes; else the test meets its timeout."""
    try:
        while True:
            connection.sendall(data)
    except (ConnectionResetError, BrokenPipeError):
        return


def test_the_lab_answers_others_meanwhile(server: LiveServer) -> None:
    slow = [server.connect() for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(HEAD.encode() + b"Content-Length: 1000\r\n\r\n{")
        assert httpx.get(f"{server.url}/healthz").status_code == 200
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.parametrize("framing", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
def test_a_client_that_sends_all_before_it_reads_gets_the_answer(settings: Settings, framing: str) -> None:
    """Sent slowly, and read only when everything has been sent: whatever the machine does meanwhile."""
    small = settings.model_copy(update={"max_upload_mb": 1})
    with LiveServer(create_app(small)) as server, server.connect() as connection:
        connection.sendall(HEAD.replace(API, f"{API}/1/predictions").encode() + f"{framing}\r\n\r\n".encode())
        connection.recv(1, socket.MSG_PEEK)  # it has been answered by now
        for _ in range(20):
            chunk = b"a" * 1_000_000
            connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk) if "chunked" in framing else chunk)
        assert problem_in(read_all(connection))["status"] in (413, 415)


def test_lingering_is_bounded(settings: Settings) -> None:
    class Brief(GuardedProtocol):
        linger_silence_seconds = 0.3

    with LiveServer(create_app(settings), http=Brief) as server, server.connect() as connection:
        connection.sendall(HEAD.replace("json", "nothing").encode() + b"Content-Length: 900000\r\n\r\n{")
        assert problem_in(read_all(connection))["status"] == 415
        wait_until(lambda: not server.server.server_state.connections)


def test_a_head_of_64_kb_is_read_and_no_larger_one(server: LiveServer) -> None:
    def ask(num_bytes: int) -> bytes:
        with server.connect() as connection:
            head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
            connection.sendall(head + b"a" * (num_bytes - len(head) - 4) + b"\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(65536)
            return answer

    assert ask(65_000).startswith(b"HTTP/1.1 200")
    for size in (66_500, 100_000, 240_000):
        assert ask(size).startswith(b"HTTP/1.1 431")


def test_trailers_are_no_headers(server: LiveServer) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD.encode() + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"2\r\n{}\r\n0\r\nOrigin: http://evil.example\r\n\r\n")
        assert problem_in(read_all(connection))["status"] == 422


def test_pipelined_requests_are_answered_one_after_the_other(server: LiveServer) -> None:
    paths = [f"/{number}" for number in range(100)]
    requests = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" for path in paths]
    with server.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=("".join(requests).encode(),))
        sending.start()
        answers = b""
        while b"there is no resource at /99" not in answers:
            piece = connection.recv(65536)
            assert piece
            answers += piece
        sending.join()
    assert re.findall(rb"there is no resource at (/[0-9]+)", answers) == [path.encode() for path in paths]


def test_a_pipelined_request_may_have_a_body_and_come_in_pieces(server: LiveServer) -> None:
    healthz, post = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", HEAD.encode() + b"Content-Length: 2\r\n\r\n{}"
    data = healthz + post + healthz + post + healthz.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for size in (1, 7, 61, len(data)):
        with server.connect() as connection:
            for start in range(0, len(data), size):
                connection.sendall(data[start : start + size])
            answers = read_all(connection)
        assert re.findall(rb"HTTP/1.1 ([0-9]{3})", answers) == [b"200", b"422", b"200", b"422", b"200"]


def test_so_many_requests_may_wait_behind_one_with_a_body(server: LiveServer) -> None:
    post = HEAD.encode() + b"Content-Length: 2\r\n\r\n{}"
    with server.connect() as connection:
        connection.sendall(post * 10)
        answers = b""
        while answers.count(b"HTTP/1.1 422") < 10:
            answers += connection.recv(65536)
    with server.connect() as connection:
        connection.sendall(post * 1000)
        assert read_all(connection).count(b"HTTP/1.1 422") <= protocol.MAX_PIPELINED + 1


def test_a_stream_with_a_request_behind_it_ends_with_its_connection(
    settings: Settings, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings)
    number = filled.add()
    with LiveServer(app) as server:
        with server.connect() as connection:
            for path in (f"{API}/{number}/events", "/healthz"):
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert connection.recv(100)
            wait_until(lambda: app.state.live.num_streams == 1)
        wait_until(lambda: app.state.live.num_streams == 0)


def test_garbage_is_answered_with_a_problem(server: LiveServer) -> None:
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00" * 100 + b"\r\n\r\n",
    ):
        with server.connect() as connection:
            connection.sendall(garbage)
            assert problem_in(read_all(connection))["status"] in (400, 408)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::2]", "10.0.0.1"]
)
def test_other_names_for_this_machine_are_refused(steady: TestClient, host: str) -> None:
    answer = steady.get(API, headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "lab.example", "", "api:8000"])
def test_a_health_check_may_name_any_host(steady: TestClient, host: str) -> None:
    assert steady.get("/healthz", headers={"Host": host}).status_code == 200
    assert steady.get("/healthz/", headers={"Host": host}).status_code != 200
    assert steady.get("/readyz", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(
    ("address", "media_type"),
    [
        ("experiments", "application/json"),
        ("experiments/1/predictions", "image/png"),
        ("experiments/1/predictions", "multipart/form-data; boundary=cut"),
        ("models/cats/predictions", "application/zip"),
        ("experiments/1/timeline", "image/png"),
        ("datasets?name=photos", "application/zip"),
    ],
)
def test_a_compressed_body_is_said_to_be_compressed(steady: TestClient, address: str, media_type: str) -> None:
    headers = {"Content-Type": media_type, "Content-Encoding": "GZIP"}
    answer = steady.post(f"/api/v1/{address}", content=gzip.compress(b'{"model": "baseline"}'), headers=headers)
    assert answer.status_code == 415
    assert answer.json()["detail"] == "the Content-Encoding is 'gzip', and no coding is read"


def test_a_coding_of_no_body_and_the_identity_are_no_coding(steady: TestClient) -> None:
    assert steady.get(API, headers={"Content-Encoding": "gzip"}).status_code == 200
    headers = {"Content-Type": "application/json", "Content-Encoding": "identity"}
    assert steady.post(API, content=b"{}", headers=headers).status_code == 422


def test_two_hosts_are_refused(steady: TestClient) -> None:
    answer = steady.get(API, headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert answer.status_code == 400
    assert answer.json()["detail"] == "the request has 2 Host headers"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80", "127.0.0.2"])
def test_own_names_are_answered(steady: TestClient, host: str) -> None:
    assert steady.get(API, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1234"},
        {"Origin": "http://["},
        {"Origin": "http://a]b"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_origins_change_nothing(client: TestClient, filled: Filled, headers: dict[str, str]) -> None:
    identifier = filled.add()
    assert client.post(f"{API}/{identifier}/cancel", headers=headers).status_code == 403
    assert client.delete(f"{API}/{identifier}", headers=headers).status_code == 403
    assert client.get(f"{API}/{identifier}").json()["status"] == "queued"
    own = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"{API}/{identifier}/cancel", headers=own).status_code == 200
    by_nginx = {"Origin": "http://127.0.0.1", "Host": "127.0.0.1:80"}
    assert client.post(f"{API}/{identifier}/cancel", headers=by_nginx).status_code == 200


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/healthz", API, "/nothing", "/static/epochal.css"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_ranges_are_not_served(client: TestClient) -> None:
    many = "bytes=" + ",".join(f"{n}-{n}" for n in range(500))
    answer = client.get("/static/epochal.css", headers={"Range": many})
    assert answer.status_code == 200


def test_an_unexpected_error_tells_nothing_but_where_to_look(
    settings: Settings, filled: Filled, caplog: pytest.LogCaptureFixture
) -> None:
    with client_of(settings) as client:
        client.app.state.inspector = None  # type: ignore[attr-defined]
        answer = client.post(API, json={"model": "baseline"})
    assert answer.status_code == 500
    problem = answer.json()
    assert "Traceback" not in answer.text
    assert "NoneType" not in answer.text
    assert problem["incident"] in caplog.text
    assert "NoneType" in caplog.text
    assert answer.headers["x-frame-options"] == "DENY"


def test_methods_that_an_address_does_not_take(client: TestClient) -> None:
    answer = client.put(API)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert client.request("BREW", API).status_code == 405
    assert client.get(f"{API}/").status_code == 404


def test_sockets_are_given_back(settings: Settings) -> None:
    with LiveServer(create_app(settings)) as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert connection.recv(100)
        wait_until(lambda: not server.server.server_state.connections)


def test_a_lab_that_others_reach_answers_to_its_addresses(tmp_path: object) -> None:
    settings = settings_in(tmp_path, host="0.0.0.0", allowed_hosts=["lab.example"])  # type: ignore[arg-type]
    with client_of(settings) as client:
        assert client.get("/healthz", headers={"Host": "10.1.2.3:8000"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "lab.example"}).status_code == 200
        assert client.get("/login", headers={"Host": "lab.example"}).status_code == 200
        assert client.get("/login", headers={"Host": "other.example"}).status_code == 403
