"""Watches one training process until it exits, and derives the run's outcome from its exit."""

import signal
import threading
import time
from dataclasses import dataclass
from typing import Literal

import structlog

from models.progress import TestResult
from models.store.states import Status
from worker.lease import Lease
from worker.messages import OutcomeJson, Report
from worker.processes.memory import oom_kills
from worker.processes.nursery import JobProcess

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25
LONGEST_TICK_SECONDS = 2.0
"""A tick that took longer was a pause of this process (SIGSTOP, a suspended machine), not the child's silence."""

CANCEL_GRACE_SECONDS = 15.0
"""From asking for a cancel to SIGKILL: enough for one step and for saving the last weights."""

SHUTDOWN_GRACE_SECONDS = 6.0
"""The same for a shutdown, which must leave time to hand the run back within 10 s in all."""

EXIT_GRACE_SECONDS = 5.0
"""From a process's report of its outcome to SIGKILL, if it has not exited."""

OUT_OF_MEMORY = "the training process ran out of memory"
SHUT_DOWN = "the worker was shut down"


@dataclass(frozen=True)
class End:
    """The outcome of an attempt: store an end, hand the run back, or leave it to another worker."""

    action: Literal["settle", "hand_back", "leave"]
    status: Status = Status.FAILED
    reason: str | None = None
    test: TestResult | None = None
    counts: bool = True
    """Whether a hand-back counts as a failed attempt."""


class Supervisor:
    """Watches one training process: passes on what is asked of it, and kills it when it does not respond."""

    def __init__(self, job: JobProcess, lease: Lease, shutdown: threading.Event, stall_seconds: float) -> None:
        self._job = job
        self._lease = lease
        self._shutdown = shutdown
        self._stall_seconds = stall_seconds
        self._outcome: OutcomeJson | None = None
        self._asked: Literal["cancel", "shutdown", "stall"] | None = None
        self._told_to_stop = False
        self._kill_at = float("inf")
        self._silent_seconds = 0.0
        self._oom_kills = oom_kills()

    def run(self) -> End:
        """Watch until the process exits; no process of its group is left when this returns."""
        ticked = time.monotonic()
        while self._job.exit_code is None:
            reports = self._job.read(TICK_SECONDS)
            for report in reports:
                self._take(report)
            now = time.monotonic()
            self._silent_seconds = 0.0 if reports else self._silent_seconds + min(now - ticked, LONGEST_TICK_SECONDS)
            ticked = now
            self._decide(now)
        self._job.close()
        end = self._end(self._job.exit_code)
        log.info("training process ended", experiment=self._lease.claim.experiment_id, pid=self._job.pid,
                 exit_code=self._job.exit_code, action=end.action, reason=end.reason)  # fmt: skip
        return end

    def _take(self, report: Report) -> None:
        if "progress" in report:
            self._lease.progress = report["progress"]
        elif "outcome" in report:
            self._outcome = report["outcome"]
            self._kill_at = min(self._kill_at, time.monotonic() + EXIT_GRACE_SECONDS)

    def _decide(self, now: float) -> None:
        """Pass on what is asked of the run, and kill a process that stalls or exceeds its grace period."""
        if self._lease.lost:
            self._job.kill()
        elif self._shutdown.is_set() and self._asked != "shutdown":
            self._ask("shutdown", now + SHUTDOWN_GRACE_SECONDS)
        elif self._asked is None and self._lease.cancel_requested:
            self._ask("cancel", now + CANCEL_GRACE_SECONDS)
        elif self._asked is None and self._lease.stop_requested and not self._told_to_stop:
            self._told_to_stop = True  # it measures its best weights before it ends, which takes as long as it takes
            self._job.order("stop")
            self._job.signal(signal.SIGTERM)
        elif self._asked is None and self._silent_seconds > self._stall_seconds:
            self._asked = "stall"
            self._job.kill()
        if now >= self._kill_at:
            self._job.kill()

    def _ask(self, word: Literal["cancel", "shutdown"], kill_at: float) -> None:
        if self._asked is None:  # a process that was asked to cancel is saving its weights and exits: no second order
            self._job.order(word)
            self._job.signal(signal.SIGTERM)
        self._asked = word
        self._kill_at = min(self._kill_at, kill_at)

    def _end(self, exit_code: int) -> End:
        if self._lease.lost:
            return End("leave", reason="another worker owns the run")
        outcome = self._outcome
        if outcome and outcome["kind"] == "lost":
            return End("leave", reason="another worker owns the run")
        if outcome and outcome["kind"] == "settle":
            return End("settle", Status(outcome["status"]), outcome["reason"], outcome["test"])
        if self._lease.cancel_requested:
            return End("settle", Status.CANCELLED)
        if outcome and outcome["kind"] == "handed_back":
            return End("hand_back", reason=outcome.get("reason") or SHUT_DOWN, counts=False)
        if self._asked == "shutdown":
            reason = outcome["reason"] if outcome else SHUT_DOWN
            return End("hand_back", reason=reason, counts=False)
        if outcome:
            return End("hand_back", reason=outcome["reason"])
        if self._asked == "stall":
            return End("hand_back", reason=f"training made no progress for {self._stall_seconds:g} s and was ended")
        if exit_code == -signal.SIGKILL and oom_kills() > self._oom_kills:
            return End("settle", Status.FAILED, f"{OUT_OF_MEMORY} and was ended by the kernel")
        return End("hand_back", reason=f"the training process {_how_it_died(exit_code)}")


def _how_it_died(exit_code: int) -> str:
    if exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"exited with code {exit_code} without a result"
