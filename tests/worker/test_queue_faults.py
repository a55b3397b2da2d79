"""The broker is killed, emptied and started again: workers consume again unaided, and no experiment is forgotten."""

import os

import pytest

from models import queue
from models.store import Status, experiments
from tests.worker.lab import Lab, endless
from tests.worker.processes import wait_until

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
"""Restarts of the broker; `make faults` does more."""

pytestmark = pytest.mark.timeout(300)  # a busy machine may take a minute to import torch


def test_an_idle_worker_consumes_again_after_each_restart_of_the_broker(lab: Lab) -> None:
    worker = lab.worker()
    for _ in range(ROUNDS):
        lab.broker.kill()
        lab.broker.start()
        lab.wait_for(lab.submit(epochs=1), Status.COMPLETED, seconds=60)
    assert worker.process.poll() is None


def test_a_run_goes_on_while_the_broker_is_away_and_the_next_one_follows(lab: Lab) -> None:
    worker = lab.worker()
    running = lab.submit(**endless())
    waiting = lab.submit(epochs=1)
    lab.wait_for_epoch(running, 1)
    for _ in range(ROUNDS):
        lab.broker.kill()
        lab.wait_for_epoch(running, len(lab.history(running)) + 2)
        lab.broker.start()
        lab.wait_for_epoch(running, len(lab.history(running)) + 2)
    assert len(lab.runs(running)) == 1
    lab.cancel(running)
    lab.wait_for(waiting, Status.COMPLETED, seconds=60)
    assert len(lab.runs(waiting)) == 1
    assert worker.process.poll() is None


def test_what_was_stored_while_the_broker_was_down_is_enqueued_later(lab: Lab) -> None:
    lab.worker()
    lab.broker.kill()
    experiment_id = lab.store_experiment(epochs=1)
    assert not queue.ping(lab.celery)
    lab.broker.start()
    lab.wait_for(experiment_id, Status.COMPLETED, seconds=60)


def test_an_experiment_that_was_stored_and_never_enqueued_is_found(lab: Lab) -> None:
    lab.worker()
    lab.wait_for(lab.store_experiment(epochs=1), Status.COMPLETED, seconds=60)


def test_an_emptied_broker_is_filled_again_from_the_database(lab: Lab) -> None:
    lab.worker()
    running = lab.submit(**endless())
    lab.wait_for_epoch(running, 1)
    waiting = [lab.submit(epochs=1) for _ in range(3)]
    lab.broker.empty()
    wait_until(lambda: queue.queued_messages(lab.celery) == set(waiting), 30, "the messages to be sent again")
    lab.cancel(running)
    for experiment_id in waiting:
        lab.wait_for(experiment_id, Status.COMPLETED)
        assert len(lab.runs(experiment_id)) == 1


def test_one_lost_message_among_others_is_sent_again_and_the_others_are_not(lab: Lab) -> None:
    lab.worker()
    running = lab.submit(**endless())
    lab.wait_for_epoch(running, 1)
    lost = lab.store_experiment(epochs=1)
    with lab.store.writing() as session:
        experiments.mark_enqueued(session, lost)
    there = lab.submit(epochs=1)
    wait_until(lambda: queue.queued_messages(lab.celery) == {lost, there}, 30, "the message to be sent again")
    assert queue.queue_length(lab.celery) == 2
    lab.cancel(running)
    for experiment_id in (lost, there):
        lab.wait_for(experiment_id, Status.COMPLETED)


def test_a_broker_that_refuses_writes_as_with_a_full_disk_ends_no_worker_and_no_run(lab: Lab) -> None:
    worker = lab.worker()
    broker = queue._client(lab.broker.url)
    running = lab.submit(**endless())
    lab.wait_for_epoch(running, 1)
    broker.config_set("min-replicas-to-write", 1)
    try:
        waiting = lab.store_experiment(epochs=1)
        lab.cancel(running)  # from now on the worker asks for messages, and is refused
        lab.wait_for(running, Status.CANCELLED)
        wait_until(lambda: b"Connection to broker lost" in worker.log.read_bytes(), 20, "the worker to be refused")
    finally:
        broker.config_set("min-replicas-to-write", 0)
    lab.wait_for(waiting, Status.COMPLETED, seconds=30)
    assert worker.process.poll() is None
    assert len(lab.runs(running)) == 1


def test_a_worker_that_starts_before_its_broker_consumes_once_it_is_there(lab: Lab) -> None:
    lab.stop_workers()
    lab.broker.kill()
    worker = lab.start_worker()
    experiment_id = lab.store_experiment(epochs=1)
    lab.broker.start()
    lab.wait_for(experiment_id, Status.COMPLETED, seconds=90)
    lab.broker.kill()
    assert worker.stop() == 0, "a worker can be told to end while its broker is away"
    lab.broker.start()
