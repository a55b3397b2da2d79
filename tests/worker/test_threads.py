"""What is recorded of a run's threads, and that a reproduction computes with the same ones."""

import pytest

from models.cores import usable_cores
from models.spec.parse import load_spec
from models.store import Status, experiments
from models.store.tables import Event
from tests.worker.lab import Lab, short_spec

pytestmark = pytest.mark.timeout(300)


def reproduction(lab: Lab, changes: list[tuple[int, int, int]]) -> int:
    """Submit a reproduction of an experiment that trained with these threads from these epochs and steps on."""
    original = lab.store_experiment()
    with lab.store.writing() as session:
        row = experiments.get(session, original)
        row.status = Status.COMPLETED
        row.environment = {
            "device_type": "cpu",
            "threads": changes[-1][2],
            "thread_changes": [
                {"times_lowered": 0, "epoch": epoch, "step": step, "threads": threads}
                for epoch, step, threads in changes
            ],
        }
        spec = load_spec(row.spec)
        repeated = experiments.create(session, spec, layers=None, warnings=[], reproduces=original).id
    lab.enqueue(repeated)
    lab.wait_for(repeated, Status.COMPLETED)
    return repeated


@pytest.mark.skipif(usable_cores() < 2, reason="one core runs one thread")
def test_a_reproduction_has_the_originals_threads_at_each_step(lab: Lab) -> None:
    """Steps are small here: of itself a run would take one thread throughout."""
    lab.stop_workers()
    worker = lab.start_worker(omp_num_threads="2")
    changes = [(1, 0, 2), (1, 7, 1), (3, 0, 2)]
    repeated = reproduction(lab, changes)
    recorded = lab.experiment(repeated).environment["thread_changes"]
    assert [(each["epoch"], each["step"], each["threads"]) for each in recorded] == changes
    assert lab.notices(repeated) == ["threads-changed", "threads-changed"]
    worker.stop()


def test_a_runs_threads_are_recorded(lab: Lab) -> None:
    lab.worker()
    experiment_id = lab.submit(epochs=1)
    environment = lab.wait_for(experiment_id, Status.COMPLETED).environment
    assert environment["thread_changes"] == [{"times_lowered": 0, "epoch": 1, "step": 0, "threads": 1}]
    assert environment["threads"] == 1
    assert environment["cores"] == usable_cores()


def test_a_reproduction_that_may_not_have_as_many_threads_says_so(lab: Lab) -> None:
    """These workers are started with OMP_NUM_THREADS=1."""
    lab.worker()
    repeated = reproduction(lab, [(1, 0, 2)])
    assert lab.experiment(repeated).environment["threads"] == 1
    assert lab.notices(repeated) == ["threads-not-replayed"]
    with lab.store.reading() as session:
        event = session.query(Event).filter(Event.experiment_id == repeated, Event.kind == "notice").one()
    assert event.data["data"] == {"times_lowered": 0, "epoch": 1, "step": 0, "threads": 1, "asked": 2}
    assert short_spec()["epochs"] == len(lab.history(repeated))
