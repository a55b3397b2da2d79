"""Attacks 7 to 15, with a key, with an operator's rights, or from an account on the machine."""

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing, suppress
from pathlib import Path

import httpx
import redis
from PIL import Image

from benchmarks.attack.harness import API, Target, attack, connect, expect, parse_answer, statuses, wait_until
from benchmarks.faults.harness import Bench, alive, short_spec
from models.files import sha256_of
from models.queue import TRAIN_TASK, make_celery
from models.store import Status, artifacts

CHUNKED = "Transfer-Encoding: chunked"
MULTIPART = "Content-Type: multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
WORST_WAIT_SECONDS = 2.0
ROOT = Path(__file__).parents[2]


def epochal(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the CLI."""
    command = [str(Path(sys.executable).with_name("epochal")), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **variables}, check=False
    )


def png(width: int = 32, height: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (20, 90, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def rewritten(source: Path, target: Path, path: str, sha256: str) -> None:
    """Make a backup in which the checkpoint records of the newest attempt name another file."""
    database = target.with_suffix(".db")
    with tarfile.open(source) as archive, tarfile.open(target, "w") as copy:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            data = content.read() if content else b""
            if member.name == "epochal.db":
                database.write_bytes(data)
                with closing(sqlite3.connect(database, isolation_level=None)) as connection:
                    connection.execute("PRAGMA journal_mode = DELETE")
                    connection.execute(
                        "UPDATE artifacts SET path = ?, sha256 = ? WHERE kind = 'checkpoint'", (path, sha256)
                    )
                data = database.read_bytes()
            member.size = len(data)
            member.pax_headers = {}
            copy.addfile(member, io.BytesIO(data))


@attack(
    7,
    "a hostile backup",
    done="A backup whose records name a file outside the data directory is restored and its run goes on; archives with "
    "a sparse file of a terabyte and a name of 300 characters.",
    promise="refused in one line each, before they cost disk; nothing outside is touched",
    watched=False,
)
def hostile_backup(lab: Target) -> str:
    bench = lab.bench
    number = bench.submit(epochs=10_000)
    bench.wait_for_epoch(number, 3)
    source, victim = bench.folder / "sound.tar", bench.folder / "victim"
    done = epochal("backup", str(source), "--data-dir", str(bench.settings.data_dir))
    bench.cancel(number)
    expect(done.returncode == 0, done.stderr[-300:])
    victim.write_bytes(b"somebody's file")
    outcome = []
    hostile, copy = bench.folder / "hostile.tar", bench.folder / "copy"
    rewritten(source, hostile, str(victim), sha256_of(victim))
    done = epochal("restore", str(hostile), "--data-dir", str(copy))
    if done.returncode:
        outcome.append(f"refused: {one_line(done.stderr)}")
    else:
        other = Bench({"data_dir": copy, "auth": True})
        try:
            other.start()
            began = time.monotonic()
            while victim.exists() and time.monotonic() - began < 40 and not other.status(number).terminal:
                time.sleep(0.2)
        finally:
            other.close()
        outcome.append(f"restored, and the file outside is {'still there' if victim.exists() else 'deleted'}")
    for name, member in (("sparse", sparse_member()), ("long name", tarfile.TarInfo("experiments/1/" + "n" * 300))):
        bad, folder = bench.folder / f"{name}.tar", bench.folder / name
        with tarfile.open(bad, "w") as archive:
            archive.addfile(member, io.BytesIO(b"1\n0\n1\n".ljust(member.size, b"\0")))
        began = time.monotonic()
        done = epochal("restore", str(bad), "--data-dir", str(folder))
        lines = len(done.stderr.strip().splitlines())
        used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
        outcome.append(f"{name}: exit {done.returncode}, {lines} lines, {used} bytes, {time.monotonic() - began:.1f} s")
        expect(done.returncode == 1 and lines <= 3 and used == 0, "; ".join(outcome))
    expect(victim.exists() and outcome[0].startswith("refused"), "; ".join(outcome))
    return "; ".join(outcome)


def sparse_member() -> tarfile.TarInfo:
    """A file of 512 bytes in the archive that claims two gigabytes on the disk."""
    member = tarfile.TarInfo("experiments/1/w")
    member.size = 512
    member.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "experiments/1/w",
        "GNU.sparse.realsize": str(2 << 30),
    }  # fmt: skip
    return member


def one_line(text: str) -> str:
    return " ".join(text.split())[:160]


def predict(lab: Target, number: int, key: str, *images: bytes) -> tuple[int, float]:
    """Status and seconds of a prediction."""
    began = time.monotonic()
    with lab.client(key) as client:
        response = client.post(
            f"{API}/experiments/{number}/predictions",
            files=[("image", (f"{place}.png", image)) for place, image in enumerate(images)],
        )
    return response.status_code, time.monotonic() - began


@attack(
    8,
    "silent uploads",
    done="A viewer begins 8 chunked POSTs of images; four stay silent, four send a byte a second, for 15 s.",
    promise="what has arrived counts, and each caller has a share: another key's image is answered at once",
)
def silent_uploads(lab: Target) -> str:
    number = lab.trained()
    predict(lab, number, lab.other, png())
    path = f"{API}/experiments/{number}/predictions"
    held = [connect(lab.bench) for _ in range(8)]
    found: list[tuple[int, float]] = []
    try:
        for connection in held:
            connection.sendall(lab.head("POST", path, lab.viewer, MULTIPART, CHUNKED))
        time.sleep(0.5)
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            for connection in held[4:]:
                with suppress(OSError):
                    connection.sendall(b"1\r\nx\r\n" if found else b"%x\r\n%b\r\n" % (len(PART), PART))
            found.append(predict(lab, number, lab.other, png()))
            time.sleep(1.0)
    finally:
        for connection in held:
            connection.close()
    text = (
        f"{len(found)} images of another key: {statuses([code for code, _ in found])}, {max(s for _, s in found):.2f} s"
    )
    expect(all(code == 200 for code, _ in found), text)
    expect(max(seconds for _, seconds in found) < WORST_WAIT_SECONDS, text)
    return text


@attack(
    9,
    "pictures that cost more than they weigh",
    done="A viewer sends 30 WebP of 24 megapixels and about 40 bytes each in one body, four times at once, and leaves "
    "two of them after a second.",
    promise="a budget of pixels, small work first: another key's image is answered in 2 s; work stops with its client",
)
def costly_pictures(lab: Target) -> str:
    number = lab.trained()
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 4000), (0, 0, 0)).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    bomb = buffer.getvalue()
    predict(lab, number, lab.other, png())
    path = f"{API}/experiments/{number}/predictions"

    def send(place: int) -> int:
        try:
            with lab.client(lab.viewer) as client:
                files = [("image", (f"{n}.webp", bomb)) for n in range(30)]
                return client.post(path, files=files, timeout=1.0 if place % 2 else 60.0).status_code
        except httpx.TimeoutException:
            return 0

    from concurrent.futures import ThreadPoolExecutor

    found = []
    before = sum(lab.api.cpu_times()[:2])
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, place) for place in range(4)]
        began = time.monotonic()
        while not all(each.done() for each in sent) or time.monotonic() - began < 3:
            found.append(predict(lab, number, lab.other, png()))
            time.sleep(0.2)
        codes = [each.result() for each in sent]
    seconds = time.monotonic() - began
    cpu = sum(lab.api.cpu_times()[:2]) - before
    text = (
        f"bodies of {30 * (len(bomb) + 100):,} bytes: {statuses(codes)} in {seconds:.1f} s, {cpu:.1f} s of CPU; "
        f"{len(found)} images of another key: {statuses([code for code, _ in found])}, "
        f"{max(each for _, each in found):.1f} s at most"
    )
    expect(all(code == 200 for code, _ in found), text)
    expect(max(each for _, each in found) < WORST_WAIT_SECONDS, text)
    return text


@attack(
    10,
    "kernels of every epoch",
    done="One convolution of 1,024 kernels of 31 x 31, 10,000 epochs; watched for 40 epochs or 60 s.",
    promise="refused, or the files take what a dry run announced, and one checkpoint more while they are replaced",
)
def kernels_of_every_epoch(lab: Target) -> str:
    bench = lab.bench
    conv = {"channels": 1024, "kernel_size": 31, "stride": 2, "padding": 15}
    spec = {
        "model": {"name": "cnn", "blocks": [{"convs": [conv], "pool": None}], "head": {"hidden": []}},
        "dataset": {"name": "cifar10", "train_limit": 32, "val_limit": 10},
        "epochs": 10_000,
    }
    with lab.client(lab.submitter) as client:
        measured = client.post(f"{API}/experiments", params={"dry_run": "true"}, json=short_spec(**spec))
    response = lab.submit(lab.submitter, **spec)
    if response.status_code == 422:
        return f"refused: {one_line(response.json()['detail'])}"
    expect(measured.status_code == 200, measured.text[:300])
    expect(response.status_code == 202, response.text[:300])
    announced, checkpoint = measured.json()["disk_bytes"], measured.json()["disk"]["checkpoints"] / 2
    number = int(response.json()["id"])
    deadline = time.monotonic() + 60
    folder = bench.settings.experiments_dir / str(number)
    largest = 0
    try:
        wait_until(lambda: bench.history(number) or bench.status(number).terminal, "an epoch", 60)
        while (epochs := len(bench.history(number))) < 40 and time.monotonic() < deadline:
            if bench.status(number).terminal:
                break
            with suppress(OSError):
                largest = max(largest, bytes_on_disk(folder))
            time.sleep(0.2)
        with bench.store.reading() as session:
            kept = {str(record.kind): record.num_bytes for record in artifacts.list_for(session, number)}
    finally:
        bench.cancel(number)
        wait_until(lambda: bench.status(number).terminal, "the cancel", 60)
    text = (
        f"after {epochs} epochs {kept.get('kernels', 0) / 1e6:.0f} MB of kernels are kept, {largest / 1e6:.0f} MB of "
        f"files at most, {announced / 1e6:.0f} MB announced and {checkpoint / 1e6:.0f} MB more while a checkpoint is "
        f"replaced; {bench.experiment(number).reason or ''}"
    )
    expect(epochs >= 3, text)
    expect(largest <= announced + checkpoint, text)
    return text


def bytes_on_disk(folder: Path) -> int:
    """Bytes of the files below a folder; a file with two names (hard links) counts once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({(each.st_dev, each.st_ino): each.st_blocks * 512 for each in found}.values())


@attack(
    11,
    "wrong keys from an address that others share",
    done="60 wrong keys, then 50 requests with a valid one from the same address; 200 wrong keys, each under another "
    "X-Forwarded-For.",
    promise="valid keys work throughout; wrong ones are throttled whatever a header says",
)
def wrong_keys(lab: Target) -> str:
    with lab.client() as client:
        wrong = [client.get(API + "/presets", headers={"X-API-Key": f"wrong-{n}"}).status_code for n in range(60)]
        valid = [client.get(API + "/presets", headers={"X-API-Key": lab.other}).status_code for _ in range(50)]
        rotated = [
            client.get(
                API + "/presets", headers={"X-API-Key": f"wrong-{n}", "X-Forwarded-For": f"10.0.{n // 250}.{n % 250}"}
            ).status_code
            for n in range(200)
        ]
    text = f"wrong: {statuses(wrong)}; valid: {statuses(valid)}; wrong under other addresses: {statuses(rotated)}"
    expect(all(code == 200 for code in valid), text)
    expect(rotated.count(429) > 100, text)
    return text


@attack(
    12,
    "sessions and streams that outlive their key",
    done="A session's cookie used after the logout; a stream open while its key is revoked; 60 streams with one key.",
    promise="the session is over; the stream ends within 2 s; at most 50 streams a key",
)
def outliving(lab: Target) -> str:
    bench = lab.bench
    with lab.client(Origin=lab.url) as client:
        token = re.search(r'name="token" value="([^"]+)"', client.get("/login").text)
        assert token is not None
        client.post("/login", data={"token": token[1], "key": lab.submitter, "next": "/"})
        cookie = client.cookies.get("epochal_session") or ""
        expect(
            lab.get(f"{API}/presets", headers={"Cookie": f"epochal_session={cookie}"}).status_code == 200, "no session"
        )
        client.post("/logout")
    after = lab.get(f"{API}/presets", headers={"Cookie": f"epochal_session={cookie}"}).status_code

    number = bench.submit(epochs=10_000)
    bench.wait_for_epoch(number, 1)
    made = epochal("keys", "create", "leaving", "--data-dir", str(bench.settings.data_dir), "--json")
    key = json.loads(made.stdout)["key"]
    path = f"{API}/experiments/{number}/events"
    ended = 0.0
    with connect(bench) as stream:
        stream.sendall(lab.head("GET", path, key, "Connection: close"))
        stream.settimeout(0.1)
        expect(parse_answer(first_of(stream)).status == 200, "no stream")
        epochal("keys", "revoke", "leaving", "--data-dir", str(bench.settings.data_dir))
        began = time.monotonic()
        while time.monotonic() - began < 15:
            try:
                if not stream.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        ended = time.monotonic() - began
    streams = [connect(bench) for _ in range(60)]
    try:
        codes = []
        for stream in streams:
            stream.sendall(lab.head("GET", path, lab.viewer))
            stream.settimeout(5.0)
            codes.append(parse_answer(first_of(stream)).status)
    finally:
        for stream in streams:
            stream.close()
        bench.cancel(number)
        bench.wait_for(number, Status.CANCELLED)
    lasted = f"ended {ended:.1f} s later" if ended < 15 else "went on for 15 s and more"
    text = f"after the logout the cookie got {after}; a revoked key's stream {lasted}; 60 streams: {statuses(codes)}"
    expect(after == 401, text)
    expect(ended < 2.0, text)
    expect(codes.count(200) <= 50 and codes.count(200) >= 40, text)
    return text


def first_of(connection: object) -> bytes:
    """The first bytes that come."""
    for _ in range(100):
        try:
            return bytes(connection.recv(65536))  # type: ignore[attr-defined]
        except TimeoutError:
            continue
    return b""


@attack(
    13,
    "other users of the machine, terminals, heads, quotas",
    done="A lab started under umask 0; names and tags with escape sequences listed in a terminal; heads of 60 kB and "
    "70 kB.",
    promise="folders 0700, files 0600; no control character is printed; the limit of a head is 64 kB",
    watched=False,
)
def other_users(lab: Target) -> str:
    data = lab.bench.settings.data_dir
    number = lab.trained()
    paths = [data, *data.rglob("*")]
    wide = [path.name for path in paths if not path.is_symlink() and path.stat().st_mode & 0o077]
    named = lab.submit(lab.submitter, name="\x1b]0;owned\x07\x1b[2Jname\x9b31m", tags=["\x1b[31mred"], epochs=1)
    printed = ""
    for arguments in (("list",), ("show", str(named.json().get("id", number))), ("list", "--tag", "\x1b[31mred")):
        done = epochal(*arguments, EPOCHAL_URL=lab.url, EPOCHAL_API_KEY=lab.submitter)
        printed += done.stdout + done.stderr
    control = sorted(
        {repr(each) for each in printed if (ord(each) < 32 and each not in "\n\t") or 127 <= ord(each) < 160}
    )
    sizes = {size: head_of(lab, size) for size in (60_000, 70_000)}
    text = (
        f"{len(wide)} of {len(paths)} paths open to others{' (' + ', '.join(wide[:4]) + ')' if wide else ''}; printed "
        f"control characters: {', '.join(control) or 'none'}; heads: {sizes}"
    )
    expect(not wide, text)
    expect(not control, text)
    expect(sizes[60_000] == 200 and sizes[70_000] in (0, 400, 431), text)
    return text


def head_of(lab: Target, size: int) -> int:
    """The status of a GET with a head of so many bytes."""
    start = lab.head("GET", f"{API}/presets", lab.viewer, "Connection: close")
    line = b"X-Long: " + b"x" * (size - len(start) - 10) + b"\r\n\r\n"
    with connect(lab.bench) as connection:
        with suppress(OSError):
            connection.sendall(start[:-2] + line)
        received = b""
        with suppress(OSError):
            while piece := connection.recv(65536):
                received += piece
    return parse_answer(received).status


@attack(
    14,
    "a check of advisories that checks nothing",
    done=".ci/advisories where no host can be reached.",
    promise="it says what was not checked, and compares with a list that is kept",
    watched=False,
)
def advisories(lab: Target) -> str:
    nowhere = "http://127.0.0.1:9"
    variables = dict.fromkeys(("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"), nowhere)
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "advisories")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **variables, "PIP_INDEX_URL": nowhere},
    )
    whole = " ".join((done.stdout + done.stderr).replace("advisories: ", "").split())
    said = re.sub(r"skipped \(.*?\) the", "skipped; the", whole)
    expect(re.search(r"\b0 of \d+ pinned packages checked", whole), f"exit {done.returncode}: {said[:300]}")
    expect(
        re.search(r"compared with \d+ advisories in .*complete until", whole), f"exit {done.returncode}: {said[:300]}"
    )
    return f"exit {done.returncode}: {said[:300]}"


