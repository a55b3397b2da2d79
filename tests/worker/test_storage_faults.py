"""The database is locked and the disk is full, while a run trains."""

import os
import resource
import signal

import pytest

from benchmarks.faults.stopping import locked
from models import files
from models.store import Status, artifacts, experiments
from tests.processes import wait_until
from tests.worker.lab import LEASE_SECONDS, Lab, endless

pytestmark = pytest.mark.timeout(300)


def test_a_database_that_is_locked_for_longer_than_a_lease_costs_no_run_its_lease(lab: Lab) -> None:
    lab.worker()
    other = lab.start_worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    with locked(lab.store.url, 30.0) as taken:
        assert taken
        before = len(lab.history(experiment_id))
        wait_for_seconds(3 * LEASE_SECONDS)
        assert len(lab.history(experiment_id)) == before, "reads go on, writes wait"
    lab.wait_for_epoch(experiment_id, before + 3)
    assert len(lab.runs(experiment_id)) == 1
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)
    other.stop()


def wait_for_seconds(seconds: float) -> None:
    """The fault itself lasts this long."""
    signal.sigtimedwait([], seconds)


def test_a_disk_that_fills_up_fails_the_run_by_name_and_the_last_checkpoint_is_gone_on_from(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 2)
    # The kernel refuses this process any file beyond 100 kB, as a full disk would.
    pid = lab.training_process(experiment_id)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    experiment = lab.wait_for(experiment_id, Status.FAILED)
    assert "cannot be written" in experiment.reason
    assert "space" in experiment.reason or "room" in experiment.reason
    lab.check(experiment_id)
    with lab.store.reading() as session:
        records = artifacts.list_for(session, experiment_id)
    for record in records:
        files.verify(record.file(lab.settings.experiments_dir), record.sha256)
    done = len(lab.history(experiment_id))
    with lab.store.writing() as session:
        experiments.request_resume(session, experiment_id)
    lab.enqueue(experiment_id)
    lab.wait_for_epoch(experiment_id, done + 2)
    assert "resumed" in lab.notices(experiment_id)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)


def test_a_kill_in_the_middle_of_writing_a_file_leaves_whole_ones_and_no_remains(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 2)  # so that epoch 1's checkpoint is stored
    pid = lab.training_process(experiment_id)
    folder = lab.settings.experiments_dir / str(experiment_id) / "attempt-1"
    wait_until(lambda: list(folder.glob(".*.partial")), 60, "a file that is being written")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "resumed" in lab.notices(experiment_id), 60)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)
    with lab.store.reading() as session:
        records = artifacts.list_for(session, experiment_id)
    for record in records:
        files.verify(record.file(lab.settings.experiments_dir), record.sha256)
