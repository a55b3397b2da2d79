"""Infrastructure, cases 16 to 25: the broker, the database, the disk, the clock and the API fail while work goes on."""

import errno
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import redis
from sqlalchemy import func, select

from benchmarks.faults.harness import (
    API,
    LEASE_SECONDS,
    Bench,
    Broken,
    Skipped,
    alive,
    case,
    endless,
    expect,
    kill,
    patience,
    short_spec,
    wait_until,
)
from benchmarks.faults.oracle import inconsistencies
from models.store import Status, artifacts
from models.store.sqlite import dbapi
from models.store.states import RunStatus
from models.store.tables import Experiment
from service.lab.lab import answers
from service.lab.processes import Part

RESTARTS = 10
LOCKED_SECONDS = 30.0
DISK = "size=96m"
FAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")


def broker_client(bench: Bench) -> redis.Redis:
    """A connection to the lab's broker."""
    return redis.Redis.from_url(str(bench.settings.broker_url).replace("redis+socket://", "unix://"))


def kill_broker(bench: Bench) -> None:
    """kill -9; the lab starts another one, with the same file."""
    part = bench.lab.broker
    assert part is not None
    restarts = part.restarts
    kill(part.pid or 0)
    wait_until(lambda: part.restarts > restarts, "the lab to start its broker again", 30)


@case(
    16,
    f"the broker restarted, idle and mid-job, {RESTARTS} times each",
    done="kill -9 of the broker, which the lab starts again; after each idle one a POST.",
    promise="workers consume again unaided; a run goes on meanwhile",
)
def broker_restarted(bench: Bench) -> str:
    worker = bench.worker_pid
    longest = 0.0
    for _ in range(RESTARTS):
        kill_broker(bench)
        began = time.monotonic()
        bench.wait_for(bench.submit(epochs=1), Status.COMPLETED, seconds=60)
        longest = max(longest, time.monotonic() - began)
    running, waiting = bench.submit(**endless()), bench.submit(epochs=1)
    bench.wait_for_epoch(running, 1)
    for _ in range(RESTARTS):
        kill_broker(bench)
        bench.wait_for_epoch(running, len(bench.history(running)) + 1)
    bench.cancel(running)
    bench.wait_for(waiting, Status.COMPLETED, seconds=60)
    expect(len(bench.runs(running)) == len(bench.runs(waiting)) == 1, "a run was begun twice")
    expect(bench.worker_pid == worker, "the worker was started anew")
    return (
        f"{RESTARTS} idle: each POST accepted, trained {longest:.1f} s later at the latest; {RESTARTS} mid-job: "
        "the run went on as attempt 1 and the one behind it followed; the same worker throughout"
    )


@case(
    17,
    "the broker down at POST",
    done="POST while the broker is killed and stays away, and while it is stopped and does not answer.",
    promise="accepted and enqueued later, or 503; never lost",
    allowed=(503,),
)
def broker_down(bench: Bench) -> str:
    part = bench.lab.broker
    assert part is not None
    told: list[float] = []
    with bench.unattended():
        kill(part.pid or 0)
        wait_until(lambda: part.exit_code() is not None, "the broker to end", 10)
        ids = [timed_post(bench, told) for _ in range(3)]
    wait_until(lambda: part.exit_code() is None, "the broker to be started again", 30)
    for each in ids:
        bench.wait_for(each, Status.COMPLETED, seconds=60)
    kill(part.pid or 0, signal.SIGSTOP)
    ids += [timed_post(bench, told) for _ in range(2)]
    kill(part.pid or 0, signal.SIGCONT)
    for each in ids[3:]:
        bench.wait_for(each, Status.COMPLETED, seconds=60)
    expect(all(len(bench.runs(each)) == 1 for each in ids), "one was trained twice")
    return f"5 POSTs accepted, in {max(told):.1f} s at most; all trained once after the broker had come back"


def timed_post(bench: Bench, seconds: list[float]) -> int:
    """Submit a short experiment, and note how long that took."""
    began = time.monotonic()
    experiment_id = bench.submit(epochs=1)
    seconds.append(time.monotonic() - began)
    return experiment_id


@case(
    18,
    "the broker emptied",
    done="FLUSHALL with 5 experiments queued behind one that trains.",
    promise="the queue is rebuilt from the database",
)
def broker_emptied(bench: Bench) -> str:
    running = bench.submit(**endless())
    bench.wait_for_epoch(running, 1)
    waiting = [bench.submit(epochs=1) for _ in range(5)]
    with closing(broker_client(bench)) as client:
        client.flushall()
        began = time.monotonic()
        wait_until(lambda: client.llen("experiments") == len(waiting), "the messages to be sent again", 30)
        seconds = time.monotonic() - began
    bench.cancel(running)
    for each in waiting:
        bench.wait_for(each, Status.COMPLETED)
        expect(len(bench.runs(each)) == 1, f"experiment {each} was trained twice")
    return f"5 messages were there again {seconds:.1f} s later; all trained, once"


