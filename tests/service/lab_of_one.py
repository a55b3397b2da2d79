"""A lab without processes: its application, a store to fill as a worker would, and a server where one matters."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import uvicorn
from safetensors.numpy import save
from starlette.testclient import TestClient

from models.curves.metrics import EpochMetrics
from models.files import sha256_of
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Status, artifacts, experiments, history, runs
from models.store.runs import Claim
from models.store.states import ArtifactKind
from service.app import create_app
from service.http.protocol import GuardedProtocol
from tests.stores import new_store

BASE_URL = "http://127.0.0.1"
NAN = float("nan")
LAYERS = [
    {"name": name, "type": kind, "output_shape": shape, "kernel_shape": kernel, "parameters": parameters}
    for name, kind, shape, kernel, parameters in (
        ("features.0", "Conv2d", [4, 28, 28], [4, 3, 5, 5], 304),
        ("features.1", "ReLU", [4, 28, 28], None, 0),
        ("features.2", "Conv2d", [2, 26, 26], [2, 4, 3, 3], 74),
        ("head.0", "Linear", [10], None, 13530),
    )
]
SMALL = {"model": "baseline", "epochs": 3, "dataset": {"train_limit": 200, "val_limit": 100}}


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Settings of a lab whose broker does not answer."""
    return Settings(data_dir=folder, broker_url=f"redis+socket://{folder}/nobody.sock", **changes)


@contextlib.contextmanager
def client_of(settings: Settings, **changes: Any) -> Iterator[TestClient]:
    """A client of the application, in this process."""
    app = create_app(settings)
    with TestClient(app, base_url=BASE_URL, raise_server_exceptions=False, **changes) as client:
        yield client


def epoch(number: int, *, val_loss: float = 1.0, val_accuracy: float = 0.5, train_loss: float = 0.9) -> EpochMetrics:
    """One epoch with plausible metrics."""
    return EpochMetrics(number, train_loss, 0.6, val_loss, val_accuracy, 0.01, 1.25, 2.0, 1000.0, 300.0)


class Filled:
    """Puts experiments into a store as the API and a worker would."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = new_store(settings)

    def add(self, **changes: Any) -> int:
        """A queued experiment."""
        with self.store.writing() as session:
            row = experiments.create(session, parse_spec({**SMALL, **changes}), layers=LAYERS, warnings=[])
            return row.id

    def start(self, experiment_id: int) -> Claim:
        """A worker takes it."""
        with self.store.writing() as session:
            claim = runs.claim(session, experiment_id, "worker-1", 3)
            assert claim is not None
            return claim

    def append(self, claim: Claim, epochs: Sequence[EpochMetrics]) -> None:
        """The worker measures epochs."""
        with self.store.writing() as session:
            for metrics in epochs:
                history.append_epoch(session, claim, metrics)

    def judge(self, claim: Claim, verdict: dict[str, Any]) -> None:
        """The worker writes a verdict."""
        with self.store.writing() as session:
            runs.set_verdict(session, claim, verdict)

    def settle(self, claim: Claim, status: Status = Status.COMPLETED, reason: str | None = None) -> None:
        """The worker is done."""
        with self.store.writing() as session:
            runs.settle(session, claim, status, reason=reason)

    def trained(self, epochs: Sequence[EpochMetrics], **changes: Any) -> int:
        """A completed experiment with these epochs."""
        claim = self.start(self.add(**changes))
        self.append(claim, epochs)
        self.settle(claim)
        return claim.experiment_id

    def keep(self, claim: Claim, kind: ArtifactKind, tensors: dict[str, np.ndarray], about: dict[str, str]) -> Path:
        """The worker leaves a file of tensors."""
        return self.keep_bytes(claim, f"{kind}.safetensors", kind, save(tensors, about))

    def keep_bytes(self, claim: Claim, name: str, kind: ArtifactKind, content: bytes, *, epoch: int = 0) -> Path:
        """The worker leaves a file."""
        place = f"{claim.experiment_id}/attempt-{claim.attempt}/{name}"
        path = self.settings.experiments_dir / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with self.store.writing() as session:
            artifacts.record(session, claim, kind, epoch, place, sha256_of(path), path.stat().st_size)
        return path


class LiveServer:
    """The application behind uvicorn, on a free port of loopback, in a thread of this process.

    Connections may be made before it is entered: they wait to be accepted. `run` is asyncio's or uvloop's.
    """

    def __init__(
        self, app: Any, *, http: type[GuardedProtocol] = GuardedProtocol, run: Callable[..., None] = asyncio.run
    ) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(128)
        self._run_loop = run
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started = threading.Event()
        config = uvicorn.Config(
            app,
            http=http,
            ws="none",
            lifespan="on",
            log_config=None,
            proxy_headers=False,
            timeout_graceful_shutdown=3,
            access_log=False,
        )
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="live-server")

    def _run(self) -> None:
        async def serve() -> None:
            task = asyncio.create_task(self.server.serve(sockets=[self._socket]))
            while not self.server.started and not task.done():
                await asyncio.sleep(0.01)
            self._started.set()
            await task

        self._run_loop(serve())

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(100)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """As SIGTERM does."""
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"

    def connect(self) -> socket.socket:
        """A bare connection, for what no HTTP client would send."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.settimeout(20)
        return connection


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received
