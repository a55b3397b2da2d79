"""Worker and queue, cases 1 to 15: processes killed, stopped and doubled while they train."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from sqlalchemy import func, select

from benchmarks.faults.harness import (
    API,
    LEASE_SECONDS,
    Bench,
    Broken,
    alive,
    case,
    endless,
    expect,
    kill,
    wait_until,
)
from benchmarks.faults.workers import ExtraWorker, family_of, jobs_of
from models.queue import enqueue, make_celery, queue_length
from models.store import Status, artifacts
from models.store.states import RunStatus
from models.store.tables import EpochRow


def curve(bench: Bench, experiment_id: int) -> list[tuple[float | None, ...]]:
    """An experiment's metrics without times."""
    return [
        (each.train_loss, each.train_accuracy, each.val_loss, each.val_accuracy, each.lr, each.grad_norm)
        for each in bench.history(experiment_id)
    ]


@case(
    1,
    "kill -9 of the training process",
    done="One spec trained twice; the first time SIGKILL behind its second epoch.",
    promise="resumes from the checkpoint as attempt 2, and on a CPU gives the curve of the uninterrupted run",
)
def training_process_killed(bench: Bench) -> str:
    killed, pid, changes = bench.catch_training(2)
    kill(pid, signal.SIGKILL)
    bench.wait_for(killed, Status.COMPLETED)
    undisturbed = bench.submit(**changes)
    bench.wait_for(undisturbed, Status.COMPLETED)
    first, second = bench.runs(killed)
    expect(first.status is RunStatus.LOST and "SIGKILL" in str(first.reason), f"the first attempt: {first.reason}")
    expect(second.attempt == 2 and second.start_epoch >= 1, f"attempt {second.attempt} from {second.start_epoch}")
    expect(curve(bench, killed) == curve(bench, undisturbed), "the two curves differ")
    return (
        f"attempt 2 went on after epoch {second.start_epoch} and completed; all {changes['epochs']} epochs equal "
        "to the last bit"
    )


@case(
    2,
    "kill -9 of the whole worker",
    done="SIGKILL of the worker that trains; another one is there.",
    promise="the reaper gives the run back within lease + 5 s; it goes on and completes",
)
def worker_killed(bench: Bench) -> str:
    second = bench.start_worker("second")
    experiment_id, _, _ = bench.catch_training(2)
    owner = bench.runs(experiment_id)[0].worker
    victim = second.pid if owner.startswith("second") else bench.worker_pid
    family = family_of(victim)
    kill(victim)
    began = time.monotonic()
    allowed = LEASE_SECONDS + 5
    wait_until(lambda: bench.runs(experiment_id)[0].status is RunStatus.LOST, "the lease to run out", allowed)
    given_back = time.monotonic() - began
    wait_until(lambda: len(bench.runs(experiment_id)) == 2, "another claim", max(0.0, allowed - given_back))
    claimed = time.monotonic() - began
    wait_until(lambda: not any(alive(pid) for pid in family), "the killed worker's nursery and job to end", 30)
    bench.wait_for(experiment_id, Status.COMPLETED)
    return (
        f"given back {given_back:.1f} s and claimed {claimed:.1f} s after the kill, with a lease of "
        f"{LEASE_SECONDS:g} s; went on after epoch {bench.runs(experiment_id)[1].start_epoch} and completed"
    )


@case(
    3,
    "SIGTERM to the worker",
    done="SIGTERM in the middle of a long epoch.",
    promise="checkpoint, hand back, exit within 10 s; the next worker goes on in the middle of that epoch",
)
def worker_told_to_end(bench: Bench) -> str:
    experiment_id = bench.submit(**endless(), dataset={"name": "cifar10", "train_limit": 20_000, "val_limit": 200})
    bench.training_process(experiment_id)
    wait_until(lambda: ((bench.experiment(experiment_id).progress or {"step": 0})["step"]) > 5, "a few steps")
    pid = bench.worker_pid
    with bench.worker_comes_back():
        bench.lab.workers[0].terminate()
        began = time.monotonic()
        wait_until(lambda: not alive(pid), "the worker to exit", 10)
        seconds = time.monotonic() - began
        first = bench.runs(experiment_id)[0]
        expect(first.status is RunStatus.HANDED_BACK, f"the run is {first.status}: {first.reason}")
        expect(bench.experiment(experiment_id).failed_attempts == 0, "it was counted as a failed attempt")
        with bench.store.reading() as session:
            saved = artifacts.checkpoints(session, experiment_id)
        expect(saved, "no checkpoint was stored")
    wait_until(lambda: "resumed" in bench.notices(experiment_id), "the run to go on")
    bench.wait_for_epoch(experiment_id, len(bench.history(experiment_id)) + 1, seconds=180)
    bench.cancel(experiment_id)
    bench.wait_for(experiment_id, Status.CANCELLED)
    return f"exited {seconds:.1f} s later, {saved[0].path.rsplit('/', 1)[1]} stored; attempt 2 went on with that epoch"


