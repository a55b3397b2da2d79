"""A child process of the lab: its log file, restarts with exponential backoff, and its end."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from models.private import UMASK, open_privately
from service.lab.tether import tethered

LARGEST_LOG_BYTES, KEPT_LOGS = 10_000_000, 5
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
HEALTHY_AFTER_SECONDS = 60.0


@dataclass(slots=True)
class Part:
    """One of the lab's processes, in its own session, so that Ctrl-C in the terminal reaches the lab only."""

    name: str
    command: Callable[[], list[str]]
    log: Path
    folder: Path
    environment: Mapping[str, str]
    grace_seconds: float
    """Time to exit after SIGTERM before it is killed."""
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    _started_at: float = field(default=0.0, repr=False)
    _deaths_in_a_row: int = field(default=0, repr=False)
    _restart_at: float | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        """The process id; None if there is no process."""
        return self.process.pid if self.process else None

    def start(self) -> None:
        """Start the process; its output is appended to the log."""
        with open_privately(self.log) as log:
            self.process = subprocess.Popen(  # noqa: S603 (the lab's own command lines)
                tethered(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=dict(self.environment),
                start_new_session=True,
                umask=UMASK,
            )
        self._started_at, self._restart_at = time.monotonic(), None

    def exit_code(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self.process.poll() if self.process else None

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.process and self.process.poll() is None:
            self.process.terminate()

    def kill_group(self) -> None:
        """Send SIGKILL to the process and its children (its process group)."""
        if self.process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def wait_or_kill(self, deadline: float) -> None:
        """Wait for the process to exit until `deadline` (monotonic), then kill its whole process group."""
        if self.process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        self.kill_group()
        self.process.wait()
        self.process = None

    def revive(self) -> str | None:
        """Restart the process if it has ended, after a pause that doubles with each consecutive failure.

        Returns a sentence to print when something happened.
        """
        code = self.exit_code()
        if code is None:
            return None
        now = time.monotonic()
        if self._restart_at is None:
            self.kill_group()
            lived = now - self._started_at
            self._deaths_in_a_row = 1 if lived > HEALTHY_AFTER_SECONDS else self._deaths_in_a_row + 1
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self._deaths_in_a_row - 1))
            self._restart_at = now + pause
            return f"{self.name} ended ({describe_exit(code)}); restarting in {pause:g} s; see {self.log}"
        if now < self._restart_at:
            return None
        self.restarts += 1
        self.start()
        return f"{self.name} was restarted (process {self.pid})"

    def trim_log(self) -> None:
        """Rotate the log if it is large: copy and truncate, since writers have it open for appending."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size <= LARGEST_LOG_BYTES:
                return
            kept = [self.log.with_suffix(f".log.{number}") for number in range(1, KEPT_LOGS + 1)]
            for newer, older in reversed(list(pairwise(kept))):
                if newer.exists():
                    newer.replace(older)
            shutil.copyfile(self.log, kept[0])
            os.truncate(self.log, 0)

    def last_lines(self, count: int = 12) -> str:
        """Return the last lines of the log, for an error message."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])
        except OSError:
            return ""


def describe_exit(code: int) -> str:
    """Describe an exit code: 'exit code 1', 'SIGKILL'."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
