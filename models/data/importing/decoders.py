"""Runs several decoder processes in parallel, and replaces one that a file has ended."""

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Self

from models.data.decoder_process import MAX_SECONDS, MODULE, Answer, Config, File, Outcome, read_answer, send
from models.imports import module_command, own_packages_first

Results = list[tuple[File, Outcome]]


class Decoders:
    """A pool of decoder processes and the batches they work on. Use it in a `with` block."""

    def __init__(self, count: int, *, ahead: int = 0) -> None:
        """As many as `ahead` of the processes are started at once, while nothing is known of the images."""
        self.count = count
        self._config: Config | None = None
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle = [_start() for _ in range(min(ahead, count))]
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        self._waiting: deque[Future[Results]] = deque()
        self._most_waiting = 2 * count + 1
        self._stopping = False

    def begin(self, config: Config) -> None:
        """Say how images are decoded, and into which files. Before the first batch."""
        self._config = config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        for future in self._waiting:
            future.cancel()
        with self._lock:
            for process in (*self._processes, *self._idle):
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in (*self._processes, *self._idle):
            _close(process)

    def submit(self, files: Sequence[File], channels: int) -> Iterator[tuple[File, Outcome]]:
        """Pass a batch to the next free decoder. Returns the outcomes of earlier batches once several have finished."""
        self._waiting.append(self._threads.submit(self._work, files, channels))
        while len(self._waiting) > self._most_waiting:
            yield from self._waiting.popleft().result()

    def drain(self) -> Iterator[tuple[File, Outcome]]:
        """The outcomes of all remaining batches."""
        while self._waiting:
            yield from self._waiting.popleft().result()

    @property
    def busy(self) -> bool:
        """Whether batches are waiting for their results to be taken."""
        return bool(self._waiting)

    def _work(self, files: Sequence[File], channels: int) -> Results:
        outcomes: list[Outcome] = []
        while len(outcomes) < len(files):
            left = files[len(outcomes) :]
            found = self._ask(left, channels)
            outcomes += found
            if len(found) == len(left):
                break
            # the process has ended; answers come in pieces, so that any of the other files may be the reason
            self._end()
            for file in left[len(found) :]:
                if answered := self._ask([file], channels):
                    outcomes += answered
                else:
                    outcomes.append(_fault(self._end()))
                    break
        return list(zip(files, outcomes, strict=True))

    def _ask(self, files: Sequence[File], channels: int) -> list[Outcome]:
        """The outcomes of a batch, or of the first of its files if the process ends."""
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            send(process.stdin, files, channels)
        return read_answer(process.stdout, len(files))

    def _process(self) -> subprocess.Popen[bytes]:
        if self._stopping:
            raise RuntimeError("the import was stopped")  # seen by no one: nobody waits for the batch
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            assert self._config is not None
            with self._lock:
                process = self._idle.pop() if self._idle else _start()
                self._processes.append(process)
            self._own.process = process
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(self._config.to_line())
        return process

    def _end(self) -> int:
        """End this thread's process; its exit code."""
        process: subprocess.Popen[bytes] = self._own.process
        self._own.process = None
        with self._lock:
            self._processes.remove(process)
        return _close(process)


def _fault(code: int) -> Outcome:
    """What came of a file that ended its decoder."""
    if code == -signal.SIGPROF:
        return Outcome(Answer.BROKEN, reason=f"took more than {MAX_SECONDS:.0f} s to decode")
    return Outcome(Answer.BROKEN, reason="is damaged, or needs more memory than is given to one picture")


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (this project's own module)
        module_command(MODULE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**own_packages_first(os.environ), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def _close(process: subprocess.Popen[bytes]) -> int:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