@contextmanager
def inside_a_checkpoint_write(bench: Bench, experiment_id: int) -> Iterator[int]:
    """The training process, stopped while a half-written checkpoint lies beside the others."""
    pid = bench.training_process(experiment_id)
    folder = bench.settings.experiments_dir / str(experiment_id)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(folder.glob("attempt-*/.checkpoint-*")):
            kill(pid, signal.SIGSTOP)
            if any(folder.glob("attempt-*/.checkpoint-*")):
                yield pid
                return
            kill(pid, signal.SIGCONT)
        time.sleep(0.0005)
    raise Broken("no checkpoint was caught while it was written")


@case(
    4,
    "SIGKILL inside a checkpoint write",
    done="The training process stopped when a half-written checkpoint lies there, then SIGKILL.",
    promise="the previous checkpoint loads; the half-written file is removed",
)
def killed_inside_a_checkpoint_write(bench: Bench) -> str:
    experiment_id = bench.submit(**endless())
    bench.wait_for_epoch(experiment_id, 2)
    with inside_a_checkpoint_write(bench, experiment_id) as pid:
        with bench.store.reading() as session:
            newest = artifacts.checkpoints(session, experiment_id)[0]
        kill(pid)
    bench.wait_for_epoch(experiment_id, newest.epoch + 2)
    bench.cancel(experiment_id)
    bench.wait_for(experiment_id, Status.CANCELLED)
    second = bench.runs(experiment_id)[1]
    expect(second.start_epoch == newest.epoch, f"went on after epoch {second.start_epoch}, not {newest.epoch}")
    expect("checkpoint-unusable" not in bench.notices(experiment_id), "a checkpoint was passed over")
    return f"went on after epoch {newest.epoch}, the last that was saved whole; nothing half-written left"


