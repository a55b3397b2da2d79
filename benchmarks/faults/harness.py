"""Harness of `make faults`: a registry of cases, a real lab, a recording client, a watch on /healthz.

    @case(1, "kill -9 of the training process", done="...", promise="...")
    def killed_training_process(bench: Bench) -> str:
        ...
        return "what happened, in a sentence with figures"

A case that finds something else than was promised raises Broken; one that cannot be done on this machine raises
Skipped. Cases with the same settings share a lab; oracle.py looks at it after each of them.
"""

import http.client
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.faults.stored import StoredExperiments, endless
from benchmarks.faults.waiting import Broken, alive, patience, wait_until
from benchmarks.faults.workers import ExtraWorker, jobs_of, wait_until_ready
from models.settings import Settings
from models.store import Status, Store
from service.lab import processes
from service.lab.lab import Lab

__all__ = [
    "API",
    "CASES",
    "Bench",
    "Broken",
    "Case",
    "Client",
    "Skipped",
    "alive",
    "case",
    "endless",
    "expect",
    "kill",
    "patience",
    "progress",
    "short_spec",
    "wait_until",
]  # fmt: skip

API = "/api/v1"
LEASE_SECONDS = 5.0
HEALTHZ_SECONDS = 0.2


class Skipped(Exception):
    """The case cannot run on this machine; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """One fault: its description, the guarantee that must hold, and the function that injects it."""

    number: int
    title: str
    done: str
    promise: str
    run: Callable[["Bench"], str]
    allowed: frozenset[int]
    """The statuses of 500 and above that are promised; any other one breaks the case."""
    settings: dict[str, Any]
    """Settings of a lab of its own; none shares the lab of the cases before."""
    own_lab: bool
    """Whether the case starts what it needs itself, and gets a bench without a running lab."""


CASES: dict[int, Case] = {}


def case(
    number: int,
    title: str,
    *,
    done: str,
    promise: str,
    allowed: tuple[int, ...] = (),
    settings: dict[str, Any] | None = None,
    own_lab: bool = False,
) -> Callable[[Callable[["Bench"], str]], Callable[["Bench"], str]]:
    """Register a function as the case of this number."""

    def register(run: Callable[["Bench"], str]) -> Callable[["Bench"], str]:
        assert number not in CASES, f"two cases have the number {number}"
        CASES[number] = Case(number, title, done, promise, run, frozenset(allowed), settings or {}, own_lab)
        return run

    return register


def expect(true: object, what: str) -> None:
    """Raise Broken unless `true`."""
    if not true:
        raise Broken(what)


class Client:
    """Requests to the lab, every answer's status recorded; several threads may share it."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.seen: list[tuple[str, int]] = []
        limits = httpx.Limits(max_connections=1100, max_keepalive_connections=50)
        self.http = httpx.Client(base_url=url, headers=headers, timeout=90.0, limits=limits, trust_env=False)

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Any request; `path` is whole, as in /api/v1/experiments."""
        response = self.http.request(method, path, **kwargs)
        self.record(f"{method} {path}", response.status_code)
        return response

    def record(self, what: str, status: int) -> None:
        """Note the status of an answer that came by another way, over a bare socket for example."""
        self.seen.append((what, status))

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.request("POST", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.request("DELETE", path, **kwargs)

    def close(self) -> None:
        self.http.close()


class HealthzWatch:
    """Requests /healthz every HEALTHZ_SECONDS and keeps the slowest answer."""

    def __init__(self, url: str) -> None:
        self.slowest_seconds = 0.0
        self.slowest_at = 0.0
        """Seconds from the case's begin to the slowest request."""
        self.unanswered: list[str] = []
        self._since = time.monotonic()
        self._host = url.removeprefix("http://")
        self._stop = threading.Event()
        self._asking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="healthz-watch", daemon=True)
        self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Send no requests within this block, because the API is stopped on purpose."""
        with self._asking:
            yield

    def reset(self) -> None:
        self.slowest_seconds = self.slowest_at = 0.0
        self.unanswered = []
        self._since = time.monotonic()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(HEALTHZ_SECONDS):
            with self._asking:
                began = time.monotonic()
                connection = http.client.HTTPConnection(self._host, timeout=10.0)
                try:
                    connection.request("GET", "/healthz")
                    status = connection.getresponse().status
                    if status != 200:
                        self.unanswered.append(f"status {status}")
                except (OSError, http.client.HTTPException) as error:
                    self.unanswered.append(repr(error))
                finally:
                    connection.close()
                seconds = time.monotonic() - began
                if seconds > self.slowest_seconds:
                    self.slowest_seconds, self.slowest_at = seconds, began - self._since


@dataclass
class Bench(StoredExperiments):
    """A lab in a temporary folder, with methods to inspect it and to inject faults."""

    settings_changes: dict[str, Any]
    folder: Path = field(init=False)
    lab: Lab = field(init=False)
    store: Store = field(init=False)
    client: Client = field(init=False)
    healthz: HealthzWatch = field(init=False)
    said: list[str] = field(default_factory=list)
    extra_workers: list[ExtraWorker] = field(default_factory=list)
    running: bool = False

    def __post_init__(self) -> None:
        # A short name: the path of a socket must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()

    def start(self) -> "Bench":
        """Start broker, API and a worker, and wait until they answer."""
        processes.HEALTHY_AFTER_SECONDS = 0.0  # or every kill would double the pause before the next restart
        values = {
            "data_dir": self.folder / "data",
            "port": 0,
            "workers": 1,
            "device": "cpu",
            "lease_seconds": LEASE_SECONDS,
            "api_key": None,
            **self.settings_changes,
        }
        # One thread: two that meet after every small operation crawl when the machine's cores are busy elsewhere.
        variables = {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            self.lab = Lab(Settings(**values), say=self.said.append)
            self.lab.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        self.running = True
        self.store = Store(self.settings)
        key = self.lab.first_key
        self.client = Client(self.lab.url, {"Authorization": f"Bearer {key}"} if key else None)
        self.healthz = HealthzWatch(self.lab.url)
        if self.lab.workers:
            wait_until_ready(self.lab.workers[0].log, 0)
        return self

    def stop(self) -> None:
        """End every process of the lab. The folder stays."""
        if self.running:
            self.running = False
            self.healthz.close()
            self.end_extra_workers()
            self.lab.stop()
            self.client.close()
            self.store.dispose()

    def close(self) -> None:
        """Stop the lab and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def settings(self) -> Settings:
        return self.lab.settings

    # Processes

    @property
    def worker_pid(self) -> int:
        """The lab's own worker, which is started again by the lab when it ends."""
        pid = self.lab.workers[0].pid
        assert pid is not None
        return pid

    def start_worker(self, name: str, **variables: str) -> ExtraWorker:
        """Another worker beside the lab's; it is not started again when it ends."""
        environment = {**self.lab.workers[0].environment, **variables}
        worker = ExtraWorker(name, self.lab.logs, environment)
        self.extra_workers.append(worker)
        worker.wait_until_ready()
        return worker

    def end_extra_workers(self) -> None:
        for worker in self.extra_workers:
            worker.end()
        self.extra_workers.clear()

    @contextmanager
    def worker_comes_back(self, seconds: float = 120.0) -> Iterator[None]:
        """The lab's worker is to be ended within this block, which ends once the restarted worker is ready."""
        part = self.lab.workers[0]
        offset, restarts = part.log.stat().st_size, part.restarts
        yield
        wait_until(lambda: part.restarts > restarts, "the lab to start its worker again", seconds)
        wait_until_ready(part.log, offset, seconds)

    @contextmanager
    def lab_worker_stopped(self) -> Iterator[None]:
        """Within this block only extra workers run; the lab's own finishes its run first."""
        part = self.lab.workers[0]
        offset, restarts = part.log.stat().st_size, part.restarts
        with self.unattended():
            part.terminate()
            wait_until(lambda: part.exit_code() is not None, "the lab's worker to end", 15)
            yield
        wait_until(lambda: part.restarts > restarts, "the lab to start its worker again")
        wait_until_ready(part.log, offset)

    @contextmanager
    def unattended(self) -> Iterator[None]:
        """Within this block no process that ends is restarted."""
        with self.lab._supervising:
            yield

    def training_process(self, experiment_id: int, worker_pid: int | None = None) -> int:
        """The process that trains an experiment, once it does."""
        self.wait_for(experiment_id, Status.RUNNING)
        pid = worker_pid or self.worker_pid
        return wait_until(lambda: jobs_of(pid), f"the training process of experiment {experiment_id}", 30)[0]

    # Experiments, over HTTP

    def submit(self, **changes: Any) -> int:
        """POST a spec; the number of the experiment that was accepted."""
        response = self.client.post(f"{API}/experiments", json=short_spec(**changes))
        expect(response.status_code == 202, f"POST was answered {response.status_code}: {response.text[:300]}")
        return int(response.json()["id"])

    def cancel(self, experiment_id: int) -> httpx.Response:
        return self.client.post(f"{API}/experiments/{experiment_id}/cancel")

    # Experiments, as they are stored

    def catch_training(self, epoch: int, **changes: Any) -> tuple[int, int, dict[str, Any]]:
        """A run that is stopped (SIGSTOP) between epoch `epoch` and its last: experiment, process, the spec's changes.

        On a machine so fast that the run ends first it is tried again with more epochs.
        """
        for epochs in (3 * epoch, 12 * epoch, 48 * epoch, 192 * epoch):
            changes = {**changes, "epochs": epochs}
            number = self.submit(**changes)
            wait_until(lambda number=number: self.has_come(number, epoch), f"epoch {epoch} of experiment {number}")  # type: ignore[misc]
            jobs = jobs_of(self.worker_pid) + [job for worker in self.extra_workers for job in jobs_of(worker.pid)]
            if jobs and not self.status(number).terminal:
                self.put_to_sleep(jobs[0])
                if self.status(number) is Status.RUNNING and len(self.history(number)) < epochs:
                    return number, jobs[0], changes
                kill(jobs[0], signal.SIGCONT)
            self.wait_for(number, Status.COMPLETED)
        raise Broken(f"{epochs} epochs end before they can be disturbed")

    def has_come(self, experiment_id: int, epoch: int) -> bool:
        """Whether so many epochs are stored, or the run has ended."""
        return len(self.history(experiment_id)) >= epoch or self.status(experiment_id).terminal


def short_spec(**changes: Any) -> dict[str, Any]:
    """Real images, few of them; about a second of training."""
    return {
        "model": "baseline",
        "dataset": {"name": "cifar10", "train_limit": 640, "val_limit": 200},
        "epochs": 3,
        "batch_size": 32,
        **changes,
    }


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Send a signal to a process; one that has ended is ignored."""
    with suppress(ProcessLookupError):
        os.kill(pid, signum)


def progress(text: str) -> None:
    """Print a progress line."""
    print(text, file=sys.stderr, flush=True)
