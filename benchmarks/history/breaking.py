"""Random faults by a seed: processes killed, stopped and restarted, the database made unavailable."""

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing

from benchmarks.faults.harness import Bench, kill
from benchmarks.faults.stopping import locked
from benchmarks.faults.workers import family_of, jobs_of
from benchmarks.history.recording import History
from service.lab.lab import answers
from tests.postgres import Postgres

PAUSE_SECONDS = (1.0, 7.0)
LOCKED_SECONDS = (0.5, 6.0)
STOPPED_SECONDS = (0.5, 9.0)
"""Sometimes longer than a lease, so that a stopped worker continues after another one has taken its run."""
AWAY_SECONDS = (0.2, 4.0)


class Breaker(threading.Thread):
    """Injects one fault after the other until stopped. `close` restores everything."""

    def __init__(self, seed: int, bench: Bench, history: History, server: Postgres | None) -> None:
        super().__init__(name="breaker", daemon=True)
        self.bench, self.history, self.server = bench, history, server
        self.rng = random.Random(f"{seed}/faults")
        self.stopping = threading.Event()
        self.failed: BaseException | None = None

    def run(self) -> None:
        faults: list[tuple[Callable[[], str], int]] = [
            (self.kill_worker, 4), (self.kill_job, 3), (self.stop_worker, 4), (self.end_worker, 2), (self.kill_api, 2),
            (self.stop_api, 2), (self.kill_broker, 3), (self.stop_broker, 2), (self.empty_broker, 1),
            (self.lock_database, 3),
            *([] if self.server is None else [(self.restart_server, 2), (self.crash_server, 2)]),
        ]  # fmt: skip
        try:
            while not self.stopping.wait(self.rng.uniform(*PAUSE_SECONDS)):
                (fault,) = self.rng.choices([fault for fault, _ in faults], [weight for _, weight in faults])
                began = self.history.now()
                what = fault()
                self.history.add("fault", began=began, ended=self.history.now(), what=what)
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.failed = error

    def close(self) -> None:
        self.stopping.set()
        self.join()

    # Workers

    def _worker(self) -> int:
        return self.rng.choice(self.bench.lab.workers).pid or 0

    def kill_worker(self) -> str:
        kill(self._worker())
        return "kill -9 of a worker"

    def kill_job(self) -> str:
        for _ in range(200):
            if jobs := [job for worker in self.bench.lab.workers for job in jobs_of(worker.pid or 0)]:
                kill(self.rng.choice(jobs))
                return "kill -9 of a training process"
            time.sleep(0.05)
        return "no training process came to be killed"

    def stop_worker(self) -> str:
        worker = self._worker()
        pids = [worker] if self.rng.random() < 0.5 else family_of(worker)
        return self._stopped(pids, "a worker" if len(pids) == 1 else "a worker and all below it")

    def end_worker(self) -> str:
        kill(self._worker(), signal.SIGTERM)
        return "SIGTERM to a worker"

    # API and broker

    def kill_api(self) -> str:
        """Kill the API, but only one that answers: otherwise most requests would meet an API that is starting."""
        if not answers(self.bench.lab.url, "/healthz"):
            return "the API was not back yet"
        kill(self.bench.lab.api.pid or 0 if self.bench.lab.api else 0)
        return "kill -9 of the API"

    def stop_api(self) -> str:
        return self._stopped([self.bench.lab.api.pid or 0 if self.bench.lab.api else 0], "the API")

    def _broker(self) -> int:
        return self.bench.lab.broker.pid or 0 if self.bench.lab.broker else 0

    def kill_broker(self) -> str:
        kill(self._broker())
        return "kill -9 of the broker"

    def stop_broker(self) -> str:
        return self._stopped([self._broker()], "the broker")

    def empty_broker(self) -> str:
        from benchmarks.faults.infrastructure_cases import broker_client

        try:
            with closing(broker_client(self.bench)) as client:
                client.flushall()
        except Exception as error:  # noqa: BLE001 (it is away just now)
            return f"the broker was not emptied: {type(error).__name__}"
        return "the broker emptied"

    # The database

    def lock_database(self) -> str:
        seconds = self.rng.uniform(*LOCKED_SECONDS)
        with locked(self.bench.store.url, 60.0) as taken:
            time.sleep(seconds)
        return f"the database {'locked' if taken else 'not locked, since others held it'} for {seconds:.1f} s"

    def restart_server(self) -> str:
        assert self.server is not None
        self.server.stop("fast")
        seconds = self.rng.uniform(*AWAY_SECONDS)
        time.sleep(seconds)
        self.server.start()
        return f"PostgreSQL stopped and started again {seconds:.1f} s later"

    def crash_server(self) -> str:
        assert self.server is not None
        self.server.stop("immediate")
        seconds = self.rng.uniform(*AWAY_SECONDS)
        time.sleep(seconds)
        self.server.start()
        return f"PostgreSQL ended as by a crash and started again {seconds:.1f} s later"

    def _stopped(self, pids: list[int], what: str) -> str:
        seconds = self.rng.uniform(*STOPPED_SECONDS)
        for pid in pids:
            if pid:
                kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in pids:
            if pid:
                kill(pid, signal.SIGCONT)
        return f"SIGSTOP of {what} for {seconds:.1f} s"
