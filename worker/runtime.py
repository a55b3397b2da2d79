"""The state of one worker process, and the threads that run beside Celery's consumer."""

import contextlib
import os
import socket
import threading
import time
from typing import Protocol

import structlog
from celery import Celery

from models.errors import EpochalError
from models.settings import Settings
from models.store import Store, workers
from worker.processes.nursery import Nursery, NurseryError

log = structlog.get_logger(__name__)

EXIT_SECONDS = 9.0
"""From the signal to a forced exit, so that a shutdown takes at most 10 s even if a thread hangs."""

MIGRATION_RETRY_SECONDS = 2.0


class Companion(Protocol):
    """An object whose `run` has a thread of its own until the worker's shutdown."""

    def run(self) -> None:
        """Work until the shutdown event is set."""


class Runtime:
    """One worker: its settings, name, store and nursery, and the event that requests its shutdown."""

    def __init__(self, settings: Settings, name: str, celery: Celery, nursery: Nursery) -> None:
        self.settings = settings
        self.name = name
        self.celery = celery
        self.nursery = nursery
        self.store = Store(settings)
        self.shutdown = threading.Event()
        self.host = socket.gethostname()
        self.device = settings.device
        """The device; as in the settings until a forked process has resolved it."""
        self.training = False
        self._database_ready = threading.Event()

    def start(self, *companions: Companion) -> None:
        """Start the nursery and the companions; returns at once."""
        self.nursery.start()
        for companion in companions:
            threading.Thread(
                target=self._accompany, args=(companion,), name=type(companion).__name__.lower(), daemon=True
            ).start()
        threading.Thread(target=self._end_in_time, name="deadline", daemon=True).start()
        threading.Thread(target=self._prepare, name="prepare", daemon=True).start()

    def wait_for_database(self) -> bool:
        """Wait until the database is migrated; False when the worker shuts down first."""
        while not self.shutdown.is_set():
            if self._database_ready.wait(0.2):
                return True
        return False

    def close(self) -> None:
        """Stop the nursery, delete the worker's row, close the connections."""
        self.nursery.stop()
        with contextlib.suppress(EpochalError):
            with self.store.writing() as session:
                workers.leave(session, self.name)
            self.store.dispose()

    def _accompany(self, companion: Companion) -> None:
        if self.wait_for_database():
            companion.run()

    def _prepare(self) -> None:
        """Migrate the database, then resolve the device in a forked process, which waits for the nursery's imports."""
        while not self.shutdown.is_set():
            try:
                self.store.migrate()
                break
            except EpochalError as error:
                log.warning("the database is not ready", why=str(error))
                self.shutdown.wait(MIGRATION_RETRY_SECONDS)
        self._database_ready.set()
        try:
            with self.nursery.spawn(
                {"do": "describe-device", "settings": self.settings.model_dump(mode="json")}
            ) as process:
                while process.exit_code is None:
                    for report in process.read(1.0):
                        self.device = report.get("device", self.device)
        except NurseryError as error:
            log.error("no training process can be started", why=str(error))
        log.info("worker ready to train", worker=self.name, device=self.device, nursery=self.nursery.pid)

    def _end_in_time(self) -> None:
        self.shutdown.wait()
        time.sleep(EXIT_SECONDS)
        log.error("shutdown took too long; exiting", seconds=EXIT_SECONDS)
        os._exit(0)