@attack(
    15,
    "the broker and its queue",
    done="The broker asked without a password; on its queue random bytes, JSON of other kinds, pickles and tasks of "
    "other names; remote control: shutdown, pool_restart, rate limits, revokes.",
    promise="a password is asked for; the worker drops what is not ours, lives and trains the next one",
    watched=False,
)
def broker_and_queue(lab: Target) -> str:
    bench = lab.bench
    url = str(bench.settings.broker_url)
    path = re.sub(r"^redis\+socket://(.*@)?", "", url).partition("?")[0]
    with closing(redis.Redis(unix_socket_path=path)) as nobody:
        try:
            nobody.ping()
            asked = "no password is asked for"
        except redis.RedisError as error:
            asked = f"without a password: {one_line(str(error))}"
    worker = bench.worker_pid
    celery = make_celery(bench.settings)
    try:
        client = celery.connection_for_write().default_channel.client
        good = {
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {},
            "body": "",
            "properties": {},
        }
        for junk in (
            b"\xff\x00random", b"{}", b"[]", b"null", b'"x"', b"3", json.dumps(good).encode(),
            json.dumps({**good, "headers": {"task": "os.system", "id": "x"}}).encode(),
            json.dumps({**good, "content-type": "application/x-python-serialize", "body": "Y29zCnN5c3RlbQ=="}).encode(),
            b'{"body": "' + b"A" * 100_000 + b'"}',
        ):  # fmt: skip
            client.lpush("experiments", junk)
        for order, arguments in (
            ("shutdown", {}), ("pool_restart", {"reload": True}), ("pool_shrink", {"n": 9}),
            ("cancel_consumer", {"queue": "experiments"}),
            ("rate_limit", {"task_name": TRAIN_TASK, "rate_limit": "1/h"}),
            ("time_limit", {"task_name": TRAIN_TASK, "hard": 1}),
        ):  # fmt: skip
            celery.control.broadcast(order, arguments=arguments)
        time.sleep(2.0)
        number = bench.submit(epochs=1)
        bench.wait_for(number, Status.COMPLETED, seconds=60)
    finally:
        celery.close()
    lived = alive(worker) and bench.worker_pid == worker
    with closing(redis.Redis(unix_socket_path=path)) as nobody:
        text = (
            f"{asked}; 10 strange entries and 6 orders: the worker {'lived' if lived else 'was ended'} and trained on"
        )
    expect(lived, text)
    expect("without a password" in asked, text)
    return text
