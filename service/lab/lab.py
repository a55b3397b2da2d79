"""A whole lab on one machine: broker, API and workers as child processes that end with this one.

    with Lab(settings) as lab:
        requests go to lab.url

Used by `epochal up`, `epochal demo`, the system tests and the benchmarks.
"""

import contextlib
import fcntl
import http.client
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from models.devices import check_device
from models.errors import EpochalError, Unavailable
from models.imports import module_command, own_packages_first
from models.private import close_to_others, private
from models.settings import Settings
from models.urls import mask
from service.lab.address import LOCK_FILE, reachable_url, remove_address, running_lab, write_address
from service.lab.broker import EmbeddedBroker
from service.lab.processes import Part, describe_exit

POLL_SECONDS = 0.05
SUPERVISE_SECONDS = 0.2
TRIM_ROUNDS = 10
BROKER_START_SECONDS = 10.0
START_SECONDS = 120.0
"""The first import of torch from a cold disk is slow; a process that exits is still noticed at once."""
GRACE_SECONDS = {"api": 5.0, "worker": 15.0, "broker": 5.0}


class LabFailed(EpochalError):
    """A part of the lab did not start."""

    code = "lab-failed"
    title = "The lab did not start"


class LabStopped(Exception):
    """A stop was requested while the lab was starting."""


