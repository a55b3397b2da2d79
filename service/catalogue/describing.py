"""A process that describes networks for the API, so that the API itself never imports torch: `Describing`.

The process is this module too: it reads questions from its standard input and writes answers to its standard output,
one after the other. It ends when the API does, and when nothing was asked for IDLE_SECONDS, with torch's 300 MB.
"""

import atexit
import contextlib
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import IO, Any

from models.errors import SpecError, Unavailable
from models.imports import module_command, own_packages_first

MODULE = "service.catalogue.describing"
IDLE_SECONDS = 600
MAX_SECONDS = 60
"""Time limit of an answer, including the start of the process; importing torch takes two seconds of it."""
TOGETHER = 20
"""Questions that are sent together, at most."""


class Describing:
    """Client of the describing process, which it starts when needed. Thread-safe; one question at a time."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process without waiting for it to import torch."""
        with self._lock:
            self._running()

    def ask(self, question: str, *arguments: Any) -> Any:
        """The result of a function of service.catalogue.describe, called by its name in the process.

        Raises SpecError as that does; Unavailable if no answer comes.
        """
        (found,) = self.ask_all(question, [arguments])
        if isinstance(found, SpecError):
            raise found
        return found

    def ask_all(self, question: str, several: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The results for several groups of arguments; a SpecError in the place of each that is refused.

        They are sent together, since on a busy machine waiting for a turn takes longer than an answer. Other requests
        have their turn after every TOGETHER of them.
        """
        answers = []
        for first in range(0, len(several), TOGETHER):
            answers += self._ask(question, several[first : first + TOGETHER])
        return [_result(kind, answer) for kind, answer in answers]

    def _ask(self, question: str, several: Sequence[tuple[Any, ...]]) -> list[tuple[str, Any]]:
        with self._lock:
            for _ in range(2):  # it may end, idle for long, just when it is asked
                process = self._running()
                try:
                    with _deadline(process):
                        pickle.dump((question, several), _stream(process.stdin))
                        _stream(process.stdin).flush()
                        answers = [_read(process)]
                    for _ in several[1:]:
                        with _deadline(process):
                            answers.append(_read(process))
                    return answers
                except (OSError, EOFError, pickle.UnpicklingError):
                    self._end()
        raise Unavailable(
            "the process that describes networks ended without an answer",
            fix="send it again; the API's log says why it ended",
            retry_after_seconds=5,
        )

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """The process's number, if one runs."""
        return None if self._process is None or self._process.poll() is not None else self._process.pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                module_command(MODULE, f"{self._idle_seconds:g}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**own_packages_first(os.environ), "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C in a terminal is the API's alone
            )
        return self._process

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                _stream(stream).close()
        self._process.wait()
        self._process = None


@lru_cache(maxsize=1)
def shared_describing() -> Describing:
    """The client shared by this process, closed at its exit."""
    describing = Describing()
    atexit.register(describing.close)
    return describing


@contextlib.contextmanager
def _deadline(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process if the block takes longer than an answer may."""
    late = threading.Timer(MAX_SECONDS, process.kill)
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _read(process: subprocess.Popen[bytes]) -> tuple[str, Any]:
    answer: tuple[str, Any] = pickle.load(_stream(process.stdout))  # noqa: S301 - our own process
    return answer


def _result(kind: str, answer: Any) -> Any:
    if kind == "failed":
        raise RuntimeError(f"describing a network failed: {answer}")
    return SpecError(answer["errors"], fix=answer["fix"]) if kind == "refused" else answer


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def main() -> None:
    """Answer questions until standard input ends or IDLE_SECONDS pass without one."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not be taken for an answer
    from service.catalogue import describe  # imports torch

    known: dict[str, Callable[..., Any]] = {
        "describe_spec": describe.describe_spec,
        "architectures": describe.architectures,
        "check_start": describe.check_start,
        "libraries": describe.libraries,
    }
    patience = 0.0
    while True:
        if not select.select([questions], [], [], patience)[0]:
            if patience:
                return
            patience = float(sys.argv[1])
            describe.warm_up()  # torchvision takes as long as torch; a question that is there already need not wait
            continue
        try:
            question, several = pickle.load(questions)  # noqa: S301 - from the API
        except EOFError:
            return
        for arguments in several:
            pickle.dump(_answer(known[question], arguments), answers)
            answers.flush()


def _answer(describe: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "answer", describe(*arguments)
    except SpecError as error:
        return "refused", {"errors": error.errors, "fix": error.fix}
    except Exception as error:  # noqa: BLE001 - whatever it is, the API answers it
        sys.excepthook(type(error), error, error.__traceback__)
        return "failed", f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
