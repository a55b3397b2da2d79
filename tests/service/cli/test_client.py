"""Which lab a command connects to, through which proxy, with which key; one clear line if there is none."""

import base64
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli import options
from service.cli.client import Client, Event, is_loopback, parse_events, sendable, without_credentials
from service.cli.main import app
from service.lab.address import announced, running_lab, write_address

PAGE = {"items": [], "next": None, "total": 0}


class Server:
    """A web server that gives one answer to everything, and keeps what it was asked."""

    def __init__(self, body: bytes, status: int = 200, **headers: str) -> None:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, dict(self.headers)))
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def lab() -> Iterator[Server]:
    """Something that answers a list as an empty lab does."""
    server = Server(json.dumps(PAGE).encode())
    yield server
    server.stop()


def run(*arguments: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(arguments))
    assert ended.exception is None or isinstance(ended.exception, SystemExit), repr(ended.exception)
    return ended.exit_code, " ".join(ended.output.split())


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x", "http://[::1"])
def test_this_machine_is_asked_without_any_proxy(lab: Server, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert run("list", "--url", lab.url) == (0, "no experiments; submit one with `epochal submit baseline`")


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [("socks5://ada:hunter2@127.0.0.1:9", "socksio"), ("nonsense://ada:hunter2@x", "Unknown scheme")],
)
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str, expected: str) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    code, output = run("list", "--url", "http://lab.example")
    assert code == 1
    assert "ALL_PROXY" in output
    assert expected in output
    assert "hunter2" not in output


def test_another_machine_is_asked_through_the_proxy(lab: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", lab.url)
    assert run("list", "--url", "http://lab.example")[0] == 0
    assert lab.asked[0][0].startswith("http://lab.example/api/v1/experiments")


def test_a_key_and_a_proxys_password_are_both_sent_and_neither_is_shown(lab: Server) -> None:
    url = f"http://ada:hun%40ter2@127.0.0.1:{lab.port}"
    code, output = run("list", "--url", url, "--api-key", "epk_secret")
    headers = lab.asked[0][1]
    assert code == 0
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "ada:hun@ter2"
    assert headers["X-API-Key"] == "epk_secret"
    code, output = run("list", "--url", url.replace(str(lab.port), "1"), "--api-key", "epk_secret")
    assert code == 1
    assert "ter2" not in output
    assert "epk_secret" not in output


@pytest.mark.parametrize(
    "url",
    ["http://[::1", "lab", "http://", "http://a b", "http://127.0.0.1:port", "http://127.0.0.1:99999", "/etc/passwd"],
)
def test_what_is_no_address_is_a_usage_error_that_names_it(url: str) -> None:
    code, output = run("list", "--url", url)
    assert code == 2
    assert "--url is" in output


@pytest.mark.parametrize(
    "host",
    ["b\u00fccher.invalid", "\u7814\u7a76.invalid", "x" * 70 + ".invalid", "a..b", "\u2603.invalid", "xn--.invalid"],
)
def test_a_host_that_is_not_found_is_one_message(host: str) -> None:
    code, output = run("list", "--url", f"http://{host}:8000")
    assert code in (1, 2)
    assert output.count(host.partition(".")[0][:20]) or "xn--" in output


@pytest.mark.parametrize(
    "key", ["epk_\u2019secret", "epk_secret\n", "epk secret", "epk_\x1bsecret", "epk_secret\u0000"]
)
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    code, output = run("list", "--url", "http://127.0.0.1:1", "--api-key", key)
    assert code == 2
    assert "--api-key" in output
    assert "secret" not in output


@pytest.mark.parametrize(
    ("body", "status", "headers", "expected"),
    [
        (b"<html>", 200, {"Content_Type": "text/html"}, "no lab may be there"),
        (b"<html>", 404, {"Content_Type": "text/html"}, "no lab may be there"),
        (b"{}", 200, {}, "not from a lab"),
        (b'{"items": [{}], "next": null}', 200, {}, "not from a lab"),
        (b"[]", 200, {}, "no JSON object"),
        (b"\xff\xfe", 200, {}, "no JSON object"),
        (b"[" * 100_000, 200, {}, "no JSON object"),
        (b'{"detail": "Not Found"}', 404, {}, "no lab may be there"),
        (b"", 302, {"Location": "https://lab.example/"}, "redirects to https://lab.example"),
        (b"x", 200, {"Content_Encoding": "gzip"}, "127.0.0.1"),
    ],
)
def test_a_server_that_is_no_lab_is_one_message(
    body: bytes, status: int, headers: dict[str, str], expected: str
) -> None:
    server = Server(body, status, **headers)
    code, output = run("list", "--url", server.url)
    server.stop()
    assert code == 1
    assert expected in output


@pytest.mark.parametrize(
    "command", ["show 1", "watch 1", "verdict 1", "curves 1", "reproduce 1", "submit baseline", "lr-test baseline"]
)
def test_no_command_takes_another_servers_answers_for_a_labs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = Server(b"{}")
    code, output = run(*command.split(), "--url", server.url)
    server.stop()
    assert code == 1
    assert "lab" in output
    assert list(tmp_path.iterdir()) == []


def test_something_that_speaks_no_http_is_one_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            connection.recv(1)
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        code, output = run("list", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert code == 1
    assert "does not answer" in output


def test_a_data_directory_that_is_named_is_the_only_lab_that_is_asked(
    lab: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPOCHAL_DATA_DIR", str(tmp_path))
    for command in ("list", "delete 1", "show 1", "submit baseline"):
        code, output = run(*command.split())
        assert code == 1
        assert "This lab is not running" in output
        assert str(tmp_path) in output
    write_address(tmp_path, lab.url)
    assert run("list")[0] == 0
    monkeypatch.setenv("EPOCHAL_URL", "http://127.0.0.1:1")
    assert run("list")[0] == 1, "an address that is named goes before a data directory"


def test_the_lab_of_a_data_directory_is_found_by_its_flag(lab: Server, tmp_path: Path) -> None:
    write_address(tmp_path, lab.url)
    assert run("list", "--data-dir", str(tmp_path))[0] == 0
    code, output = run("list", "--data-dir", str(tmp_path / "other"))
    assert code == 1
    assert "not running" in output
    assert run("list", "--data-dir", "")[0] == 2


@pytest.mark.parametrize(
    ("variable", "url", "data_dir", "named"),
    [
        (None, None, None, False),
        ("http://lab", None, None, True),
        ("http://lab", None, Path("here"), False),
        (None, "http://lab", Path("here"), True),
        ("http://other", "http://lab", Path("here"), True),
    ],
)
def test_a_flag_goes_before_a_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, url: str | None, data_dir: Path | None, named: bool
) -> None:
    if variable is not None:
        monkeypatch.setenv("EPOCHAL_URL", variable)
    settings = options.read_client_settings(url, None, data_dir)
    assert options.names_a_lab(settings, url, data_dir) is named


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"url": "http://x", "pid": 0}', '{"url": "http://x", "pid": 1e99}', "null", "\udcff"]
)
def test_an_address_file_that_means_nothing_is_no_lab(tmp_path: Path, text: str) -> None:
    (tmp_path / "lab.json").write_bytes(os.fsencode(text))
    assert running_lab(tmp_path) is None


