"""Attacks 1 to 6, with or without a key: floods, unread answers, logins, headers, logs, health checks."""

import json
import re
import resource
import signal
import socket
import time
from contextlib import ExitStack, suppress
from urllib.parse import quote

import httpx
import psutil

from benchmarks.attack.harness import API, Target, address_of, attack, connect, expect, parse_answer, read_all, statuses
from benchmarks.faults.harness import kill

LONGEST_ERROR = 64_000
NAMES = 15_000
SILENT = 4_300
LONGEST_READINESS_SECONDS = 8.0
"""The readiness check waits for a broker that does not answer; concurrent requests share one check."""


@attack(
    1,
    "unknown names",
    done="16 times at once GET /? with 15,000 unknown names and no key; 4 specs with 40,000 unknown keys.",
    promise="401 at once; at most ten suggestions; no answer of an error over 64 kB",
)
def unknown_names(lab: Target) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [a + b + c + d for a in letters for b in letters for c in letters for d in letters][:NAMES]
    head = lab.head("GET", "/?" + "&".join(names)[:60_000], None, "Connection: close")

    def ask(_: int) -> tuple[int, int, float]:
        began = time.monotonic()
        with connect(lab.bench) as connection:
            with suppress(OSError):
                connection.sendall(head)
            answer = parse_answer(read_all(connection))
        return answer.status, len(answer.body), time.monotonic() - began

    found = lab.at_once(16, ask)
    body = json.dumps({"model": "baseline", **{f"key{number}": 1 for number in range(40_000)}}).encode()

    def post(_: int) -> tuple[int, int, float]:
        began = time.monotonic()
        with lab.client(lab.submitter) as client:
            response = client.post(f"{API}/experiments", content=body, headers={"Content-Type": "application/json"})
        return response.status_code, len(response.content), time.monotonic() - began

    keyed = lab.at_once(4, post)
    largest = max(size for _, size, _ in (*found, *keyed))
    text = (
        f"names {statuses([status for status, _, _ in found])} in {max(s for _, _, s in found):.1f} s at most; keys "
        f"{statuses([status for status, _, _ in keyed])} in {max(s for _, _, s in keyed):.1f} s; the largest answer "
        f"has {largest:,} bytes"
    )
    expect(all(status in (0, 303, 400, 401, 414, 429, 431) for status, _, _ in found), text)
    expect(all(400 <= status < 500 for status, _, _ in keyed), text)
    expect(largest <= LONGEST_ERROR, text)
    return text


@attack(
    2,
    "clients that never read, and silent ones",
    done="25 clients send 40 requests for /openapi.json each and read nothing; then 400 that send 16 requests each for "
    "pages, documents, lists and pictures; then 4,300 connections from one address that send nothing.",
    promise="closed at a deadline, memory given back; an address has a share of the connections and of the work",
)
def never_read(lab: Target) -> str:
    head = lab.head("GET", "/openapi.json", lab.viewer) * 40
    before = lab.api.memory_info().rss
    with ExitStack() as stack:
        for _ in range(25):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(5.0)
            connection.connect(address_of(lab.bench))
            connection.settimeout(0.3)
            with suppress(OSError):
                connection.sendall(head)
        time.sleep(2.0)  # the API accepts them
        began = time.monotonic()
        peak = (lab.api.memory_info().rss - before) / 1e6
        while (left := open_connections(lab, at_least=0)) > 4 and time.monotonic() - began < 45:
            peak = max(peak, (lab.api.memory_info().rss - before) / 1e6)
            time.sleep(0.5)
        seconds = time.monotonic() - began
    pipelined(lab)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, SILENT + 500)), hard))
    with ExitStack() as stack:
        for number in range(SILENT):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(2.0)
            with suppress(OSError):
                connection.connect(address_of(lab.bench))
            if number % 50 == 0:
                time.sleep(0.05)
        held = open_connections(lab, at_least=0)
        try:
            code = lab.get("/healthz", headers={"Connection": "close"}).status_code
        except httpx.HTTPError:
            code = 0
    text = (
        f"after {seconds:.0f} s {left} of 25 unread answers were still held, {peak:.0f} MB more at most; of {SILENT:,} "
        f"silent connections from one address {held:,} were held, and one more from there got {code or 'no answer'}"
    )
    expect(left <= 4 and seconds < 45, text)
    expect(held < SILENT and code == 200, text)
    return text


def pipelined(lab: Target) -> None:
    """Open 400 connections with 16 pipelined requests each, and read no answer."""
    number = lab.trained()
    for path in ("/", "/openapi.json", f"{API}/experiments?limit=", f"{API}/experiments/{number}/curves.png?width=6"):
        lines = [path + (f"{place}1" if path.endswith(("=", "6")) else "") for place in range(1, 17)]
        heads = b"".join(lab.head("GET", line, lab.viewer) for line in lines)
        with ExitStack() as stack:
            for _ in range(400):
                connection = stack.enter_context(socket.socket())
                connection.settimeout(5.0)
                connection.connect(address_of(lab.bench))
                connection.settimeout(0.3)
                with suppress(OSError):
                    connection.sendall(heads)
            time.sleep(5.0)