@case(
    19,
    "the broker out of memory",
    done="Its memory limit set to 1 byte, then POST; later the limit lifted.",
    promise="503 with Retry-After and nothing stored; accepted again afterwards",
    allowed=(503,),
)
def broker_full(bench: Bench) -> str:
    with closing(broker_client(bench)) as client:
        limit = str(client.config_get("maxmemory")["maxmemory"])
        before = count_experiments(bench)
        client.config_set("maxmemory", "1")
        try:
            response = bench.client.post(f"{API}/experiments", json=short_spec(epochs=1))
        finally:
            client.config_set("maxmemory", limit)
    expect(response.status_code == 503, f"POST was answered {response.status_code}")
    retry = response.headers.get("Retry-After")
    expect(retry, "there is no Retry-After")
    expect(count_experiments(bench) == before, "an experiment was stored")
    bench.wait_for(bench.submit(epochs=1), Status.COMPLETED)
    return (
        f"503, Retry-After {retry}, '{response.json()['detail']}'; nothing stored; with memory again 202 and completed"
    )


def count_experiments(bench: Bench) -> int:
    """How many experiments are stored."""
    with bench.store.reading() as session:
        return session.scalar(select(func.count()).select_from(Experiment)) or 0


@case(
    20,
    f"the database locked for {LOCKED_SECONDS:g} s",
    done="Another process holds the write lock while a run trains and somebody POSTs.",
    promise="writes wait, reads go on; no lease is lost",
)
def database_locked(bench: Bench) -> str:
    running = bench.submit(**endless())
    bench.wait_for_epoch(running, 1)
    slowest = 0.0
    with ThreadPoolExecutor(1) as pool, closing(dbapi.connect(str(bench.store.url.database))) as connection:
        connection.isolation_level = None
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        posted = pool.submit(bench.submit, epochs=1)
        while time.monotonic() - began < LOCKED_SECONDS:
            asked = time.monotonic()
            response = bench.client.get(f"{API}/experiments/{running}")
            slowest = max(slowest, time.monotonic() - asked)
            expect(response.status_code == 200, f"a GET was answered {response.status_code}")
            expect(not posted.done(), "the POST did not wait")
            time.sleep(0.2)
        connection.execute("ROLLBACK")
        waiting = posted.result(60)
        waited = time.monotonic() - began
    bench.wait_for_epoch(running, len(bench.history(running)) + 2)
    expect(len(bench.runs(running)) == 1, "the run was taken away from its worker")
    bench.cancel(running)
    bench.wait_for(waiting, Status.COMPLETED)
    return (
        f"the POST waited {waited:.1f} s and was accepted; GETs took {slowest * 1000:.0f} ms at most; "
        "the run went on as attempt 1"
    )


@contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """Mount a file system within this block; raises Skipped where that is not allowed."""
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"mount is not allowed: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=False)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Fill the file system to the last byte within this block."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    try:
        yield
    finally:
        ballast.unlink()


@case(
    21,
    "the disk full",
    done="A lab on a small file system that is filled during training, POSTs and an upload; then space returns.",
    promise="507 or a clear failure, the last checkpoint intact, recovery when space returns",
    allowed=(507, 503),
    own_lab=True,
)
def disk_full(bench: Bench) -> str:
    with mounted("-t", "tmpfs", "-o", DISK, "epochal-faults", at=bench.folder):
        bench.temporary.mkdir()
        bench.start()
        try:
            text = work_on_a_full_disk(bench)
            bench.cancel_all()
            if wrong := inconsistencies(bench, frozenset({503, 507})):
                raise Broken(f"{text}; but {'; '.join(wrong[:4])}")
            return text
        finally:
            bench.stop()


