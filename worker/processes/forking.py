"""The nursery process: imports torch without computing, and forks a process for each request (see nursery.py)."""

import contextlib
import ctypes
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable, Generator
from typing import NoReturn

from worker.training.threads import limit_spinning

NUMBER = struct.Struct("q")
"""The format in which pids and exit codes are sent."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def set_parent_death_signal(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it, ends; exit if it already has."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def clear_parent_death_signal() -> None:
    """Undo `set_parent_death_signal`."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


def serve(control: socket.socket, entry: str, worker: int) -> NoReturn:
    """Run the nursery: import, then fork a process for each request until the worker exits.

    A request is a byte with three descriptors: the job reads orders from the first, writes reports to the second, and
    this process writes its pid and later its exit code to the third.
    """
    set_parent_death_signal(worker)  # during the imports it does not read the control socket
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    limit_spinning()
    module, _, function = entry.partition(":")
    run_job: Callable[[int, int], int] = getattr(importlib.import_module(module), function)
    clear_parent_death_signal()  # it is tied to the thread that started this process, which may end before the worker
    status_of: dict[int, int] = {}
    nursery = os.getpid()
    requests = _requests(control, status_of)
    for orders, reports, status in requests:
        try:
            pid = os.fork()
        except OSError as error:
            os.write(status, NUMBER.pack(-(error.errno or 1)))
            pid = -1
        if pid == 0:
            requests.close()
            for fd in (control.fileno(), status, *status_of.values()):
                os.close(fd)
            _run_in_fork(nursery, orders, reports, run_job)
        for fd in (orders, reports):
            os.close(fd)
        if pid > 0:
            status_of[pid] = status
            with contextlib.suppress(BrokenPipeError):
                os.write(status, NUMBER.pack(pid))
        else:
            os.close(status)
    os._exit(0)


def _requests(control: socket.socket, status_of: dict[int, int]) -> Generator[tuple[int, int, int]]:
    """Yield requests as they arrive and reap exited jobs in between; ends when the worker exits."""
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_r, False)
    os.set_blocking(wake_w, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wakeup descriptor is written to
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    with os.fdopen(wake_r, "rb", 0), os.fdopen(wake_w, "wb", 0), selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(wake_r, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake_r in ready:
                os.read(wake_r, 65536)
                _reap(status_of)
            if control.fileno() in ready:
                try:
                    word, fds, _, _ = socket.recv_fds(control, 1, 3)
                except ConnectionError:
                    return
                if not word:
                    return
                yield fds[0], fds[1], fds[2]


def _reap(status_of: dict[int, int]) -> None:
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        status = status_of.pop(pid, None)
        if status is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(wait_status)))
            os.close(status)


def _run_in_fork(nursery: int, orders: int, reports: int, run_job: Callable[[int, int], int]) -> NoReturn:
    """Run the job in a fork: own session, default signals, killed by the kernel when the nursery ends."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        os.setsid()
        set_parent_death_signal(nursery)
        code = run_job(orders, reports)
    except BaseException:  # noqa: BLE001 - a fork must never return into the nursery's loop
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], int(sys.argv[3]))
