"""Reading, waiting for and cancelling the stored experiments of a lab, for `make faults` and the worker's tests."""

from typing import Any

from benchmarks.faults.stopping import stop_outside_transaction
from benchmarks.faults.waiting import Broken, wait_until
from models.curves.metrics import EpochMetrics
from models.store import Status, Store, experiments, history, runs
from models.store.states import UNFINISHED
from models.store.tables import Event, Experiment, Run


class StoredExperiments:
    """Reads the database of a lab that is used meanwhile."""

    store: Store

    def experiment(self, experiment_id: int) -> Experiment:
        with self.store.reading() as session:
            return experiments.get(session, experiment_id)

    def status(self, experiment_id: int) -> Status:
        return self.experiment(experiment_id).status

    def history(self, experiment_id: int) -> list[EpochMetrics]:
        with self.store.reading() as session:
            return history.read(session, experiment_id)

    def runs(self, experiment_id: int) -> list[Run]:
        with self.store.reading() as session:
            return runs.list_for(session, experiment_id)

    def notices(self, experiment_id: int) -> list[str]:
        """The codes of its notices."""
        with self.store.reading() as session:
            found = session.query(Event).filter(Event.experiment_id == experiment_id, Event.kind == "notice")
            return [event.data["code"] for event in found.order_by(Event.id)]

    def wait_for(self, experiment_id: int, *statuses: Status, seconds: float = 90.0) -> Experiment:
        """The experiment once it has one of these statuses; Broken when it ends with another one."""

        def reached() -> Experiment | None:
            experiment = self.experiment(experiment_id)
            if experiment.status in statuses:
                return experiment
            if experiment.status.terminal:
                raise Broken(f"experiment {experiment_id} is {experiment.status}: {experiment.reason}")
            return None

        return wait_until(reached, f"experiment {experiment_id} to be {' or '.join(statuses)}", seconds)

    def wait_for_epoch(self, experiment_id: int, epoch: int, seconds: float = 90.0) -> None:
        """Return once so many epochs are stored; Broken when the run ends before."""

        def reached() -> bool:
            experiment = self.experiment(experiment_id)
            if len(self.history(experiment_id)) >= epoch:
                return True
            if experiment.status.terminal:
                raise Broken(f"experiment {experiment_id} is {experiment.status}: {experiment.reason}")
            return False

        wait_until(reached, f"epoch {epoch} of experiment {experiment_id}", seconds)

    def put_to_sleep(self, *pids: int) -> None:
        """SIGSTOP processes while they do not hold the database's lock, which no other process could take then."""
        wait_until(lambda: stop_outside_transaction(self.store.url, *pids), "a moment without a transaction")

    def cancel_all(self) -> None:
        """Cancel everything that is queued or running, as far as there is a worker to act on it."""
        with self.store.writing() as session:
            active = session.query(Experiment.id).filter(Experiment.status.in_(UNFINISHED))
            for (experiment_id,) in active.all():
                experiments.request_cancel(session, experiment_id)


def endless(**changes: Any) -> dict[str, Any]:
    """Changes to a spec that make a run go on until it is cancelled."""
    return {"epochs": 10_000, **changes}
