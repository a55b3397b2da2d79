"""PostgreSQL goes away while a run trains, alone and with the broker: the run waits, and no attempt is lost."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.store import Status
from tests.postgres import MISSING, Postgres, new_database, programs
from tests.processes import alive, wait_until
from tests.worker.lab import Lab, WorkerProcess, endless

pytestmark = [
    pytest.mark.timeout(600),  # a busy machine may take a minute to import torch
    pytest.mark.skipif(programs() is None, reason=MISSING),
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def lab(cache_dir: Path, postgres: Postgres) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="lab-", dir=os.environ.get("TMPDIR", "/tmp")) as folder:
        lab = Lab(Path(folder), cache_dir, database_url=new_database(server=postgres.url))
        try:
            yield lab
        finally:
            lab.close()


def times_said(worker: WorkerProcess, words: bytes) -> int:
    return worker.log.read_bytes().count(words)


def test_outages_of_the_database_and_one_of_both_cost_no_attempt(lab: Lab, postgres: Postgres) -> None:
    worker = lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1, seconds=120)
    noticed = (
        b"training waits for the database",
        b"the lease cannot be renewed now",
        b"a periodic task cannot run yet",
    )
    for broker_too in (False, False, True):  # a second one shows that the first has left nothing behind
        done = len(lab.history(experiment_id))
        before = [times_said(worker, words) for words in noticed]
        postgres.stop()
        if broker_too:
            lab.broker.kill()
        for words, times in zip(noticed, before, strict=True):
            wait_until(lambda words=words, times=times: times_said(worker, words) > times, 60, words.decode())
        postgres.start()
        if broker_too:
            lab.broker.start()
        lab.wait_for_epoch(experiment_id, done + 2, seconds=120)
        beats = lab.runs(experiment_id)[-1].heartbeat
        wait_until(
            lambda beats=beats: lab.runs(experiment_id)[-1].heartbeat >= beats + 2, 60, "the lease to be renewed"
        )
    assert [run.status for run in lab.runs(experiment_id)] == ["running"], "one attempt, and it goes on"
    assert lab.experiment(experiment_id).failed_attempts == 0
    assert times_said(worker, b"Traceback") == 0
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)
    lab.wait_for(lab.submit(epochs=1), Status.COMPLETED, seconds=120)


def test_a_worker_that_is_stopped_while_the_database_is_away_ends_in_time_and_its_run_is_taken_up(
    lab: Lab, postgres: Postgres
) -> None:
    leaving, staying = lab.worker(), lab.start_worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1, seconds=120)
    owner = lab.runs(experiment_id)[-1].worker.split("@")[0]
    leaving, staying = (leaving, staying) if leaving.name == owner else (staying, leaving)
    before = times_said(staying, b"a periodic task cannot run yet")
    postgres.stop()
    wait_until(
        lambda: times_said(staying, b"a periodic task cannot run yet") > before, 60, "the other worker to notice"
    )
    family = leaving.family()
    leaving.process.terminate()
    wait_until(lambda: leaving.process.poll() is not None, 10, "the worker to end")
    assert leaving.process.returncode == 0
    wait_until(lambda: not any(alive(pid) for pid in family), 20, "the worker's processes to end")
    postgres.start()
    wait_until(lambda: len(lab.runs(experiment_id)) == 2, 120, "the other worker to take the run up")
    lab.wait_for_epoch(experiment_id, len(lab.history(experiment_id)) + 1, seconds=120)
    assert lab.experiment(experiment_id).failed_attempts == 0
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)
