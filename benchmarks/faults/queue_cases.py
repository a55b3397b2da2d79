"""Worker and queue, cases 1 to 15: processes killed, stopped and doubled while they train."""

import signal

from benchmarks.faults.harness import Bench, case, expect, kill
from models.store import Status
from models.store.states import RunStatus


def curve(bench: Bench, experiment_id: int) -> list[tuple[float | None, ...]]:
    """What was measured, but for the times."""
    return [
        (each.train_loss, each.train_accuracy, each.val_loss, each.val_accuracy, each.lr, each.grad_norm)
        for each in bench.history(experiment_id)
    ]


@case(
    1,
    "kill -9 of the training process",
    done="One spec trained twice, 6 epochs; the second time SIGKILL in the middle of an epoch.",
    promise="resumes from the checkpoint as attempt 2, and on a CPU gives the curve of the uninterrupted run",
)
def training_process_killed(bench: Bench) -> str:
    undisturbed = bench.submit(epochs=6)
    bench.wait_for(undisturbed, Status.COMPLETED)
    killed = bench.submit(epochs=6)
    bench.wait_for_epoch(killed, 2)
    kill(bench.training_process(killed), signal.SIGKILL)
    bench.wait_for(killed, Status.COMPLETED)
    first, second = bench.runs(killed)
    expect(first.status is RunStatus.LOST and "SIGKILL" in str(first.reason), f"the first attempt: {first.reason}")
    expect(second.attempt == 2 and second.start_epoch >= 1, f"attempt {second.attempt} from {second.start_epoch}")
    expect(curve(bench, killed) == curve(bench, undisturbed), "the two curves differ")
    return f"attempt 2 went on after epoch {second.start_epoch} and completed; all 6 epochs equal to the last bit"
