"""The Celery application of the worker.

Celery delivers messages and answers control commands. One boot step (LabStep) adds the rest: it starts nursery,
reaper and measurer beside the consumer, and installs signal handlers that hand the run back instead of finishing it.
"""

import signal
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import Panel
from celery.worker.state import maybe_shutdown

from models.devices import check_device
from models.errors import InvalidSettings
from models.logs import configure_logs
from models.queue import make_celery
from models.settings import exit_for, get_settings, settings_or_exit
from models.store.datasets import ANY_KIND, CHECKS
from worker.dataset_worker import DatasetWorker
from worker.intake import install_transport
from worker.measurer import Measurer
from worker.processes.nursery import get_nursery
from worker.reaper import Reaper
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 3.0

CONTROL_COMMANDS = {"ping"}
"""The remote control commands that are answered. Runs are cancelled by the database, workers stopped by signals."""

_runtime: Runtime | None = None


def current_runtime() -> Runtime:
    """The runtime of this process's worker."""
    assert _runtime is not None, "no worker was started in this process"
    return _runtime


class LabStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the threads beside Celery's consumer. Celery calls it after installing its own signal handlers."""

    def start(self, parent: Any) -> None:
        """Open the store, start the companion threads, replace the signal handlers."""
        global _runtime
        _runtime = Runtime(get_settings(), parent.hostname, app, get_nursery())
        importer, checker = DatasetWorker(_runtime, ANY_KIND - CHECKS), DatasetWorker(_runtime, CHECKS)
        _runtime.start(Reaper(_runtime), Measurer(_runtime), importer, checker)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(signum, _stopper(_runtime))
        if state.should_stop is not None:  # asked to stop while it started
            _runtime.shutdown.set()

    def stop(self, parent: Any) -> None:
        """Request that the running task hands its run back; the pool then waits for it."""
        current_runtime().shutdown.set()

    def terminate(self, parent: Any) -> None:
        """Do the same as `stop`: Celery calls this on a cold shutdown."""
        self.stop(parent)


class LabConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer with a shorter pause between attempts to reconnect: Celery's own grows to 30 s."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again until the broker answers or the worker shuts down."""

        def warn(error: Exception, seconds: float) -> None:
            if seconds < RECONNECT_SECONDS:  # only the first attempts are logged
                log.warning("the broker does not answer", broker=conn.as_uri(), why=str(error))

        conn.ensure_connection(
            warn, interval_start=0.5, interval_step=0.5, interval_max=RECONNECT_SECONDS, callback=maybe_shutdown
        )
        self.first_connection_attempt = False
        return conn

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log that the connection is lost, without Celery's warning about a default that models.queue sets."""
        with warnings.catch_warnings():  # Celery turns its own warnings on when it starts
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)


def _stopper(runtime: Runtime) -> Callable[[int, FrameType | None], None]:
    def stop(_: int, __: FrameType | None) -> None:
        """Begin Celery's warm shutdown and request that the running task hands back. A second signal changes nothing.

        It may arrive while the first is handled, inside the event's lock, which the same thread must not take again.
        """
        if state.should_stop is None:
            state.should_stop = 0
            runtime.shutdown.set()

    return stop


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    configure_logs()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _close_runtime(**_: Any) -> None:
    if _runtime is not None:
        _runtime.close()


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _refuse_a_device_that_is_not_there(**_: Any) -> None:
    """Exit before the worker takes experiments, since it would fail every one of them."""
    try:
        check_device(get_settings().device)
    except InvalidSettings as error:
        exit_for(error)


install_transport()
app = make_celery(settings_or_exit())
app.conf.update(
    imports=("worker.tasks",),
    worker_pool="threads",
    worker_concurrency=1,
    worker_consumer="worker.app:LabConsumer",
    worker_redirect_stdouts=False,
)
app.steps["worker"].add(LabStep)
for command in set(Panel.data) - CONTROL_COMMANDS:
    del Panel.data[command]
