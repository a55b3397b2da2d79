"""A process that predicts files of this machine for `epochal classify --csv`.

It imports numpy, onnxruntime and Pillow while the command imports what it needs itself, finds the lab, lists the folder
and downloads the network. What it runs is in `service.cli.local_prediction`.
"""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Self

from models.errors import EpochalError

if TYPE_CHECKING:
    from service.cli.prediction_table import Row


class PredictingEnded(EpochalError):
    """The process has ended before its answer."""

    code = "predicting-ended"
    title = "The process that predicts has ended"


class PredictingProcess:
    """Predicts files with one network. To be used as a context manager, which ends the process."""

    def __init__(self) -> None:
        start = "fork" if sys.platform == "linux" else "spawn"
        context: Any = multiprocessing.get_context(start)  # typed without its Process
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_run, args=(other, self._connection, os.getpid()))
        self._process.start()
        other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it; nothing happens if it has ended."""
        self._connection.close()  # at which it ends, and first the processes that it has started
        if sys.platform == "linux":
            self._process.terminate()  # they end with it in any case
        self._process.join()

    def load(self, content: bytes) -> str:
        """Have it read a downloaded network; return how a table names that.

        Raises CorruptFile for anything else than a network, PredictingEnded.
        """
        self._connection.send_bytes(content)
        return str(self._receive())

    def classify(self, folder: str, names: Sequence[str], top_k: int) -> Iterator[list["Row"]]:
        """Yield the rows of files in a folder, some at a time, in order; see `local_prediction.classify_files`.

        Raises Conflict if the weights give no finite prediction, PredictingEnded.
        """
        self._connection.send((folder, names, top_k))
        while rows := self._receive():
            yield rows

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise PredictingEnded(
                f"it ended with the exit code {self._process.exitcode}",
                fix="If its memory was too little, use a smaller network or fewer cores (taskset). The same command "
                "continues the table.",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def _run(connection: Connection, other: Connection, parent: int) -> None:
    """Answer a `PredictingProcess` until its end of the connection is closed, or everything is classified."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command
    other.close()

    from service.lab.tether import end_with

    end_with(parent)
    gc.disable()
    from service.cli.local_prediction import LocalNetwork, classify_files

    gc.freeze()
    gc.enable()
    try:
        network = LocalNetwork(connection.recv_bytes())
        connection.send(network.by)
        for rows in classify_files(network, *connection.recv()):
            connection.send(rows)
        connection.send([])
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the command has ended
        return
    except EpochalError as error:
        connection.send(error)