def test_an_api_without_a_lab_around_it_is_found_while_it_runs(tmp_path: Path) -> None:
    with announced(tmp_path, "http://127.0.0.1:9"):
        assert running_lab(tmp_path) == {"url": "http://127.0.0.1:9", "pid": os.getpid()}
    assert running_lab(tmp_path) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", True),
        ("http://lab.localhost", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80/x", True),
        ("http://0.0.0.0:8000", True),
        ("http://u:p@127.0.0.1", True),
        ("http://lab.example", False),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


def test_an_address_is_shown_without_credentials() -> None:
    assert without_credentials("https://ada:p@ss@lab.example/prefix/") == "https://lab.example/prefix"
    with Client("http://ada:hunter2@127.0.0.1:1") as client:
        assert client.url == "http://127.0.0.1:1"


def test_a_file_name_of_any_bytes_can_be_sent() -> None:
    assert sendable(os.fsdecode(b"caf\xe9.png")) == "caf\\udce9.png"
    assert sendable("cat\n\x1b[31m.png") == "cat\\n\\x1b[31m.png"
    assert sendable("\u7814\u7a76 \U0001f408.png") == "\u7814\u7a76 \U0001f408.png"


def test_events_are_read_with_their_kind_data_and_id() -> None:
    lines = ["id: 7", "event: epoch", 'data: {"epoch": 1}', "", "event: progress", 'data: {"step": 3}', ""]
    assert list(parse_events(iter(lines))) == [Event("epoch", {"epoch": 1}, "7"), Event("progress", {"step": 3}, None)]


def test_comments_keep_alives_and_a_cut_off_event_are_passed_over() -> None:
    lines = [": keep-alive", "", "retry: 1000", "", "event: end", "data:{}", "", "event: epoch", 'data: {"epoch":']
    assert list(parse_events(iter(lines))) == [Event("end", {}, None)]


def test_data_on_several_lines_is_one_document() -> None:
    assert list(parse_events(iter(['data: {"a":', "data: 1}", ""]))) == [Event("message", {"a": 1}, None)]
