"""The nursery forks ready processes, and none of them outlives it or its worker."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.processes import alive, wait_until
from worker.processes.nursery import JobProcess, Nursery, NurseryError

ENTRY = "tests.worker.processes.jobs:run_job"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery(ENTRY)
    nursery.start()
    yield nursery
    nursery.stop()


def finish(job: JobProcess) -> list[dict[str, Any]]:
    """Everything a job reports until it ends."""
    reports = []
    with job:
        while job.exit_code is None:
            reports += job.read(10)
    return reports


def test_a_job_is_a_fork_of_the_nursery_with_a_group_and_signals_of_its_own(nursery: Nursery) -> None:
    job = nursery.spawn({"do": "describe"})
    [report] = finish(job)
    assert job.exit_code == 7
    assert report["pid"] == job.pid == report["group"] == report["session"]
    assert report["parent"] == report["imported_in"] == nursery.pid
    assert report["default_signals"]


def test_jobs_inherit_nothing_from_each_other_and_leave_no_descriptors(nursery: Nursery) -> None:
    before = psutil.Process().num_fds(), psutil.Process(nursery.pid).num_fds()
    with nursery.spawn({"do": "wait_for_order"}) as other:
        [report] = finish(nursery.spawn({"do": "describe"}))
        other.order("go")
    assert len(report["descriptors"]) <= 6  # standard ones, its two pipes, the listing itself
    for _ in range(20):
        finish(nursery.spawn({"do": "describe"}))
    assert wait_until(lambda: (psutil.Process().num_fds(), psutil.Process(nursery.pid).num_fds()) == before)
    assert psutil.Process(nursery.pid).children() == []


def test_the_exit_code_tells_the_signal_that_ended_a_job(nursery: Nursery) -> None:
    job = nursery.spawn({"do": "die_of", "with": {"signum": int(signal.SIGSEGV)}})
    assert finish(job) == []
    assert job.exit_code == -signal.SIGSEGV


def test_orders_reach_a_job_and_a_closed_one_is_left_alone(nursery: Nursery) -> None:
    job = nursery.spawn({"do": "wait_for_order"})
    assert wait_until(lambda: job.read(1)) == [{"ready": True}]
    job.order("shutdown")
    assert finish(job) == [{"order": "shutdown"}]
    job.order("cancel")
    job.signal(signal.SIGTERM)
    job.close()


def test_a_full_pipe_stalls_no_report_and_loses_no_outcome(nursery: Nursery) -> None:
    job = nursery.spawn({"do": "flood", "with": {"count": 5000}})
    # Nobody reads while the job floods its pipe. It reaches its last word all the same, and waits there.
    process = psutil.Process(job.pid)
    wait_until(lambda: process.status() == psutil.STATUS_SLEEPING and process.cpu_times().user > 0)
    reports = finish(job)
    numbers = [report["number"] for report in reports[:-1]]
    assert reports[-1]["done"] == 5000
    assert numbers == sorted(set(numbers))
    assert 0 < len(numbers) < 5000


def test_what_a_job_leaves_behind_is_swept_away(nursery: Nursery) -> None:
    [report] = finish(nursery.spawn({"do": "have_a_child"}))
    wait_until(lambda: not alive(report["grandchild"]))


def test_a_nursery_that_was_killed_takes_its_jobs_along_and_is_replaced(nursery: Nursery) -> None:
    job = nursery.spawn({"do": "sleep"})
    wait_until(lambda: job.read(1))
    os.kill(nursery.pid, signal.SIGKILL)
    finish(job)
    assert job.exit_code == -signal.SIGKILL
    wait_until(lambda: not alive(job.pid))
    assert finish(nursery.spawn({"do": "describe"}))


def test_signals_that_a_service_manager_sends_to_everyone_leave_the_nursery_standing(nursery: Nursery) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(nursery.pid, signum)
    [report] = finish(nursery.spawn({"do": "describe"}))
    assert report["parent"] == nursery.pid


WORKER = """
import sys
from worker.processes.nursery import Nursery
nursery = Nursery("tests.worker.processes.jobs:run_job")
job = nursery.spawn({"do": "sleep"})
while not job.read(1): pass
print(nursery.pid, job.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_no_process_outlives_a_worker_that_was_killed(stopped: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        pids = [int(word) for word in worker.stdout.readline().split()]
        assert all(alive(pid) for pid in pids)
        if stopped:
            os.kill(pids[1], signal.SIGSTOP)
        worker.kill()
    wait_until(lambda: not any(alive(pid) for pid in pids), what="nursery and job to end")


def test_waiting_for_a_nursery_can_be_given_up() -> None:
    nursery = Nursery("tests.worker.processes.jobs:run_job")
    nursery.start()
    os.kill(nursery.pid, signal.SIGSTOP)
    with pytest.raises(NurseryError, match="was cancelled"):
        nursery.spawn({"do": "describe"}, give_up=lambda: True)
    nursery.stop()
