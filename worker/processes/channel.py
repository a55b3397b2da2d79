"""A job's ends of its two pipes: it reads orders and writes reports, one per line.

Reports are written without blocking: a supervisor that is stopped or busy must not stall training, so what does
not fit into the pipe is dropped. Only the outcome, which comes last, blocks.
"""

import json
import os
import sys

from worker.messages import Job, Report

ATOMIC_BYTES = 4096 if sys.platform == "linux" else 512
"""A write to a pipe of at most this many bytes is atomic (PIPE_BUF), so that no report is truncated."""


class Channel:
    """The two pipes to the supervisor."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        self._buffer = b""

    def job(self) -> Job:
        """Read the first line, the job. Blocks until it has come."""
        while b"\n" not in self._buffer:
            piece = os.read(self._orders, 65536)
            if not piece:
                os._exit(1)  # the supervisor exited before it sent a job
            self._buffer += piece
        line, self._buffer = self._buffer.split(b"\n", 1)
        os.set_blocking(self._orders, False)
        os.set_blocking(self._reports, False)
        job: Job = json.loads(line)
        return job

    def order(self) -> str | None:
        """The newest order, None if none has come. Never blocks."""
        try:
            while piece := os.read(self._orders, 4096):
                self._buffer += piece
        except BlockingIOError:
            pass
        *words, self._buffer = self._buffer.split(b"\n")
        return words[-1].decode() if words else None

    def report(self, report: Report) -> None:
        """Send a report, or drop it if the pipe is full."""
        line = json.dumps(report).encode() + b"\n"
        if len(line) <= ATOMIC_BYTES:
            try:
                os.write(self._reports, line)
            except BlockingIOError:
                pass
            except BrokenPipeError:
                os._exit(1)  # the supervisor has exited

    def report_outcome(self, report: Report) -> None:
        """Send the outcome. Blocks while the pipe is full."""
        data = json.dumps(report).encode() + b"\n"
        try:
            os.set_blocking(self._reports, True)
            while data:
                data = data[os.write(self._reports, data) :]
        except BrokenPipeError:
            os._exit(1)