def work_on_a_full_disk(bench: Bench) -> str:
    completed, worker = bench.submit(epochs=1), bench.worker_pid
    bench.wait_for(completed, Status.COMPLETED)
    running = bench.submit(**endless())
    bench.wait_for_epoch(running, 2)
    with full_disk(bench.folder):
        with bench.store.reading() as session:
            saved = artifacts.checkpoints(session, running)[0]
        refused = bench.client.post(f"{API}/experiments", json=short_spec())
        upload = bench.client.post(
            f"{API}/experiments/{completed}/predictions", files={"image": ("big.bmp", bitmap(), "image/bmp")}
        )
        expect(bench.client.get(f"{API}/experiments").status_code == 200, "reading does not go on")
        time.sleep(patience(3))  # the fault is that time passes: epochs end and checkpoints are due meanwhile
        expect(refused.status_code == 507, f"POST was answered {refused.status_code}: {refused.text[:200]}")
        expect(upload.status_code in (200, 507), f"the upload was answered {upload.status_code}: {upload.text[:200]}")
    again = bench.client.post(f"{API}/experiments", json=short_spec(epochs=1))
    expect(again.status_code == 202, f"with space again, POST was answered {again.status_code}")
    stored = len(bench.history(running))
    wait_until(lambda: bench.has_come(running, stored + 2), "the run to end, or to go on", 120)
    ended = bench.experiment(running)
    if ended.status is Status.FAILED:
        expect("write" in str(ended.reason) or "full" in str(ended.reason), f"the reason is: {ended.reason}")
        bench.client.post(f"{API}/experiments/{running}/resume")
        bench.wait_for_epoch(running, saved.epoch + 2)
        bench.cancel(running)
        bench.wait_for(running, Status.CANCELLED)
        expect(bench.runs(running)[-1].start_epoch >= saved.epoch, "the last checkpoint was not used")
        how = f"the run failed: '{ended.reason}'; resumed, it went on after epoch {bench.runs(running)[-1].start_epoch}"
    else:
        expect(ended.status is Status.RUNNING, f"the run is {ended.status}: {ended.reason}")
        how = f"the run waited and went on, in {len(bench.runs(running))} attempts"
        bench.cancel(running)
        bench.wait_for(running, Status.CANCELLED)
    bench.wait_for(int(again.json()["id"]), Status.COMPLETED)
    expect(bench.worker_pid == worker, "the worker was started anew")
    return f"POST 507, upload {upload.status_code}, GET 200; {how}; new ones are accepted"


