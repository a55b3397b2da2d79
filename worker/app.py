"""The Celery application of the worker.

Celery brings messages and answers control commands. What makes a lab's worker of it is one step of its start: nursery,
reaper and measurer are started beside the consumer, and SIGTERM hands the run back instead of waiting for its end.
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
from worker.intake import take_only_our_own
from worker.measurer import Measurer
from worker.processes.nursery import get_nursery
from worker.reaper import Reaper
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

RECONNECT_SECONDS = 3.0

CONTROL_COMMANDS = {"ping"}
"""What is answered of Celery's remote control. The database cancels runs, signals stop workers."""

_runtime: Runtime | None = None


def current_runtime() -> Runtime:
    """The runtime of the worker that this process is."""
    assert _runtime is not None, "no worker was started in this process"
    return _runtime


class LabStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """What runs beside a worker's consumer. Celery starts it once its own signal handlers are in place."""

    def start(self, parent: Any) -> None:
        """Open the store, start the companions, take over the signals."""
        global _runtime
        _runtime = Runtime(get_settings(), parent.hostname, app, get_nursery())
        _runtime.start(Reaper(_runtime), Measurer(_runtime))
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(signum, _stopper(_runtime))
        if state.should_stop is not None:  # asked to stop while it started
            _runtime.shutdown.set()

    def stop(self, parent: Any) -> None:
        """Have the running task hand back; the pool then waits for it."""
        current_runtime().shutdown.set()

    def terminate(self, parent: Any) -> None:
        """The same, however Celery ends."""
        self.stop(parent)


class LabConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, but for how soon it looks whether a broker is back: Celery's waits for up to 30 s."""

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying until the broker answers or the worker is to end."""

        def tell(error: Exception, seconds: float) -> None:
            if seconds < RECONNECT_SECONDS:  # after the first attempts it has been said
                log.warning("the broker does not answer", broker=conn.as_uri(), why=str(error))

        conn.ensure_connection(
            tell, interval_start=0.5, interval_step=0.5, interval_max=RECONNECT_SECONDS, callback=maybe_shutdown
        )
        self.first_connection_attempt = False
        return conn

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Say that the connection is lost; without the warning, each time, of a default that models.queue sets."""
        with warnings.catch_warnings():  # Celery turns its own warnings on when it starts
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)


def _stopper(runtime: Runtime) -> Callable[[int, FrameType | None], None]:
    def stop(_: int, __: FrameType | None) -> None:
        """Celery's warm shutdown, with the running task told to hand back. A second signal changes nothing.

        It may come while the first one is handled, inside the event's lock, which the same thread must not take again.
        """
        if state.should_stop is None:
            state.should_stop = 0
            runtime.shutdown.set()

    return stop


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    configure_logs()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _say_goodbye(**_: Any) -> None:
    if _runtime is not None:
        _runtime.close()


@signals.celeryd_init.connect  # type: ignore[untyped-decorator]
def _refuse_a_device_that_is_not_there(**_: Any) -> None:
    """End before the worker says that it is there: it would take experiments and fail every one of them."""
    try:
        check_device(get_settings().device)
    except InvalidSettings as error:
        exit_for(error)


take_only_our_own()
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
