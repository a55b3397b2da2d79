"""Workers are told to end, killed, stopped and started while they train; no run is lost and none is trained twice.

Starting a worker takes seconds of imports, so each test takes over the workers that the one before has left alive.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from models.notices import NoticeCode
from models.store import Status, artifacts, experiments, workers
from models.store.states import ArtifactKind, RunStatus
from tests.processes import alive, wait_until
from tests.worker.lab import Lab, endless

pytestmark = pytest.mark.timeout(300)  # a busy machine may take a minute to import torch


def test_a_worker_that_is_told_to_end_checkpoints_hands_back_and_exits_in_time(lab: Lab) -> None:
    """By Ctrl-C; further signals change nothing."""
    worker = lab.worker()
    experiment_id = lab.submit(**endless(dataset={"name": "cifar10", "train_limit": 20_000, "val_limit": 500}))
    lab.training_process(experiment_id)
    wait_until(lambda: (lab.experiment(experiment_id).progress or {})["step"] > 5, 60, "a few steps")
    waiting = [lab.submit(**endless()) for _ in range(2)]
    for _ in range(3):
        worker.process.send_signal(signal.SIGINT)
        worker.process.send_signal(signal.SIGTERM)
    assert worker.stop(signal.SIGINT) == 0
    assert lab.status(experiment_id) is Status.QUEUED
    [run] = lab.runs(experiment_id)
    assert run.status is RunStatus.HANDED_BACK
    assert lab.experiment(experiment_id).failed_attempts == 0
    folder = lab.settings.experiments_dir / str(experiment_id) / "attempt-1"
    assert list(folder.glob("checkpoint-00001-*.pt")), "the middle of the first epoch was saved"
    with lab.store.reading() as session:
        assert workers.live(session) == []

    lab.start_worker()
    wait_until(lambda: "resumed" in lab.notices(experiment_id), 30)
    assert [lab.status(each) for each in waiting] == [Status.QUEUED] * 2, "what was interrupted continues first"
    for each in (*waiting, experiment_id):
        lab.cancel(each)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)


def test_a_training_process_that_does_not_heed_is_ended_and_its_run_handed_back(lab: Lab) -> None:
    worker = lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    lab.put_to_sleep(lab.training_process(experiment_id))
    assert worker.stop() == 0
    assert lab.experiment(experiment_id).failed_attempts == 0
    assert lab.status(experiment_id) is Status.QUEUED


def test_a_worker_that_was_stopped_past_its_lease_writes_nothing_any_more(lab: Lab) -> None:
    lab.two_workers()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    sleeper, old_job = lab.owner(experiment_id), lab.training_process(experiment_id)
    lab.put_to_sleep(sleeper.pid, old_job)
    wait_until(lambda: len(lab.runs(experiment_id)) == 2, 60, "another worker to claim it")
    for pid in (old_job, sleeper.pid):
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not alive(old_job), 20, "the old training process to give up")
    wait_until(lambda: b"left a run to another worker" in sleeper.log.read_bytes(), 10)
    lab.wait_for_epoch(experiment_id, len(lab.history(experiment_id)) + 1)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    assert [run.status for run in lab.runs(experiment_id)] == [RunStatus.LOST, RunStatus.CANCELLED]
    lab.check(experiment_id)
    assert sleeper.process.poll() is None


def test_a_run_of_a_killed_worker_is_gone_on_with_once_its_lease_has_run_out(lab: Lab) -> None:
    lab.two_workers()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 2)
    first = lab.owner(experiment_id)
    second = next(worker for worker in lab.two_workers() if worker is not first)
    meanwhile, waiting = lab.submit(**endless()), lab.submit(**endless())
    lab.wait_for(meanwhile, Status.RUNNING)
    first.kill()
    wait_until(lambda: lab.runs(experiment_id)[0].status is RunStatus.LOST, what="the lease to run out")
    lab.cancel(meanwhile)
    wait_until(lambda: len(lab.runs(experiment_id)) == 2, what="another claim")
    assert lab.runs(experiment_id)[1].worker.startswith(second.name)
    wait_until(lambda: "resumed" in lab.notices(experiment_id), 30)
    assert lab.status(waiting) is Status.QUEUED, "what was interrupted continues first"
    lab.cancel(waiting)
    lab.cancel(experiment_id)
    lab.wait_for(experiment_id, Status.CANCELLED)
    lab.check(experiment_id)


def test_a_cancel_request_of_a_run_whose_worker_is_gone_is_granted(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 1)
    lab.kill_workers()
    lab.cancel(experiment_id)
    lab.start_worker()
    lab.wait_for(experiment_id, Status.CANCELLED, seconds=60)
    lab.check(experiment_id)


def open_pipes(pid: int) -> int:
    """Pipes that a process holds: three a job, while there is one."""
    folder = Path(f"/proc/{pid}/fd")
    names = []
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):
            names.append(os.readlink(entry))
    return sum(name.startswith("pipe:") for name in names)


def test_a_worker_survives_a_killed_run_and_another_killed_worker_without_growth(lab: Lab) -> None:
    watcher, victim = lab.two_workers()
    lab.wait_for(lab.submit(epochs=1), Status.COMPLETED)
    process = psutil.Process(watcher.pid)
    pipes = open_pipes(watcher.pid)
    ids = [lab.submit(epochs=6) for _ in range(4)]
    wait_until(victim.jobs, what="a run of the other worker")
    victim.kill()
    [job] = wait_until(watcher.jobs, what="a run of this one")
    os.kill(job, signal.SIGKILL)
    for experiment_id in ids:
        lab.wait_for(experiment_id, Status.COMPLETED)
        lab.check(experiment_id)
    wait_until(lambda: open_pipes(watcher.pid) == pipes, 10, "descriptors to be given back")
    assert process.num_fds() < 100, "its connections to the database and the broker come from pools"
    assert not [child for child in process.children(recursive=True) if child.status() == psutil.STATUS_ZOMBIE]
    assert len(process.children(recursive=True)) == 1, "the nursery"


def test_a_run_that_is_asked_to_end_early_completes_with_the_epochs_and_weights_that_it_has(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(**endless())
    lab.wait_for_epoch(experiment_id, 2)
    with lab.store.writing() as session:
        assert experiments.request_stop(session, experiment_id, NoticeCode.PRUNED, "pruned: others are ahead")
        assert experiments.request_stop(session, experiment_id, NoticeCode.PRUNED, "asked twice")
    lab.wait_for(experiment_id, Status.COMPLETED)
    assert lab.experiment(experiment_id).reason == "pruned: others are ahead"
    assert lab.notices(experiment_id).count("pruned") == 1
    assert lab.experiment(experiment_id).verdict is not None
    with lab.store.reading() as session:
        kinds = {record.kind for record in artifacts.list_for(session, experiment_id)}
    assert {ArtifactKind.WEIGHTS_BEST, ArtifactKind.WEIGHTS_LAST, ArtifactKind.OUTPUTS_VALIDATION} <= kinds
    lab.check(experiment_id)
