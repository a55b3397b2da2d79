"""Cases 35 to 40, network and access: slow, endless, duplicate and cross-origin requests."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import numpy as np
import schemathesis
import yaml
from PIL import Image
from schemathesis import GenerationMode
from sqlalchemy import func, select

from benchmarks.faults.harness import API, Bench, Broken, case, endless, expect, patience, short_spec, wait_until
from benchmarks.faults.sending import (
    Answer,
    api_peak,
    at_once,
    connect,
    labels_of,
    parse_answer,
    predict,
    raw,
    read_all,
    request_bytes,
    side_by_side,
    trained,
)
from models.settings import Settings
from models.store import Status, keys, measurements
from models.store.states import MeasurementStatus, Role
from models.store.tables import Experiment, Measurement
from service.http.access import keys_needed
from tests.service.http.test_openapi import CHECKS
from tests.service.predictions.pictures import encode, gradient

HEAD = f"POST {API}/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n".encode()
MULTIPART = "Content-Type: multipart/form-data; boundary=x\r\nHost: 127.0.0.1\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
DEADLINE_SECONDS = 30.0
FLOOD_BYTES = 250_000_000
"""More than the largest body and what is read and thrown away after its refusal, so that the client gets the answer."""


def kept_open(bench: Bench, what: str, start: bytes, drip: bytes = b"", every: float = 0.5) -> str:
    """Send the start of a request, then a byte at a time. Returns the seconds until the lab answers with a problem."""
    began = time.monotonic()
    with connect(bench) as connection:
        connection.sendall(start)
        connection.settimeout(every)
        received = bytearray()
        while time.monotonic() - began < patience(DEADLINE_SECONDS + 15):
            try:
                piece = connection.recv(65536)
                received += piece
                if not piece:
                    break
            except TimeoutError:
                with suppress(OSError):
                    connection.sendall(drip)
            except OSError:
                break
        else:
            raise Broken(f"{what}: still open after {time.monotonic() - began:.0f} s")
    seconds = time.monotonic() - began
    answer = parse_answer(bytes(received))
    bench.client.record(what, answer.status)
    expect(400 <= answer.status < 500, f"{what}: {answer.status} {bytes(received)[:100]!r}")
    expect(seconds < patience(DEADLINE_SECONDS), f"{what}: ended only after {seconds:.0f} s")
    return f"{what} {answer.status} after {seconds:.0f} s"


def flooded(bench: Bench, what: str, start: bytes, piece: bytes) -> str:
    """Send without end; the lab must stop reading long before FLOOD_BYTES."""
    sent = 0
    with connect(bench) as connection:
        connection.sendall(start)
        try:
            while sent < FLOOD_BYTES:
                connection.sendall(piece)
                sent += len(piece)
        except OSError:  # reset or broken pipe, as it comes
            pass
        try:
            answer = parse_answer(read_all(connection))
        except OSError:
            answer = Answer(0, b"", b"")
    bench.client.record(what, answer.status)
    expect(sent < FLOOD_BYTES, f"{what}: {sent / 1e6:.0f} MB were taken")
    expect(answer.status == 0 or 400 <= answer.status < 500, f"{what}: {answer.status}")
    return f"{what} cut off after {sent / 1e6:.0f} MB"


@case(
    35,
    "requests that never end",
    done="Silent and dripping heads and bodies, Content-Length too long, too short and doubled, endless chunks large "
    "and tiny, a 100 MB form field, 300 parts, 500 ranges, a 1 MB head, 50 slow clients; all at once.",
    promise="closed at a deadline or a cap with 4xx; everybody else is answered meanwhile",
)
def endless_requests(bench: Bench) -> str:
    number = trained(bench)
    post = f"POST {API}/experiments/{number}/predictions HTTP/1.1\r\n{MULTIPART}".encode()
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(PART), PART)
    field = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    actions: list[Callable[[], str]] = [
        lambda: kept_open(bench, "no head", b""),
        lambda: kept_open(bench, "dripping head", b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n"),
        lambda: kept_open(bench, "no body", HEAD + b"Content-Length: 1000\r\n\r\n{"),
        lambda: kept_open(bench, "dripping body", HEAD + b"Content-Length: 100000\r\n\r\n{", b" "),
        lambda: kept_open(bench, "dripping chunks", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        lambda: kept_open(bench, "dripping upload", post + b"Content-Length: 1000000\r\n\r\n" + PART, b"a"),
        lambda: kept_open(bench, "length too long", HEAD + b'Content-Length: 200\r\n\r\n{"model": "baseline"}'),
        lambda: kept_open(bench, "length too short", HEAD + b'Content-Length: 5\r\n\r\n{"model": "baseline"}'),
        lambda: kept_open(bench, "two lengths", HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"),
        lambda: kept_open(
            bench, "length and chunks", HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        lambda: flooded(bench, "a head", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"a" * 65536),
        lambda: flooded(bench, "chunks", chunked, b"10000\r\n" + b"a" * 65536 + b"\r\n"),
        lambda: flooded(bench, "tiny chunks", HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 1000),
        lambda: flooded(bench, "a field", post + b"Content-Length: 100000000\r\n\r\n" + field, b"a" * 65536),
        lambda: _crowd(bench),
    ]
    with api_peak(bench) as peak:
        said = side_by_side(*actions)
    counts = _many_parts_and_ranges(bench, number)
    expect(peak.growth_mb < 300, f"the API grew by {peak.growth_mb:.0f} MB")
    return f"{'; '.join(said)}; {counts}; the API grew by {peak.growth_mb:.0f} MB"


def _crowd(bench: Bench) -> str:
    """Fifty clients that stop in the middle of a request, and one whose requests must be answered meanwhile."""
    slow = [connect(bench) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        began = time.monotonic()
        expect(bench.client.get(f"{API}/experiments").status_code == 200, "nobody else is answered")
        return f"beside 50 slow clients a list took {time.monotonic() - began:.2f} s"
    finally:
        for connection in slow:
            connection.close()


def _many_parts_and_ranges(bench: Bench, number: int) -> str:
    """Hundreds of parts, of fields, of ranges."""
    path = f"{API}/experiments/{number}/predictions"
    files = bench.client.post(path, files=[("image", (f"{part}.png", b"x")) for part in range(300)])
    fields = bench.client.post(path, files=[("image", (None, b"x")) for _ in range(300)])
    expect((files.status_code, fields.status_code) == (413, 422), f"parts: {files.status_code}, {fields.status_code}")
    ranges = "bytes=" + ",".join(f"{place}-{place}" for place in range(500))
    whole = bench.client.get("/static/epochal.css", headers={"Range": ranges})
    expect(whole.status_code == 200, f"500 ranges were answered {whole.status_code}")
    return "300 parts 413, 300 fields 422, 500 ranges the whole file once"


@case(
    36,
    "a thousand predictions at once",
    done="1,000 uploads of ten different pictures, each over a connection of its own; those told to wait sent again.",
    promise="a bounded queue, 503 with Retry-After past it; every answer equal to the one given alone",
    allowed=(503,),
)
def thousand_predictions(bench: Bench) -> str:
    number = trained(bench)
    turns = [np.roll(gradient(), 3 * part, axis=1) for part in range(10)]
    pictures = [encode(Image.fromarray(pixels), "PNG") for pixels in turns]
    serial = [labels_of(predict(bench, number, [("a.png", data)]))[0] for data in pictures]
    expect(len({tuple(one.items()) for one in serial}) > 5, "the pictures are not told apart: this shows nothing")
    path = f"{API}/experiments/{number}/predictions?top_k=10"
    requests = [request_bytes(bench, "POST", path, files={"image": ("a.png", data)}) for data in pictures]
    waiting = list(range(1000))
    refused, rounds = 0, 0
    with api_peak(bench) as peak:
        while waiting:
            rounds += 1
            expect(rounds < 60, f"{len(waiting)} are told to wait again and again")
            answers = at_once(bench, [requests[place % 10] for place in waiting], "POST predictions")
            again = []
            for place, answer in zip(waiting, answers, strict=True):
                if answer.status == 503:
                    expect(answer.headers.get("retry-after", "").isdigit(), "a 503 without Retry-After")
                    again.append(place)
                    continue
                expect(answer.status == 200, f"answered {answer.status}: {answer.body[:200]!r}")
                found = {top["label"]: top["probability"] for top in answer.json()["predictions"][0]["top"]}
                expect(found == serial[place % 10], "an answer in company is another than the one alone")
            refused += len(again)
            waiting = again
            time.sleep(1.0 if again else 0.0)
    return (
        f"1,000 answered, all equal to the bit to those given alone; {refused} times 503 with Retry-After over "
        f"{rounds} rounds; the API grew by {peak.growth_mb:.0f} MB"
    )


@case(
    37,
    "a thousand POSTs with one key",
    done="1,000 POSTs of one spec with one Idempotency-Key at the same time, and one of another spec.",
    promise="one experiment; the other spec a 422",
)
def thousand_posts(bench: Bench) -> str:
    with bench.store.reading() as session:
        before = session.scalar(select(func.count()).select_from(Experiment)) or 0
    headers = {"Idempotency-Key": "once"}
    data = request_bytes(bench, "POST", f"{API}/experiments", json=short_spec(epochs=1), headers=headers)
    began = time.monotonic()
    answers = at_once(bench, [data] * 1000, "POST experiments")
    seconds = time.monotonic() - began
    counts = Counter(answer.status for answer in answers)
    ids = {answer.json()["id"] for answer in answers if answer.status == 202}
    expect(counts == {202: 1000} and len(ids) == 1, f"statuses {dict(counts)}, experiments {sorted(ids)}")
    first = sum("idempotent-replayed" not in answer.headers for answer in answers)
    expect(first == 1, f"{first} say that they were the first")
    other = bench.client.post(f"{API}/experiments", json=short_spec(epochs=2), headers=headers)
    expect(other.status_code == 422, f"another spec was answered {other.status_code}")
    bench.wait_for(ids.pop(), Status.COMPLETED)
    with bench.store.reading() as session:
        after = session.scalar(select(func.count()).select_from(Experiment)) or 0
    expect(after == before + 1, f"{after - before} experiments were stored")
    return f"1,000 answered 202 in {seconds:.1f} s, 999 of them marked as replayed; one experiment, trained once; 422"


NO_EXPERIMENT = 10**9
EXAMPLES = 10


@case(
    38,
    "fuzzing from the OpenAPI document",
    done=f"schemathesis on every operation of the running lab: {EXAMPLES} requests that fit, {EXAMPLES} that do not.",
    promise="no 5xx but 503 where no worker measures; every answer conforms to the document",
    allowed=(503,),
)
def fuzzed(bench: Bench) -> str:
    number = trained(bench)
    document = bench.client.get("/openapi.json").json()
    described = schemathesis.openapi.from_dict(document)
    described.config.update(base_url=bench.lab.url)
    counts: Counter[int] = Counter()
    operations = 0
    with bench.lab_worker_stopped():  # what is accepted would train for hours
        found: Any = described.exclude(path_regex="/events$")
        for result in found.get_all_operations():
            operations += 1
            _fuzz(bench, result.ok(), counts, number)
        bench.cancel_all()
        with bench.store.writing() as session:
            for measurement in session.scalars(
                select(Measurement).where(Measurement.status == MeasurementStatus.QUEUED)
            ).all():
                measurements.fail(session, measurement.id, "the case is over")
    told = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
    return f"{operations} operations, {counts.total()} requests, all as described ({told})"


def _fuzz(bench: Bench, operation: Any, counts: Counter[int], number: int) -> None:
    """Send valid and invalid requests; every other one is for an existing experiment."""
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=EXAMPLES,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def answers_conform(case: Any) -> None:
            parameters = case.path_parameters or {}
            identifier = parameters.get("experiment_id")
            is_id = isinstance(identifier, int) and identifier > 0  # and not what is wrong with the request
            if case.method == "DELETE":
                if identifier == number:
                    parameters["experiment_id"] = NO_EXPERIMENT  # the one that the others ask for must stay
            elif is_id and counts.total() % 2 == 0:
                parameters["experiment_id"] = number
            answer = case.call(timeout=60)
            bench.client.record(f"{case.method} {case.formatted_path}", answer.status_code)
            counts[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        try:
            answers_conform()
        except hypothesis.errors.Unsatisfiable:  # an operation without parameters has nothing to get wrong
            expect(mode is GenerationMode.NEGATIVE, f"{operation.label}: nothing fits")
        except (AssertionError, ExceptionGroup) as error:
            raise Broken(f"{operation.label}: {str(error)[:500]}") from error


LIMITS = {"auth": True, "max_queued": 3, "requests_per_minute": 60, "upload_mb_per_hour": 1}


@case(
    39,
    "API keys",
    done="No key, wrong keys, revoked keys, a viewer's and a submitter's on every kind of route; past the queue's, the "
    "uploads' and the rate's quota; a lab started by `epochal up --host 0.0.0.0` in a network of its own.",
    promise="401, 403 and 429 with Retry-After; keys are stored hashed; beyond loopback one is demanded",
    settings=LIMITS,
)
def api_keys(bench: Bench) -> str:
    names = {"viewer": Role.VIEWER, "one": Role.SUBMITTER, "two": Role.SUBMITTER, "three": Role.SUBMITTER}
    with bench.store.writing() as session:
        made = {name: keys.create(session, name, role)[1] for name, role in names.items()}

    def ask(method: str, path: str, key: str | None, **kwargs: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {"Authorization": ""}
        return bench.client.request(method, f"{API}{path}", headers=headers, **kwargs)

    number = trained(bench)
    routes = [
        ("GET", "/experiments"), ("GET", f"/experiments/{number}/metrics"),
        ("GET", f"/experiments/{number}/curves.png"),
        ("POST", "/experiments"), ("DELETE", f"/experiments/{number}"), ("GET", "/datasets"),
        ("POST", f"/experiments/{number}/predictions"), ("GET", f"/experiments/{number}/events"),
    ]  # fmt: skip
    for method, path in routes:
        for key in (None, "wrong", made["one"][:-1]):
            status = ask(method, path, key).status_code
            expect(status == 401, f"{method} {path} with the key {key!r}: {status}")
    expect(bench.client.get("/healthz", headers={"Authorization": ""}).status_code == 200, "/healthz wants a key")
    expect(ask("GET", "/experiments", made["viewer"]).status_code == 200, "a viewer may not read")
    picture = encode(Image.fromarray(gradient()), "PNG")
    seen = ask("POST", f"/experiments/{number}/predictions", made["viewer"], files={"image": ("a.png", picture)})
    expect(seen.status_code == 200, f"a viewer's prediction: {seen.status_code}")
    for method, path in (
        ("POST", "/experiments"),
        ("DELETE", f"/experiments/{number}"),
        ("POST", "/learning-rate-tests"),
    ):
        status = ask(method, path, made["viewer"], json=short_spec()).status_code
        expect(status == 403, f"{method} {path} by a viewer: {status}")
    said = [_queue_quota(bench, lambda **body: ask("POST", "/experiments", made["one"], **body))]
    upload = {"files": {"image": ("a.png", os.urandom(600_000))}}
    codes = [ask("POST", f"/experiments/{number}/predictions", made["two"], **upload).status_code for _ in range(2)]
    expect(codes == [422, 429], f"2 uploads of 0.6 MB, 1 MB an hour allowed: {codes}")
    rate = [ask("GET", "/datasets", made["three"]) for _ in range(80)]
    late = [answer for answer in rate if answer.status_code == 429]
    expect(
        15 <= len(late) <= 20 and all(one.headers["Retry-After"] for one in late), f"{len(late)} of 80 past the rate"
    )
    with bench.store.writing() as session:
        keys.revoke(session, "two")
    wait_until(lambda: ask("GET", "/datasets", made["two"]).status_code == 401, "the revoked key to end", 10)
    stored = b"".join(path.read_bytes() for path in bench.settings.data_dir.glob("epochal.db*"))
    expect(not any(key.encode() in stored for key in made.values()), "a key is stored as it is")
    said.append(_guesses(bench))
    return f"401 without, 403 for viewers; {'; '.join(said)}; no key in the database; {_open_to_others(bench)}"


def _queue_quota(bench: Bench, post: Callable[..., httpx.Response]) -> str:
    """Fill the queue; returns how many were accepted, and the refusal."""
    taken: list[int] = []
    while (answer := post(json=short_spec(**endless()))).status_code == 202:
        taken.append(answer.json()["id"])
        expect(len(taken) < 10, "the quota of 3 in the queue does not hold")
        if len(taken) == 1:
            bench.wait_for(taken[0], Status.RUNNING)
    expect(answer.status_code == 429 and answer.headers["Retry-After"], f"then {answer.status_code}")
    bench.cancel_all()
    return f"429 beyond {len(taken) - 1} in the queue, 1 MB of uploads, 60 requests a minute"


def _guesses(bench: Bench) -> str:
    """Guess keys until the lab slows the guesser down."""
    codes = [
        bench.client.get(f"{API}/datasets", headers={"Authorization": f"Bearer guess-{number}"}).status_code
        for number in range(40)
    ]
    expect(codes[-1] == 429, "40 wrong keys in a row and no end")
    return f"guessing ends after {codes.index(429)} more"


OPEN_LAB = """
import json, re, subprocess, sys, urllib.error, urllib.request
lab = subprocess.Popen([sys.executable, "-m", "service.cli.main", "up", "--host", "0.0.0.0", "--port", "8000",
                        "--workers", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
said = []
key = None
for line in lab.stdout:
    said.append(line)
    key = key or next(iter(re.findall(r"epochal_[A-Za-z0-9_-]{20,}", line)), None)
    if key:
        break
def ask(headers):
    try:
        request = urllib.request.Request("http://127.0.0.1:8000/api/v1/datasets", headers=headers)
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
answers = [ask({}), ask({"Authorization": f"Bearer {key}"})] if key else []
lab.terminate()
lab.communicate()
print(json.dumps({"key": bool(key), "answers": answers, "code": lab.returncode, "said": "".join(said)[-500:]}))
"""


def _open_to_others(bench: Bench) -> str:
    """Run `epochal up --host 0.0.0.0` in a network namespace of its own, if the system allows one."""
    api = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())["services"]["api"]
    host = api["environment"]["EPOCHAL_HOST"]
    expect(keys_needed(Settings(host=host)), "docker-compose asks for no key")
    alone = ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        expect(keys_needed(Settings(host="0.0.0.0")), "no key beyond loopback")
        return "a network of its own cannot be had here, so --host 0.0.0.0 was only asked about: it demands a key"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHAL_")}
    environment |= {"EPOCHAL_DATA_DIR": str(bench.folder / "open"), "COLUMNS": "200"}
    done = subprocess.run(
        [*alone, sys.executable, "-c", OPEN_LAB],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    expect(done.returncode == 0, f"the open lab: {done.stderr[-300:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    expect(found["key"] and found["answers"] == [401, 200] and found["code"] == 0, f"the open lab: {found}")
    return "a lab on 0.0.0.0 showed a key once, and answered 401 without and 200 with it; docker-compose demands one"


FOREIGN = [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
]  # fmt: skip
HOSTS = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", "[::2]", ""]


@case(
    40,
    "a browser on another origin",
    done="Changes asked for with foreign Origin and Sec-Fetch-Site, with and without a session; Host headers of a "
    "rebound name; login forms from elsewhere; the headers of every page.",
    promise="403, nothing changed; no page may be framed, and none runs foreign scripts",
    settings={"auth": True},
)
def other_origins(bench: Bench) -> str:
    number = bench.submit(**endless())
    bench.wait_for(number, Status.RUNNING)
    for headers in FOREIGN:
        for method, path in (("POST", f"{API}/experiments/{number}/cancel"), ("DELETE", f"{API}/experiments/{number}"),
                             ("POST", f"{API}/experiments"), ("POST", "/login"), ("POST", "/logout")):  # fmt: skip
            status = bench.client.request(method, path, headers=headers).status_code
            expect(status == 403, f"{method} {path} with {headers}: {status}")
    allowed = bench.client.request("OPTIONS", f"{API}/experiments", headers={"Origin": "http://evil.example"})
    expect("access-control-allow-origin" not in allowed.headers, "another origin may read")
    for host in HOSTS:
        answer = raw(
            bench, f"GET /login HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), f"Host {host}"
        )
        # A number cannot be rebound: it is answered where keys are asked for.
        expect(
            answer.status == (200 if host[:1] in ("1", "[") and "evil" not in host else 403), f"{host}: {answer.status}"
        )
    expect(bench.status(number) is Status.RUNNING, "it was cancelled from elsewhere")
    session = _session(bench, number)
    bench.cancel(number)
    for path in (
        "/",
        f"/experiments/{number}",
        "/new",
        "/docs",
        "/login",
        "/static/epochal.js",
        "/nothing",
        f"{API}/experiments",
    ):
        sent = bench.client.get(path).headers
        policy = sent["content-security-policy"]
        expect("frame-ancestors 'none'" in policy and sent["x-frame-options"] == "DENY", f"{path} may be framed")
        expect("unsafe-inline" not in policy.partition("style-src")[0] and "*" not in policy, f"{path}: {policy}")
        expect(sent["x-content-type-options"] == "nosniff", f"{path} may be sniffed")
    bench.wait_for(number, Status.CANCELLED)
    return f"all {5 * len(FOREIGN)} changes 403, {len(HOSTS)} Host headers checked; {session}; headers on every page"


def _session(bench: Bench, number: int) -> str:
    """Log in as a browser does, and let another site try with that session."""
    with httpx.Client(base_url=bench.lab.url, trust_env=False, timeout=30) as browser:
        page = browser.get("/login")
        token = re.search(r'name="token" value="([^"]+)"', page.text)
        expect(token, "the login form has no token")
        assert token is not None
        form = {"key": str(bench.lab.first_key), "token": token.group(1), "next": "/"}
        forged = httpx.post(f"{bench.lab.url}/login", data=form, trust_env=False)
        expect(forged.status_code == 403, f"a form without its cookie: {forged.status_code}")
        entered = browser.post("/login", data=form)
        expect(entered.status_code == 303, f"logging in: {entered.status_code}")
        cookie = next(value for value in entered.headers.get_list("set-cookie") if value.startswith("epochal_session"))
        expect("httponly" in cookie.lower() and "samesite=strict" in cookie.lower(), f"the cookie is {cookie}")
        cancel = f"{API}/experiments/{number}/cancel"
        for headers in ({}, *FOREIGN):
            status = browser.post(cancel, headers=headers).status_code
            expect(status == 403, f"a session's change with {headers}: {status}")
        away = browser.get("/login", params={"next": "//evil.example/"})
        expect("evil.example" not in away.text, "a login leads to another site")
        own = {"Origin": bench.lab.url, "Sec-Fetch-Site": "same-origin"}
        expect(browser.post(cancel, headers=own).status_code == 200, "a session may not change anything at all")
        for answer in (page, entered, forged):
            bench.client.record("login", answer.status_code)
    return "with a session 403 from elsewhere and 200 from our own pages; a forged login form 403"