def bitmap(side: int = 1500) -> bytes:
    """An uncompressed picture of several megabytes."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 100, 50)).save(buffer, "BMP")
    return buffer.getvalue()


@case(
    22,
    "the artifact folder read-only",
    done="The folder of experiments mounted read-only, then a POST; later writable again, and a resume.",
    promise="a clear failure; reading goes on; a resume completes",
)
def folder_read_only(bench: Bench) -> str:
    earlier = bench.submit(epochs=1)
    bench.wait_for(earlier, Status.COMPLETED)
    folder = bench.settings.experiments_dir
    with mounted("--bind", str(folder), at=folder):
        done = subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], capture_output=True, text=True)
        if done.returncode:
            raise Skipped(f"a read-only mount is not allowed: {done.stderr.strip()}")
        experiment_id = bench.submit(epochs=2)
        experiment = bench.wait_for(experiment_id, Status.FAILED)
        picture = bench.client.get(f"{API}/experiments/{earlier}/kernels.png")
        expect(picture.status_code == 200, f"the kernels of an earlier one were answered {picture.status_code}")
    reason = str(experiment.reason)
    expect("cannot be written" in reason, f"the reason is: {reason}")
    resumed = bench.client.post(f"{API}/experiments/{experiment_id}/resume")
    expect(resumed.status_code == 202, f"the resume was answered {resumed.status_code}")
    bench.wait_for(experiment_id, Status.COMPLETED)
    return f"failed: '{reason}'; an earlier one's kernels still drawn; resumed and completed once it was writable"


@case(
    23,
    "the API killed between storing and enqueuing",
    done="kill -9 of the API when the experiment is stored and its message is not yet sent (the broker is stopped).",
    promise="enqueued later",
)
def api_killed(bench: Bench) -> str:
    api, broker = bench.lab.api, bench.lab.broker
    assert api is not None
    assert broker is not None
    bench.client.post(f"{API}/experiments", params={"dry_run": "true"}, json=short_spec())  # torch is loaded now
    with bench.healthz.paused():
        for _ in range(10):  # on a busy machine the kill may come after the answer
            if killed_between(bench, api, broker):
                break
            wait_until(lambda: answers(bench.lab.url, "/healthz"), "the API to be started again", 60)
        else:
            raise Broken("the kill came too late each time")
        with bench.store.reading() as session:
            experiment_id = session.scalar(select(func.max(Experiment.id))) or 0
        bench.wait_for(experiment_id, Status.COMPLETED, seconds=60)
        wait_until(lambda: answers(bench.lab.url, "/healthz"), "the API to be started again", 60)
    expect(len(bench.runs(experiment_id)) == 1, "it was trained twice")
    return "the sender got no answer; the stored experiment was enqueued by a worker's reaper and completed"


def killed_between(bench: Bench, api: Part, broker: Part) -> bool:
    """POST with the broker stopped, and kill the API once the experiment is stored; whether no answer came before."""
    before = count_experiments(bench)
    answered: list[int] = []

    def post() -> None:
        try:
            answered.append(bench.client.post(f"{API}/experiments", json=short_spec(epochs=1)).status_code)
        except httpx.TransportError:
            answered.append(0)

    kill(broker.pid or 0, signal.SIGSTOP)
    thread = threading.Thread(target=post)
    thread.start()
    try:
        wait_until(lambda: count_experiments(bench) > before, "the experiment to be stored", 20)
        kill(api.pid or 0)
        thread.join()
    finally:
        kill(broker.pid or 0, signal.SIGCONT)
    return answered == [0]


@case(
    24,
    "the clock an hour off on one side",
    done="A worker an hour ahead, then one an hour behind, beside one that is right: each watches the other's runs "
    "for two leases; then the wrong one is killed.",
    promise="leases hold: no run is taken from a live worker, that of a dead one is",
)
def clock_off(bench: Bench) -> str:
    library = next((path for pattern in FAKETIME for path in Path("/").glob(pattern.lstrip("/"))), None)
    if library is None:
        raise Skipped("libfaketime is not installed (Debian's package libfaketime)")
    told = []
    for offset in ("+1h", "-1h"):
        wrong = bench.start_worker(
            f"clock{offset}", LD_PRELOAD=str(library), FAKETIME=offset, FAKETIME_DONT_FAKE_MONOTONIC="1"
        )
        ids = [bench.submit(**endless()) for _ in range(2)]
        for each in ids:
            bench.wait_for_epoch(each, 1)
        time.sleep(2 * LEASE_SECONDS + 1)  # the fault is the passing of time itself
        expect(all(len(bench.runs(each)) == 1 for each in ids), f"{offset}: a run was taken from a live worker")
        theirs = next((each for each in ids if bench.runs(each)[0].worker.startswith("clock")), None)
        expect(theirs is not None, f"{offset}: the worker with the wrong clock took no run")
        assert theirs is not None
        wrong.kill()
        for each in ids:
            if each != theirs:
                bench.cancel(each)
        began = time.monotonic()
        wait_until(lambda theirs=theirs: bench.runs(theirs)[0].status is RunStatus.LOST, "the lease to run out", 15)  # type: ignore[misc]
        seconds = time.monotonic() - began
        told.append(f"{offset}: held for {2 * LEASE_SECONDS + 1:g} s, given back {seconds:.1f} s after the kill")
        wait_until(lambda theirs=theirs: len(bench.runs(theirs)) == 2, "another claim", 60)  # type: ignore[misc]
        bench.cancel(theirs)
        bench.wait_for(theirs, Status.CANCELLED)
        expect(not alive(wrong.pid), "the killed worker lives")
    return "; ".join(told)


@case(
    25,
    "backup while training, restore",
    done="`epochal backup` while a run trains and saves, `epochal restore` into an empty folder, a lab started there.",
    promise="consistent: every file fits its digest; the run goes on there",
)
def backup_and_restore(bench: Bench) -> str:
    completed = bench.submit(epochs=2)
    bench.wait_for(completed, Status.COMPLETED)
    running = bench.submit(**endless(), dataset={"name": "cifar10", "train_limit": 1000, "val_limit": 200})
    bench.wait_for_epoch(running, 3)
    file, target = bench.folder / "backup.tar", bench.folder / "restored"
    said = epochal("backup", str(file), "--data-dir", str(bench.settings.data_dir))
    expect(bench.status(running) is Status.RUNNING, "the run ended before the backup did")
    epochal("restore", str(file), "--data-dir", str(target))
    bench.cancel(running)
    bench.wait_for(running, Status.CANCELLED)
    copy = Bench({**bench.settings_changes, "data_dir": target})
    try:
        copy.start()
        then = len(copy.history(running))
        expect(copy.status(completed) is Status.COMPLETED, "the completed one is not there")
        copy.wait_for_epoch(running, then + 2, seconds=240)
        copy.cancel(running)
        copy.wait_for(running, Status.CANCELLED)
        attempts = len(copy.runs(running))
        if wrong := inconsistencies(copy, frozenset()):
            raise Broken("in the restored lab " + "; ".join(wrong[:4]))
    finally:
        copy.close()
    return f"{said}; the restored run went on after epoch {then} or later, as attempt {attempts}"


def epochal(*arguments: str) -> str:
    """Run a command of the CLI; its last line."""
    command = [str(Path(sys.executable).with_name("epochal")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, f"epochal {arguments[0]} ended with {done.returncode}: {done.stderr[-300:]}")
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    return last.replace(arguments[1], "the file").replace(str(Path(arguments[1]).parent), "")