def open_connections(lab: Target, *, at_least: int) -> int:
    """Connections that the API holds from 127.0.0.1: the other client has another address."""
    found = [one for one in lab.api.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED and one.raddr]
    return max(at_least, sum(one.raddr.ip == "127.0.0.1" for one in found))


@attack(
    3,
    "large bodies where small ones belong",
    done="POST /login with 20 MB of '&', 60 MB of fields, and 4 MB of one field; YAML of 190 kB, 8 at once.",
    promise="413 long before they are read; nothing large is parsed on the event loop",
)
def large_bodies(lab: Target) -> str:
    found = []
    for body in (b"&" * 20_000_000, b"a=b&" * 15_000_000, b"key=" + b"x" * 4_000_000):
        head = lab.head(
            "POST", "/login", None, "Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}",
            "Connection: close",
        )  # fmt: skip
        began = time.monotonic()
        with connect(lab.bench) as connection:
            with suppress(OSError):
                connection.sendall(head + body)
            try:
                status = parse_answer(read_all(connection)).status
            except OSError:
                status = 0
        found.append((status, time.monotonic() - began))
    yaml = ("model: baseline\ntags:\n" + "- [a, b, {c: d}]\n" * 20_000).encode()[:190_000]

    def post(_: int) -> int:
        with lab.client(lab.submitter) as client:
            return client.post(
                f"{API}/experiments", content=yaml, headers={"Content-Type": "application/yaml"}
            ).status_code

    codes = lab.at_once(8, post)
    text = f"logins: {', '.join(f'{status} in {seconds:.1f} s' for status, seconds in found)}; YAML: {statuses(codes)}"
    expect(all(status in (0, 400, 413, 422) for status, _ in found), text)
    expect(all(400 <= code < 500 for code in codes), text)
    return text


def form_token(lab: Target) -> str:
    """The token of a login form, as its cookie holds it."""
    with lab.client() as client:
        client.get("/login")
        return client.cookies.get("epochal_form") or ""


@attack(
    4,
    "headers, cookies and cursors that break the parser",
    done="A form's token as session cookie, Origins that are no URLs, cursors with 400 digits and years out of range, "
    "wild values of every header that is read.",
    promise="no answer of 500 and above",
)
def wild_headers(lab: Target) -> str:
    import base64

    token = form_token(lab)
    codes: dict[str, int] = {}

    def ask(what: str, path: str, method: str = "GET", key: str | None = None, **headers: str) -> None:
        lines = [f"{name.replace('_', '-')}: {value}".encode("latin-1") for name, value in headers.items()]
        head = lab.head(method, path, key, "Connection: close", *(() if method == "GET" else ("Content-Length: 0",)))
        if "Host" in headers:
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Host:"))
        with connect(lab.bench) as connection:
            with suppress(OSError):
                connection.sendall(b"\r\n".join([head[:-4], *lines, b"", b""]))
            codes[what] = parse_answer(read_all(connection)).status

    list_path = f"{API}/experiments"
    for path in ("/", list_path):
        ask(f"token as session at {path}", path, Cookie=f"epochal_session={token}")
    for origin in (
        "http://[",
        "http://a]b",
        "http://[::1",
        "http://a:b",
        "null",
        "http://\xff",
        "x" * 3000,
        "http://a:99999999",
    ):
        ask(f"origin {origin[:12]}", list_path, "POST", lab.submitter, Origin=origin)
    values: list[tuple[str, object]] = [
        ("created", "9999999999-01-01"), ("created", "0001-01-01T00:00:00+23:59"),
        ("created", "9999-12-31T23:59:59-23:59"),
        ("created", 10**400), ("id", 10**400), ("val_loss.best", 10**400), ("val_loss.best", "nan"), ("name", "\ud800"),
        ("created", None), ("id", [1]), ("val_loss.last", True), ("created", "2026-01-01T00:00:00+00:00:00.1"),
    ]  # fmt: skip
    for sort, value in values:
        for descending in (True, False):
            for identifier in (1, 10**400, -1, "x"):
                text = json.dumps([sort, descending, value, identifier])
                cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")[:1900]
                order = "desc" if descending else "asc"
                query = f"?sort={sort}&order={order}&cursor={cursor}"
                ask(f"cursor {text[:40]} {identifier!r:.9}", list_path + query, key=lab.viewer)
    for name, value in (
        ("Accept", "a" * 5000), ("Accept", "*/*;q=" + "9" * 400), ("If_None_Match", '"' * 999),
        ("Last_Event_ID", "9" * 400), ("If_Modified_Since", "99999999"), ("Range", "bytes=" + "0-1," * 400),
        ("Content_Type", "multipart/form-data; boundary="), ("X_API_Key", "\xff\xfe"),
        ("Authorization", "Bearer \xe9"), ("Authorization", "Basic " + "=" * 99), ("Host", "[::1"),
        ("X_Forwarded_For", "x" * 3000), ("X_Forwarded_Proto", "gopher"), ("Cookie", "epochal_session=" + "." * 2000),
        ("Accept_Encoding", "gzip;q=" + "1" * 300), ("Idempotency_Key", "\xff" * 255), ("Sec_Fetch_Site", "\xe4"),
    ):  # fmt: skip
        key = None if name in ("X_API_Key", "Authorization") else lab.submitter
        for method in ("GET", "POST"):
            for path in (list_path, "/", "/login"):
                ask(f"{name} {value[:10]!r} {method} {path}", path, method, key, **{name: value})
    wrong = [what for what, code in codes.items() if code >= 500 and code != 503]
    text = f"{len(codes)} requests: {statuses(list(codes.values()))}"
    text += f"; 500 for {'; '.join(wrong[:5])}" if wrong else ""
    expect(not wrong, text)
    return text


