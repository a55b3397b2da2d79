"""Worker processes of a lab under test: ready ones, extra ones, and what trains below them."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil

from benchmarks.faults.waiting import Broken, wait_until
from models.imports import module_command, own_packages_first
from service.lab.tether import tethered

READY = b"worker ready to train"


def wait_until_ready(log: Path, offset: int, seconds: float = 120.0) -> None:
    """Wait until a worker logs, after `offset`, that its nursery is warm."""
    try:
        wait_until(lambda: READY in log.read_bytes()[offset:], "a worker", seconds)
    except Broken as error:
        raise Broken(f"{error}; {log.name} ends: {tail(log)}") from None


def tail(log: Path, num_lines: int = 5) -> str:
    """The end of a log."""
    return " | ".join(log.read_text(errors="replace").splitlines()[-num_lines:])


def jobs_of(worker_pid: int) -> list[int]:
    """The processes forked from a worker's nursery: the training process, and measurements."""
    try:
        nurseries = psutil.Process(worker_pid).children()
        return [child.pid for nursery in nurseries for child in nursery.children()]
    except psutil.NoSuchProcess:
        return []


def family_of(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


class ExtraWorker:
    """One `python -m worker` that ends with this process and is not restarted."""

    def __init__(self, name: str, logs: Path, environment: Mapping[str, str], command: list[str] | None = None) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                tethered(command or module_command("worker", "--name", name)),
                env=own_packages_first(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def wait_until_ready(self, seconds: float = 120.0) -> None:
        wait_until_ready(self.log, self._offset, seconds)

    def kill(self) -> None:
        """kill -9 of the worker alone; its children must end without help."""
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """End it by SIGTERM, or by SIGKILL if it does not exit."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.send_signal(18)  # SIGCONT, should it be stopped
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