class Lab:
    """Broker, API and workers of one data directory. `start` returns when all of them answer; `stop` ends them all."""

    def __init__(self, settings: Settings, say: Callable[[str], None] = lambda text: None) -> None:
        self.settings = settings
        self.say = say
        self.first_key: str | None = None
        """The API key created at this start, if any; only its hash is stored, so it cannot be shown again."""
        self.broker: Part | None = None
        self.api: Part | None = None
        self.workers: list[Part] = []
        self._embedded: EmbeddedBroker | None = None
        self._lock: IO[str] | None = None
        self._stop_requested = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._supervising = threading.Lock()
        self._all_ended = threading.Event()

    @property
    def url(self) -> str:
        """URL of the API on this machine."""
        return self.settings.url

    @property
    def stopping(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_requested.is_set()

    @property
    def parts(self) -> list[Part]:
        """All processes of the lab, in the order in which they are stopped."""
        return [part for part in (self.api, *self.workers, self.broker) if part]

    @property
    def logs(self) -> Path:
        """Folder with one log per process."""
        return self.settings.data_dir / "logs"

    def start(self) -> None:
        """Start all processes and wait until they answer. Raises LabFailed, after ending what was started."""
        try:
            with private():
                self._prepare()
                self._start_broker()
                self._prepare_store()
                self._start_api_and_workers()
                write_address(self.settings.data_dir, self.url)
        except BaseException:
            self.stop()
            raise
        self._supervisor = threading.Thread(target=self._supervise, name="lab-supervisor", daemon=True)
        self._supervisor.start()

    def stop(self) -> None:
        """Stop the API and the workers, which requeue their runs, then the broker. May be called again."""
        self._stop_requested.set()
        with self._supervising:
            pass  # no process is restarted from here on
        first = [part for part in (self.api, *self.workers) if part]
        for parts in (first, [self.broker] if self.broker else []):
            for part in parts:
                part.terminate()
            now = time.monotonic()
            for part in parts:
                part.wait_or_kill(now + part.grace_seconds)
        self._all_ended.set()
        if self._supervisor:
            self._supervisor.join()
        if self._embedded:
            self._embedded.clean_up()
        if self._lock:
            remove_address(self.settings.data_dir)
            self._lock.close()
            self._lock = None

    def request_stop(self) -> None:
        """Make `start` and `wait` return soon; safe to call from a signal handler."""
        self._stop_requested.set()

    def wait(self) -> None:
        """Block until a stop is requested."""
        self._stop_requested.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        """Create the folders, take the lock, and complete the settings: a free port, the URL, allowed host names."""
        if self.settings.workers:
            check_device(self.settings.device)
        data_dir = self.settings.data_dir
        try:
            if said := close_to_others(data_dir):
                self.say(said)
            (data_dir / "logs").mkdir(exist_ok=True)
            self._lock = lock_data_dir(data_dir)
        except OSError as error:
            raise LabFailed(
                f"{data_dir} cannot be used as the data directory: {error.strerror}",
                fix="Choose a folder that you can write to: --data-dir or EPOCHAL_DATA_DIR.",
            ) from error
        port = _claim_port(self.settings.host, self.settings.port)
        open_to_others = not is_loopback(self.settings.host)
        changes: dict[str, Any] = {
            "port": port,
            "url": reachable_url(self.settings.host, port),
            "auth": self.settings.auth or open_to_others,
        }
        if open_to_others and "allowed_hosts" not in self.settings.model_fields_set:
            changes["allowed_hosts"] = [*self.settings.allowed_hosts, *names_of_this_machine(self.settings.host)]
        self.settings = self.settings.model_copy(update=changes)

    def _start_broker(self) -> None:
        if self.settings.broker_url:
            _await_external_broker(self.settings, self._stop_requested)
            return
        embedded = self._embedded = EmbeddedBroker(self.settings.data_dir)
        self.settings = self.settings.model_copy(update={"broker_url": embedded.url})
        self.broker = self._part("broker", embedded.command, folder=embedded.folder)
        self.broker.start()
        try:
            self._await(self.broker, embedded.answers, BROKER_START_SECONDS)
        except LabFailed:
            aside = embedded.set_aside() if self.broker.exit_code() is not None else None
            if aside is None:
                raise
            self.say(f"the broker's file was damaged and is now {aside}; the queue is rebuilt from the database")
            self.broker.start()
            self._await(self.broker, embedded.answers, BROKER_START_SECONDS)

    def _prepare_store(self) -> None:
        """Migrate the database before several processes use it; create the first API key if keys are required."""
        from models.store import Store, keys  # SQLAlchemy: not for commands that only talk HTTP
        from models.store.store import describe_database

        store = Store(self.settings)
        try:
            store.migrate()
            if self.settings.auth:
                with store.writing() as session:
                    self.first_key = keys.create_first(session)
        except Unavailable as error:
            raise LabFailed(f"{describe_database(self.settings)}: {error.detail}", fix=error.fix) from error
        finally:
            store.dispose()

    def _start_api_and_workers(self) -> None:
        self.api = self._part("api", partial(module_command, "service.server"))
        numbers = range(1, self.settings.workers + 1)
        self.workers = [self._part(f"worker-{number}", partial(module_command, "worker")) for number in numbers]
        for part in (self.api, *self.workers):
            part.start()
        self._await(self.api, lambda: answers(self.url, "/healthz"), START_SECONDS)
        for worker in self.workers:
            self._await(worker, lambda: answers(self.url, "/readyz"), START_SECONDS)

    def _part(self, name: str, command: Callable[[], list[str]], folder: Path | None = None) -> Part:
        return Part(
            name=name,
            command=command,
            log=self.logs / f"{name}.log",
            folder=folder or self.settings.data_dir,
            environment={**environment_of(self.settings), "PYTHONUNBUFFERED": "1"},
            grace_seconds=GRACE_SECONDS[name.partition("-")[0]],
        )

    def _await(self, part: Part, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready`. A part that ends, or takes longer than `seconds`, is a LabFailed with its last words."""
        deadline = time.monotonic() + seconds
        while not ready():
            code = part.exit_code()
            if code is not None or time.monotonic() > deadline:
                what = f"ended ({describe_exit(code)})" if code is not None else f"did not answer within {seconds:g} s"
                raise LabFailed(f"{part.name} {what}; its log ends with:\n{part.last_lines()}", fix=f"Read {part.log}")
            if self._stop_requested.wait(POLL_SECONDS):
                raise LabStopped

    def _supervise(self) -> None:
        """Restart processes that have ended.

        PR_SET_PDEATHSIG ties them to the thread that started them, so this one runs until all have ended.
        """
        rounds = 0
        while not self._stop_requested.wait(SUPERVISE_SECONDS):
            rounds += 1
            with self._supervising:
                if self._stop_requested.is_set():
                    break
                for part in self.parts:
                    self._look_after(part, trim=rounds % TRIM_ROUNDS == 0)
        self._all_ended.wait()

    def _look_after(self, part: Part, trim: bool) -> None:
        try:
            if said := part.revive():
                self.say(said)
        except OSError as error:  # out of memory or descriptors, a full disk: retried in the next round
            self.say(f"{part.name} could not be started: {error}")
        if trim:
            part.trim_log()


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment for a child process, with all settings as variables."""
    values = settings.model_dump(mode="json", exclude_none=True)
    names = {f"EPOCHAL_{name.upper()}" for name in type(settings).model_fields}
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return own_packages_first(inherited) | {
        f"EPOCHAL_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def answers(url: str, path: str) -> bool:
    """Whether a GET of the path returns 200 within two seconds."""
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of_this_machine(host: str) -> list[str]:
    """List this machine's names and addresses: the Host headers of requests from other machines."""
    import psutil

    addresses = [
        address.address.partition("%")[0]
        for found in psutil.net_if_addrs().values()
        for address in found
        if address.family in (socket.AF_INET, socket.AF_INET6)
    ]
    bracketed = [f"[{address}]" if ":" in address else address for address in addresses]
    return sorted({*bracketed, socket.gethostname(), socket.getfqdn(), host} - {"0.0.0.0", "::"})  # noqa: S104


def lock_data_dir(data_dir: Path) -> IO[str]:
    """Lock a data directory for one lab. Raises LabFailed if another has it.

    The kernel releases the lock when the process ends, however it ends.
    """
    lock = (data_dir / LOCK_FILE).open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        owner = running_lab(data_dir)
        where = f" at {owner['url']} (process {owner['pid']})" if owner else ""
        raise LabFailed(
            f"a lab{where} already uses {data_dir}",
            fix="Use that lab, stop it first, or start another with a different --data-dir.",
        ) from None
    return lock


def _claim_port(host: str, port: int) -> int:
    """Return the port if it is free, or a free one for 0. Raises LabFailed if it cannot be bound."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LabFailed(f"the host {host!r} has no address: {reason}", fix="Use --host 127.0.0.1.") from error
    except OSError as error:
        raise LabFailed(
            f"port {port} on {host} cannot be used: {error.strerror}", fix="Use --port 0 for any free port."
        ) from error


def _await_external_broker(settings: Settings, stop: threading.Event) -> None:
    from models import queue  # imports Celery: only for an external broker

    celery = queue.make_celery(settings)
    deadline = time.monotonic() + BROKER_START_SECONDS
    while (trouble := queue.find_trouble(celery)) is not None:
        if trouble.lasting or time.monotonic() > deadline:
            raise LabFailed(
                f"the broker at {mask(str(settings.broker_url))} {trouble.reason}",
                fix="Start it, correct --broker-url, or leave it out: the lab then starts its own broker.",
            )
        if stop.wait(0.5):
            raise LabStopped
    with contextlib.suppress(Exception):
        celery.close()
