"""Starts and uses the nursery, a process that has imported torch and forks a process for each job (a fork server).

Spawning a process costs seconds of importing; a fork of this one is ready in milliseconds. It is written here rather
than taken from multiprocessing's forkserver because that one is kept alive by its own children (they hold its "alive"
pipe, so kill -9 of the worker would leave a training process behind), dies of a SIGTERM that a service manager sends to
every process of a group, and reads exit codes in a way that two threads must not do at once.

The worker holds the only other end of the control socket, so the nursery exits when the worker does; each job
asks the kernel to kill it when the nursery ends (PR_SET_PDEATHSIG), stopped or not.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from functools import lru_cache

from models.imports import module_command, own_packages_first
from worker.messages import Job, Report
from worker.processes.forking import NUMBER

ENTRY = "worker.processes.child:run_job"
"""The function that a fork calls. The nursery imports its module, and with it torch, before it forks."""

START_SECONDS = 600.0
"""How long a fork may wait for the nursery's imports: seconds as a rule, minutes on an overloaded machine."""

PATIENCE_SECONDS = 0.25
"""How often a wait checks whether to stop."""


class NurseryError(Exception):
    """No training process could be started."""


class JobProcess:
    """A forked process with a session and process group of its own, and the two pipes to it.

    Reports come from it as lines of JSON, orders go to it the same way. Only the thread that spawned a job uses it;
    `kill` may be called by any thread.
    """

    def __init__(self, pid: int, reports: int, orders: int, status: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self._reports, self._orders, self._status = reports, orders, status
        self._buffer = b""
        self._reports_ended = False
        self._lock = threading.Lock()
        self._closed = False
        os.set_blocking(reports, False)
        os.set_blocking(orders, False)

    def read(self, timeout: float) -> list[Report]:
        """Read the reports that have arrived, waiting up to `timeout` seconds for one or for the exit.

        Once `exit_code` is set, every report has been returned.
        """
        with selectors.DefaultSelector() as selector:
            if not self._reports_ended:
                selector.register(self._reports, selectors.EVENT_READ)
            if self.exit_code is None:
                selector.register(self._status, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(timeout)} if selector.get_map() else set()
        ended = self._status in ready
        reports = self._drain() if self._reports in ready or ended else []
        if ended:
            try:
                self.exit_code = _read_number(self._status)
            except EOFError:  # the nursery has ended, and its jobs with it
                self.exit_code = -signal.SIGKILL
        return reports

    def order(self, word: str) -> None:
        """Send an order (cancel or shutdown). Does nothing if the job has ended or does not read."""
        with self._lock, contextlib.suppress(BrokenPipeError, BlockingIOError):
            if not self._closed:
                os.write(self._orders, word.encode() + b"\n")

    def signal(self, signum: int) -> None:
        """Send a signal to every process of the job's group."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signum)

    def kill(self) -> None:
        """Kill every process of the job's group."""
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left of the group and close the pipes."""
        self.kill()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for fd in (self._reports, self._orders, self._status):
                os.close(fd)

    def __enter__(self) -> "JobProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drain(self) -> list[Report]:
        while not self._reports_ended:
            try:
                data = os.read(self._reports, 65536)
            except BlockingIOError:
                break
            self._buffer += data
            self._reports_ended = not data
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]


class Nursery:
    """The worker's fork server: starts the process that forks (again when it has ended), and requests forks from it."""

    def __init__(self, entry: str = ENTRY) -> None:
        self._entry = entry
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The nursery's process id, when one has been started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the nursery if none is running; returns before its imports are done."""
        with self._lock:
            self._start()

    def spawn(self, job: Job, give_up: Callable[[], bool] = lambda: False) -> JobProcess:
        """Fork a process that does a job (see worker.processes.child).

        Waits while the nursery imports, until `give_up` returns true. Raises NurseryError if no process starts.
        """
        for attempt in (1, 2):
            with self._lock:
                self._start()
                asked, pipes = self._process, self._ask()
            try:
                return pipes.start(job, give_up)
            except BaseException as error:
                pipes.close()
                if isinstance(error, EOFError | TimeoutError):  # it has ended or hangs, and its other jobs with it
                    with self._lock:
                        if self._process is asked:
                            self._stop()
                if not isinstance(error, OSError | EOFError):
                    raise
                if attempt == 2:
                    raise NurseryError(f"no training process could be started: {error}") from error
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """Kill the nursery, and with it every job."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [str(theirs.fileno()), self._entry, str(os.getpid())]
            self._process = subprocess.Popen(  # noqa: S603 (our own command line)
                module_command("worker.processes.forking", *arguments),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=own_packages_first(os.environ),
            )
        self._control = ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self) -> "_Pipes":
        """Request a fork: send the other ends of a new job's pipes."""
        assert self._control is not None
        pipes = _Pipes()
        far = (pipes.orders[0], pipes.reports[1], pipes.status[1])
        with contextlib.suppress(BrokenPipeError):  # then the status pipe ends, which is handled
            socket.send_fds(self._control, [b"f"], far)
        for fd in far:
            os.close(fd)
        return pipes


class _Pipes:
    """The pipes of a job that has been requested; only this side's ends once the request is sent."""

    def __init__(self) -> None:
        self.orders, self.reports, self.status = os.pipe(), os.pipe(), os.pipe()

    def start(self, job: Job, give_up: Callable[[], bool]) -> JobProcess:
        """Wait until the job's process is forked and send it the job."""
        pid = _read_number(self.status[0], START_SECONDS, give_up)
        if pid < 0:
            raise OSError(-pid, f"fork: {os.strerror(-pid)}")
        _write_all(self.orders[1], json.dumps(job).encode() + b"\n")
        return JobProcess(pid, self.reports[0], self.orders[1], self.status[0])

    def close(self) -> None:
        """Close this side's ends."""
        for fd in (self.orders[1], self.reports[0], self.status[0]):
            os.close(fd)


@lru_cache(maxsize=1)
def get_nursery() -> Nursery:
    """The nursery of this worker."""
    return Nursery()


def _read_number(fd: int, timeout: float = float("inf"), give_up: Callable[[], bool] = lambda: False) -> int:
    """Read eight bytes as a number; EOFError when the other side has closed, TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while len(data) < NUMBER.size:
            if not selector.select(PATIENCE_SECONDS):
                if give_up():
                    raise NurseryError("the wait for a training process was cancelled")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the process that forks training processes did not answer within {timeout:g} s")
                continue
            piece = os.read(fd, NUMBER.size - len(data))
            if not piece:
                raise EOFError("the process that forks training processes has ended")
            data += piece
    return int(NUMBER.unpack(data)[0])


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