@case(
    5,
    "a damaged checkpoint",
    done="The newest checkpoint cut in half, in a second run one bit of it flipped; then SIGKILL.",
    promise="its digest fails, the one before it is taken, and a notice says so",
)
def checkpoint_damaged(bench: Bench) -> str:
    found = []
    for damage in ("cut in half", "one bit flipped"):
        # Stopped, so that the newest one is known, and can be damaged before it is read.
        experiment_id, pid, _ = bench.catch_training(3)
        with bench.store.reading() as session:
            newest, before = artifacts.checkpoints(session, experiment_id)
        path = newest.file(bench.settings.experiments_dir)
        content = bytearray(path.read_bytes())
        if damage == "cut in half":
            del content[len(content) // 2 :]
        else:
            content[len(content) // 2] ^= 1
        path.write_bytes(content)
        kill(pid)
        bench.wait_for(experiment_id, Status.COMPLETED)
        expect("checkpoint-unusable" in bench.notices(experiment_id), f"{damage}: nothing was said")
        resumed_at = first_epoch_of_attempt(bench, experiment_id, 2)
        expect(resumed_at == before.epoch + 1, f"{damage}: attempt 2 began with epoch {resumed_at}")
        found.append(f"{damage}: epoch {newest.epoch}'s refused, epoch {before.epoch}'s taken")
    return "; ".join(found)


def first_epoch_of_attempt(bench: Bench, experiment_id: int, attempt: int) -> int:
    """The first epoch that an attempt stored."""
    with bench.store.reading() as session:
        query = select(func.min(EpochRow.epoch)).where(
            EpochRow.experiment_id == experiment_id, EpochRow.attempt == attempt
        )
        return session.scalar(query) or 0


@case(
    6,
    "the same message twice",
    done="Six messages for one experiment to two idle workers at once, and for another one while it trains.",
    promise="one worker trains it, once",
)
def messages_doubled(bench: Bench) -> str:
    bench.start_worker("second")
    celery = make_celery(bench.settings)
    try:
        first, second = bench.submit(epochs=6), bench.submit(epochs=6)
        for experiment_id in (first, second) * 5:
            enqueue(celery, experiment_id)
        for experiment_id in (first, second):
            bench.wait_for(experiment_id, Status.COMPLETED)
        wait_until(lambda: queue_length(celery) == 0, "the other messages to be taken")
    finally:
        celery.close()
    counts = [len(bench.runs(experiment_id)) for experiment_id in (first, second)]
    expect(counts == [1, 1], f"{counts} runs")
    names = {bench.runs(experiment_id)[0].worker.partition("@")[0] for experiment_id in (first, second)}
    return f"12 messages, 2 runs, on {len(names)} workers; the rest did nothing"


@case(
    7,
    "SIGSTOP past the lease, then SIGCONT",
    done="Worker and training process stopped until another worker had the run, then woken up.",
    promise="the old owner's writes are refused; it gives up and lives on",
)
def worker_asleep(bench: Bench) -> str:
    experiment_id = bench.submit(**endless())
    bench.wait_for_epoch(experiment_id, 1)
    sleeper, old_job = bench.worker_pid, bench.training_process(experiment_id)
    bench.start_worker("second")
    bench.put_to_sleep(sleeper, old_job)
    wait_until(lambda: len(bench.runs(experiment_id)) == 2, "another worker to claim it", LEASE_SECONDS + 20)
    for pid in (old_job, sleeper):
        kill(pid, signal.SIGCONT)
    wait_until(lambda: not alive(old_job), "the old training process to give up", 30)
    log = bench.lab.workers[0].log
    wait_until(lambda: b"left a run to another worker" in log.read_bytes(), "the old owner to notice", 20)
    bench.wait_for_epoch(experiment_id, len(bench.history(experiment_id)) + 1)
    bench.cancel(experiment_id)
    bench.wait_for(experiment_id, Status.CANCELLED)
    ends = [run.status for run in bench.runs(experiment_id)]
    expect(ends == [RunStatus.LOST, RunStatus.CANCELLED], f"the runs are {ends}")
    expect(alive(sleeper), "the worker that had slept is gone")
    return "the old training process ended itself and its worker left the run; the new owner trained on undisturbed"


SHORT_VISIBILITY = """
import sys
from models import queue
queue.FOREVER_SECONDS = 1
sys.argv = ["worker", "--name", "short"]
from worker.__main__ import main
main()
"""


@case(
    8,
    "a visibility timeout shorter than the job",
    done="Two workers with a visibility timeout of 1 s, a run of several seconds.",
    promise="no duplicate: messages are acknowledged before the training",
)
def visibility_timeout_short(bench: Bench) -> str:
    environment = bench.lab.workers[0].environment
    for number in (1, 2):
        source = SHORT_VISIBILITY.replace('"short"', f'"short-{number}"')
        worker = ExtraWorker(f"short-{number}", bench.lab.logs, environment, [sys.executable, "-P", "-c", source])
        bench.extra_workers.append(worker)
        worker.wait_until_ready()
    with bench.lab_worker_stopped():
        experiment_id = bench.submit(**endless())
        bench.wait_for_epoch(experiment_id, 1)
        began = time.monotonic()
        time.sleep(8)  # the fault is that time passes
        bench.cancel(experiment_id)
        bench.wait_for(experiment_id, Status.CANCELLED)
        seconds = time.monotonic() - began
        another = bench.submit(epochs=1)
        bench.wait_for(another, Status.COMPLETED)
    runs = bench.runs(experiment_id)
    expect(len(runs) == 1 and runs[0].worker.startswith("short"), f"{len(runs)} runs, by {runs[0].worker}")
    return f"a run of {seconds:.0f} s was delivered and trained once; the next one followed"


@case(
    9,
    "a spec that kills its worker every time",
    done="kill -9 of the whole worker each time it has begun to train this experiment; others are queued behind it.",
    promise="failed after 3 attempts, with the reason; the others train",
)
def worker_killed_every_time(bench: Bench) -> str:
    poisonous = bench.submit(**endless())
    others = [bench.submit(epochs=1) for _ in range(2)]
    kills = 0
    deadline = time.monotonic() + 180
    while not bench.status(poisonous).terminal:
        expect(time.monotonic() < deadline, f"still {bench.status(poisonous)} after {kills} kills")
        runs = bench.runs(poisonous)
        if len(runs) > kills and runs[-1].status is RunStatus.RUNNING and jobs_of(bench.worker_pid):
            with bench.worker_comes_back():
                kill(bench.worker_pid)
            kills += 1
        time.sleep(0.05)
    experiment = bench.experiment(poisonous)
    expect(experiment.status is Status.FAILED, f"it is {experiment.status}")
    expect(kills == 3 and len(bench.runs(poisonous)) == 3, f"{kills} kills, {len(bench.runs(poisonous))} runs")
    for each in others:
        bench.wait_for(each, Status.COMPLETED)
    return f"3 kills, then failed: '{experiment.reason}'; the 2 others completed"


@case(
    10,
    "cancel",
    done="Twice each: while queued, while running, inside a checkpoint write, just after the end; "
    "and 8 runs cancelled at moments around their end.",
    promise="one deterministic end, however often it is asked for",
)
def cancelled(bench: Bench) -> str:
    running, queued = bench.submit(**endless()), bench.submit()
    bench.wait_for_epoch(running, 1)
    expect([bench.cancel(queued).status_code for _ in range(2)] == [200, 200], "cancelling what is queued")
    expect(bench.status(queued) is Status.CANCELLED, f"the queued one is {bench.status(queued)}")
    codes = [bench.cancel(running).status_code for _ in range(2)]
    bench.wait_for(running, Status.CANCELLED, seconds=20)
    expect([*codes, bench.cancel(running).status_code] == [200, 200, 200], f"cancelling what runs: {codes}")

    saving = bench.submit(**endless())
    bench.wait_for_epoch(saving, 1)
    with inside_a_checkpoint_write(bench, saving) as pid:
        codes = [bench.cancel(saving).status_code for _ in range(2)]
        kill(pid, signal.SIGCONT)
    bench.wait_for(saving, Status.CANCELLED, seconds=30)
    expect(codes == [200, 200], f"cancelling what saves: {codes}")

    finished = bench.submit(epochs=1)
    bench.wait_for(finished, Status.COMPLETED)
    codes = [bench.cancel(finished).status_code for _ in range(2)]
    expect(codes == [409, 409], f"cancelling what has finished: {codes}")
    expect(bench.status(finished) is Status.COMPLETED, "it is no longer completed")
    ends = Counter(cancel_near_the_end(bench, number) for number in range(8))
    return (
        "200 and cancelled in the first three, 409 and still completed in the fourth; around the end "
        f"{ends['completed']} completed (409) and {ends['cancelled']} cancelled (200), none anything else"
    )


def cancel_near_the_end(bench: Bench, number: int) -> str:
    """Cancel a short run around its last epoch; its status must be the answered one. Returns the status."""
    experiment_id = bench.submit(epochs=2, dataset={"name": "cifar10", "train_limit": 64, "val_limit": 50})
    bench.wait_for(experiment_id, Status.RUNNING, Status.COMPLETED)
    wait_until(lambda: bench.history(experiment_id)[1:], "the last epoch")
    time.sleep(0.02 * number)
    code = bench.cancel(experiment_id).status_code
    wait_until(lambda: bench.status(experiment_id).terminal, "the end")
    status = bench.status(experiment_id)
    expect(code in (200, 409), f"the cancel was answered {code}")
    expect(not (code == 409 and status is Status.CANCELLED), "refused, and cancelled all the same")
    expect(status in (Status.CANCELLED, Status.COMPLETED), f"it is {status}")
    again = bench.cancel(experiment_id).status_code
    expect(again == (200 if status is Status.CANCELLED else 409), f"{status}, and another cancel got {again}")
    expect(bench.status(experiment_id) is status, "another cancel changed the end")
    return str(status)


@case(
    11,
    "delete while it trains",
    done="DELETE of a running experiment; then cancel, and DELETE again.",
    promise="409 while it runs; deleted with its files once it was cancelled",
)
def deleted(bench: Bench) -> str:
    experiment_id = bench.submit(**endless())
    bench.wait_for_epoch(experiment_id, 1)
    path = f"{API}/experiments/{experiment_id}"
    first = bench.client.delete(path)
    expect(first.status_code == 409, f"the first DELETE was answered {first.status_code}")
    bench.wait_for_epoch(experiment_id, len(bench.history(experiment_id)) + 1)
    bench.cancel(experiment_id)
    bench.wait_for(experiment_id, Status.CANCELLED)
    second = bench.client.delete(path)
    expect(second.status_code == 204, f"the second DELETE was answered {second.status_code}")
    expect(bench.client.get(path).status_code == 404, "it can still be read")
    folder = bench.settings.experiments_dir / str(experiment_id)
    wait_until(lambda: not folder.exists(), "its folder to go", 10)
    expect(not bench.history(experiment_id), "its epochs are still there")
    return "409 and it trained on; after the cancel 204, then 404, its folder and rows gone"


@case(
    12,
    "out of memory in training",
    done="The training process's address space limited to half of what it has.",
    promise="failed with that reason, at once; the worker lives and trains the next one",
)
def out_of_memory(bench: Bench) -> str:
    experiment_id = bench.submit(**endless())
    bench.wait_for_epoch(experiment_id, 1)
    worker = bench.worker_pid
    process = psutil.Process(bench.training_process(experiment_id))
    half = process.memory_info().vms // 2
    process.rlimit(psutil.RLIMIT_AS, (half, half))
    experiment = bench.wait_for(experiment_id, Status.FAILED)
    expect("out of memory" in str(experiment.reason), f"the reason is: {experiment.reason}")
    expect(len(bench.runs(experiment_id)) == 1, "it was tried again")
    bench.wait_for(bench.submit(epochs=1), Status.COMPLETED)
    expect(bench.worker_pid == worker, "the worker was started anew")
    return f"failed: '{experiment.reason}'; the same worker completed the next one"


@case(
    13,
    "a native crash in training",
    done="SIGSEGV, later SIGABRT, to the training process.",
    promise="resumes as after a kill; the worker lives",
)
def native_crash(bench: Bench) -> str:
    experiment_id = bench.submit(**endless())
    worker = bench.worker_pid
    for number, signum in enumerate((signal.SIGSEGV, signal.SIGABRT), start=1):
        bench.wait_for_epoch(experiment_id, 3 * number - 1)
        kill(bench.training_process(experiment_id), signum)
        wait_until(lambda number=number: len(bench.runs(experiment_id)) > number, "the next attempt")  # type: ignore[misc]
    bench.wait_for_epoch(experiment_id, len(bench.history(experiment_id)) + 2)
    bench.cancel(experiment_id)
    bench.wait_for(experiment_id, Status.CANCELLED)
    runs = bench.runs(experiment_id)
    expect("SIGSEGV" in str(runs[0].reason) and "SIGABRT" in str(runs[1].reason), f"{runs[0].reason}, {runs[1].reason}")
    expect(bench.worker_pid == worker, "the worker was started anew")
    return f"attempts 2 and 3 went on after epochs {runs[1].start_epoch} and {runs[2].start_epoch}"


@case(
    14,
    "a hang with no progress",
    done="The training process stopped for good, on a worker whose watchdog waits 4 s.",
    promise="the watchdog ends it; the next attempt completes",
    settings={"stall_seconds": 4.0},
)
def hang(bench: Bench) -> str:
    experiment_id, pid, _ = bench.catch_training(2)
    began = time.monotonic()
    wait_until(lambda: not alive(pid), "the watchdog", 30)
    seconds = time.monotonic() - began
    bench.wait_for(experiment_id, Status.COMPLETED)
    reason = str(bench.runs(experiment_id)[0].reason)
    expect("no progress" in reason, f"the reason is: {reason}")
    return f"ended after {seconds:.1f} s ('{reason}'); attempt 2 completed"


ROUNDS = 20


@case(
    15,
    f"{ROUNDS} rounds of kill and restart under load",
    done="In turn kill -9 of a worker, which starts again, and of a training process; experiments queued throughout.",
    promise="all complete; no growth in descriptors, memory or zombies of what lives on",
    settings={"max_attempts": 1000},
)
def rounds(bench: Bench) -> str:
    steady = bench.start_worker("steady")
    api = bench.lab.api
    assert api is not None
    watched = {"api": api.pid, "worker": steady.pid, "lab": os.getpid()}
    bench.wait_for(bench.submit(epochs=1), Status.COMPLETED)
    processes = {name: psutil.Process(pid) for name, pid in watched.items()}
    ids: list[int] = []
    before: dict[str, tuple[int, int]] = {}
    for number in range(ROUNDS):
        ids += [bench.submit(epochs=3) for _ in range(2)]
        if number % 2:
            for pid in (*jobs_of(steady.pid), *jobs_of(bench.worker_pid)):
                kill(pid)
        else:
            with bench.worker_comes_back():
                kill(bench.worker_pid)
        if number == ROUNDS // 4:  # first uses are over: caches, connections, threads
            before = {name: resources(process) for name, process in processes.items()}
    for experiment_id in ids:
        bench.wait_for(experiment_id, Status.COMPLETED, seconds=180)
    told = []
    for name, process in processes.items():
        (fds, memory), (fds_before, memory_before) = resources(process), before[name]
        told.append(f"{name} {fds - fds_before:+d} descriptors, {(memory - memory_before) / 2**20:+.0f} MB")
        expect(fds <= fds_before + 8, f"{name}: {fds_before} descriptors, then {fds}")
        expect(memory <= memory_before + 40 * 2**20, f"{name}: {memory_before >> 20} MB, then {memory >> 20} MB")
    return f"{len(ids)} experiments completed; {'; '.join(told)}; no zombies"


def resources(process: psutil.Process) -> tuple[int, int]:
    """Open descriptors and resident bytes."""
    return process.num_fds(), process.memory_info().rss
