"""A run ends in one terminal state whatever happens to the process that trains it, and the worker lives on."""

import os
import resource
import signal

import psutil
import pytest

from models.store import Status, artifacts, experiments, runs
from models.store.states import ArtifactKind, RunStatus
from tests.processes import wait_until
from tests.worker.lab import Lab, endless

pytestmark = pytest.mark.timeout(300)  # a busy machine may take a minute to import torch


def test_an_experiment_is_trained_and_its_files_are_there(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(epochs=2)
    experiment = lab.wait_for(experiment_id, Status.COMPLETED)
    assert experiment.progress["phase"] == "completed"
    assert len(lab.history(experiment_id)) == 2
    assert experiment.environment["device_type"] == "cpu"
    with lab.store.reading() as session:
        records = artifacts.list_for(session, experiment_id)
    for record in records:
        assert record.file(lab.settings.experiments_dir).stat().st_size == record.num_bytes
    not_asked_for = {ArtifactKind.OUTPUTS_TEST, ArtifactKind.WEIGHTS_INITIAL}
    assert {record.kind for record in records} == set(ArtifactKind) - not_asked_for
    lab.check(experiment_id)


def test_a_second_delivery_of_the_same_message_trains_nothing(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(epochs=1)
    lab.enqueue(experiment_id)
    lab.enqueue(experiment_id)
    lab.wait_for(experiment_id, Status.COMPLETED)
    another = lab.submit(epochs=1)
    lab.wait_for(another, Status.COMPLETED)
    assert len(lab.runs(experiment_id)) == 1


def test_a_killed_training_process_is_gone_on_from_its_checkpoint_to_the_same_curve(lab: Lab) -> None:
    worker = lab.worker()
    undisturbed = lab.submit(epochs=6)
    lab.wait_for(undisturbed, Status.COMPLETED)
    killed = lab.submit(epochs=6)
    lab.wait_for_epoch(killed, 2)
    waiting = lab.submit(**endless())
    os.kill(lab.training_process(killed), signal.SIGKILL)
    lab.wait_for(killed, Status.COMPLETED)
    lab.cancel(waiting)
    assert all(run.started_at >= lab.experiment(killed).finished_at for run in lab.runs(waiting))
    first, second = lab.runs(killed)
    assert (first.status, second.status) == (RunStatus.LOST, RunStatus.COMPLETED)
    assert "SIGKILL" in first.reason
    assert second.attempt == 2
    assert second.start_epoch >= 1
    assert "resumed" in lab.notices(killed)

    def curve(experiment_id: int) -> list[tuple[float, ...]]:
        return [
            (each.train_loss, each.train_accuracy, each.val_loss, each.val_accuracy, each.grad_norm)
            for each in lab.history(experiment_id)
        ]

    assert curve(killed) == curve(undisturbed)
    assert worker.process.poll() is None
    lab.check(killed)


def test_a_run_that_ends_its_process_every_time_fails_after_three_attempts_and_others_train_on(lab: Lab) -> None:
    worker = lab.worker()
    experiment_id = lab.submit(**endless())
    ended: set[int] = set()

    def crash_it() -> bool:
        for pid in set(worker.jobs()) - ended:
            os.kill(pid, signal.SIGSEGV)
            ended.add(pid)
        return lab.status(experiment_id).terminal

    wait_until(crash_it, 60)
    experiment = lab.experiment(experiment_id)
    assert experiment.status is Status.FAILED
    assert "SIGSEGV" in experiment.reason
    assert "3 attempts" in experiment.reason
    assert len(lab.runs(experiment_id)) == 3
    lab.wait_for(lab.submit(epochs=1), Status.COMPLETED)
    lab.check(experiment_id)


def test_out_of_memory_fails_the_run_with_that_reason(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    pid = lab.training_process(experiment_id)
    full = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (full // 2, full // 2))
    experiment = lab.wait_for(experiment_id, Status.FAILED)
    assert "out of memory" in experiment.reason
    assert len(lab.runs(experiment_id)) == 1
    lab.wait_for(lab.submit(epochs=1), Status.COMPLETED)


def test_cancelling_while_training_keeps_the_last_weights(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    lab.cancel(experiment_id)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED, seconds=20)
    assert lab.cancel(experiment_id) is Status.CANCELLED
    with lab.store.reading() as session:
        assert artifacts.newest(session, experiment_id, ArtifactKind.WEIGHTS_LAST)
    lab.check(experiment_id)


def test_cancelling_before_training_has_begun(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for(experiment_id, Status.RUNNING)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED, seconds=20)
    lab.check(experiment_id)


def test_a_cancelled_experiment_is_resumed_where_it_was(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(epochs=40)
    lab.wait_for_epoch(experiment_id, 2)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    done = len(lab.history(experiment_id))
    with lab.store.writing() as session:
        experiments.request_resume(session, experiment_id)
    lab.enqueue(experiment_id)
    lab.wait_for_epoch(experiment_id, done + 1)
    assert lab.runs(experiment_id)[-1].start_epoch == done
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(lab: Lab, damage: str) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 3)
    pid = lab.training_process(experiment_id)
    lab.put_to_sleep(pid)  # so that the newest checkpoint is known, and can be damaged before it is read
    with lab.store.reading() as session:
        newest, before = artifacts.checkpoints(session, experiment_id)
    path = newest.file(lab.settings.experiments_dir)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "resumed" in lab.notices(experiment_id), 60)
    assert "checkpoint-unusable" in lab.notices(experiment_id)
    wait_until(lambda: lab.runs(experiment_id)[1].start_epoch == before.epoch, 60)
    lab.wait_for_epoch(experiment_id, newest.epoch + 1)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)


def test_an_error_that_can_be_named_fails_the_run_at_once_with_what_to_do(lab: Lab) -> None:
    lab.worker()
    folder = lab.settings.experiments_dir
    experiment_id = lab.store_experiment(epochs=2)
    (folder / str(experiment_id)).mkdir(parents=True)
    (folder / str(experiment_id) / "attempt-1").symlink_to("/sys")
    lab.enqueue(experiment_id)
    experiment = lab.wait_for(experiment_id, Status.FAILED)
    assert experiment.attempt == 1
    assert "leads out of the data directory" in experiment.reason


def test_two_workers_share_the_queue_and_train_nothing_twice(lab: Lab) -> None:
    lab.worker()
    lab.start_worker()
    ids = [lab.submit(epochs=1) for _ in range(4)]
    for experiment_id in ids:
        lab.enqueue(experiment_id)
    for experiment_id in ids:
        lab.wait_for(experiment_id, Status.COMPLETED)
    assert [len(lab.runs(experiment_id)) for experiment_id in ids] == [1] * 4
    with lab.store.reading() as session:
        assert runs.running(session) == []


def test_a_run_without_progress_is_ended_by_the_watchdog(lab: Lab) -> None:
    lab.stop_workers()
    worker = lab.start_worker(stall_seconds=2.0, max_attempts=1)
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    lab.put_to_sleep(lab.training_process(experiment_id))
    experiment = lab.wait_for(experiment_id, Status.FAILED)
    assert "no progress" in experiment.reason
    assert worker.process.poll() is None
    worker.stop()
