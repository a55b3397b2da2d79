"""The broker is killed, emptied and started again: workers reconnect by themselves, and no experiment is lost."""

import base64
import json
import pickle

import pytest

from models import queue
from models.store import Status, experiments
from tests.processes import wait_until
from tests.worker.lab import Lab, endless
from worker.intake import message_for

ROUNDS = 2
"""Restarts of the broker: a second one shows that the first has left nothing behind."""

pytestmark = pytest.mark.timeout(300)  # a busy machine may take a minute to import torch


def test_an_idle_worker_consumes_again_after_each_restart_of_the_broker(lab: Lab) -> None:
    worker = lab.worker()
    said_before = len(worker.log.read_bytes())
    for _ in range(ROUNDS):
        lab.broker.kill()
        lab.broker.start()
        lab.wait_for(lab.submit(epochs=1), Status.COMPLETED, seconds=60)
    assert worker.process.poll() is None
    log = worker.log.read_bytes()[said_before:]
    assert b"Connection to broker lost" in log
    assert b"Traceback" not in log
    assert b"Deprecation" not in log


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
    said_before = len(worker.log.read_bytes())
    broker.config_set("min-replicas-to-write", 1)
    try:
        waiting = lab.store_experiment(epochs=1)
        lab.cancel(running)  # from now on the worker asks for messages, and is refused
        lab.wait_for(running, Status.CANCELLED)
        wait_until(
            lambda: b"Connection to broker lost" in worker.log.read_bytes()[said_before:], 20, "the worker's refusal"
        )
    finally:
        broker.config_set("min-replicas-to-write", 0)
    lab.wait_for(waiting, Status.COMPLETED, seconds=30)
    assert worker.process.poll() is None
    assert len(lab.runs(running)) == 1


def entries_of_others() -> list[bytes]:
    """What a worker may find on its queue that no lab has put there."""
    ours = message_for(1)

    def changed(**changes: object) -> bytes:
        return json.dumps({**ours, **changes}).encode()

    def body(*value: object) -> str:
        return base64.b64encode(json.dumps(value).encode()).decode()

    pickled = base64.b64encode(pickle.dumps(([1], {}, {}))).decode()
    later = {"task": queue.TRAIN_TASK, "id": "1", "eta": "2999-01-01T00:00:00", "timelimit": "x"}
    return [
        b"",
        b"no json",
        b"\xff\xfe\x00",
        pickle.dumps({"task": "train"}),
        b"null",
        b"17",
        b"[1]",
        b"{}",
        b"[" * 100_000,
        b'{"properties": 1}',
        b'{"__type__": "datetime", "__value__": 3}',
        b"9" * 10_000,
        json.dumps({"body": "x" * 900_000}).encode(),
        changed(body=None),
        changed(body="not base64!"),
        changed(body=pickled, **{"content-type": "application/x-python-serialize"}),
        changed(body=pickled),
        changed(headers=None),
        changed(headers={"task": "worker.tasks.other", "id": "1"}),
        changed(headers={"task": ["a", "list"]}),
        changed(body=body(["1"], {}, {})),
        changed(body=body([None], {}, {})),
        changed(body=body([True], {}, {})),
        changed(body=body([1.5], {}, {})),
        changed(body=body([float("inf")], {}, {})),
        changed(body=body([2**70], {}, {})),
        changed(body=body([-1], {}, {})),
        changed(body=body([1, 2], {}, {})),
        changed(body=body([], {"experiment_id": 1}, {})),
        changed(body=body([1], {})),
        changed(body=body({"1": 2}, {}, {})),
        changed(headers=later, body=body([10**9], {}, {"chain": [{"task": "x"}], "callbacks": 3}), properties=None),
    ]


def test_entries_that_are_not_the_labs_are_dropped_and_told_and_the_worker_goes_on(lab: Lab) -> None:
    worker = lab.worker()
    broker = queue._client(lab.broker.url)
    entries = entries_of_others()
    before = worker.log.read_bytes().count(b"dropped an entry of the queue")
    for entry in entries:
        broker.lpush(queue.QUEUE, entry)
    lab.wait_for(lab.submit(epochs=1), Status.COMPLETED, seconds=60)
    log = worker.log.read_bytes()
    assert log.count(b"dropped an entry of the queue") > before, "of many alike some are told"
    wait_until(
        lambda: queue.queue_length(lab.celery) == 0 == broker.hlen("unacked"), 20, "the worker to take all entries"
    )
    assert max(map(len, log.splitlines())) < 5_000, "they are not quoted at length"
    assert worker.process.poll() is None


def test_no_command_but_a_ping_is_taken_from_the_broker(lab: Lab) -> None:
    worker = lab.worker()
    for command in ("shutdown", "pool_shrink", "rate_limit", "cancel_consumer", "revoke", "conf", "no-such-command"):
        answers = lab.celery.control.broadcast(command, reply=True, timeout=0.3)
        assert all("KeyError" in said["error"] for answer in answers for said in answer.values()), (
            "there is no such one"
        )
    for message in (b"no json", b"[]", b'{"properties": 1}', b"null"):
        queue._client(lab.broker.url).publish("/0.celery.pidbox", message)
    lab.wait_for(lab.submit(epochs=1), Status.COMPLETED, seconds=60)
    wait_until(lambda: queue.live_workers(lab.celery), 20, "an answer to a ping")
    assert worker.process.poll() is None


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