@attack(
    5,
    "forged and flooded logs",
    done="Paths with %0a, %0d and escapes, then 5 s of paths of 57 kB; without a key, with one, with a form's token as "
    "session (which was a 500, with its path in the log).",
    promise="a line of a log is a line, cut and rate-limited; less than 5 MB of logs",
)
def logs(lab: Target) -> str:
    folder = lab.log.parent
    before = sum(path.stat().st_size for path in folder.iterdir())
    cookie = f"epochal_session={form_token(lab)}"
    for text in ("\n2026-11-25 FORGED-LINE\x1b[2J", "\r\nFORGED-LINE", "\u2028FORGED-LINE", "\x85FORGED-LINE"):
        for path in ("/{}", API + "/experiments/{}", "/?{}=1", "/static/{}"):
            lab.get(path.format(quote(text)), lab.submitter)
            lab.get(path.format(quote(text)), headers={"Cookie": cookie})
    deadline = time.monotonic() + 5

    def flood(number: int) -> int:
        count = 0
        while time.monotonic() < deadline:
            path = "/" + "%0a" * 19_000 + str(count)
            with suppress(OSError), connect(lab.bench, 10.0) as connection:
                key, lines = (lab.viewer, []) if number == 1 else (None, [f"Cookie: {cookie}"] if number > 1 else [])
                connection.sendall(lab.head("GET", path, key, "Connection: close", *lines))
                read_all(connection)
            count += 1
        return count

    sent = sum(lab.at_once(4, flood))
    written = sum(path.stat().st_size for path in folder.iterdir()) - before
    content = b"".join(path.read_bytes() for path in folder.iterdir() if path.name.startswith("api"))
    forged = re.findall(rb"(?:^|[\r\n\x85])[^\n]{0,30}FORGED-LINE", content, re.MULTILINE)
    forged = [line for line in forged if b"%0" not in line and b"\\" not in line and b"/" not in line]
    text = f"{sent} long paths made {written / 1e6:.1f} MB of logs; {len(forged)} forged lines"
    text += f", {content.count(27)} escapes"
    expect(not forged and not content.count(27), text)
    expect(written < 5e6, text)
    return text


@attack(
    6,
    "health without a key",
    done="/readyz, /metrics and /openapi.json without a key; then 200 times /readyz, 20 at once, while the broker is "
    "stopped.",
    promise="/readyz says ready or not, from a result a second old at most; the rest asks for a key",
)
def health(lab: Target) -> str:
    body = lab.get("/readyz").text
    told = [word for word in ("worker-", "pid", "version", "queue", "sqlite", "python") if word in body.lower()]
    codes = {path: lab.get(path).status_code for path in ("/openapi.json", "/metrics", "/docs", f"{API}/metrics")}
    broker = lab.bench.lab.broker
    assert broker is not None
    kill(broker.pid or 0, signal.SIGSTOP)
    began = time.monotonic()
    try:
        answers = lab.at_once(20, lambda _: [lab.get("/readyz").status_code for _ in range(10)])
    finally:
        kill(broker.pid or 0, signal.SIGCONT)
    seconds = time.monotonic() - began
    asked = [code for some in answers for code in some]
    text = (
        f"without a key /readyz tells {', '.join(told) or 'nothing more'}; "
        f"{', '.join(f'{path} {code}' for path, code in codes.items())}; "
        f"with the broker stopped 200 answers, {seconds / 10:.1f} s each ({statuses(asked)})"
    )
    expect(not told, text)
    expect(codes["/openapi.json"] in (401, 303) and codes["/metrics"] == 401, text)
    expect(seconds / 10 < LONGEST_READINESS_SECONDS, text)
    return text
