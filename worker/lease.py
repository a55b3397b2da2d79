"""A worker's lease on a run: a thread renews it, and the run's end is written through it.

The database decides which worker owns a run. A lease is a heartbeat counter that its owner increments; the reapers of
all workers measure on their own clocks how long it has not changed (worker.reaper), so clocks are never compared.
"""

import threading
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy.orm import Session

from models.errors import EpochalError, LeaseLost
from models.progress import RunProgress, TestResult
from models.spec.parse import load_spec
from models.store import Status, Store, runs
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from worker.messages import ClaimJson

log = structlog.get_logger(__name__)

RENEWALS_A_LEASE = 5
LONGEST_RENEWAL_SECONDS = 1.0
"""A cancel request is seen, and progress shown, at least this often, however long the lease."""

RETRY_SECONDS = 2.0


class Lease:
    """Holds one claim and renews it. The thread stops when the lease is released, or lost to another worker."""

    def __init__(self, store: Store, claim: runs.Claim, lease_seconds: float) -> None:
        self.claim = claim
        self.progress: RunProgress | None = None
        self.cancel_requested = False
        self.stop_requested = False
        self.lost = False
        self._store = store
        self._interval = min(lease_seconds / RENEWALS_A_LEASE, LONGEST_RENEWAL_SECONDS)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{claim.experiment_id}", daemon=True)

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()

    def add_joules(self, joules: float) -> None:
        """Add to the energy that the experiment took. A database that is unavailable loses the figure, not the run."""
        with suppress(EpochalError), self._store.writing() as session:
            runs.add_joules(session, self.claim, joules)

    def settle(self, status: Status, *, reason: str | None = None, test: TestResult | None = None) -> bool:
        """Write the run's end, retrying while the database is unavailable. False if another worker owns the run."""
        return self._write(lambda session: runs.settle(session, self.claim, status, reason=reason, test=test))

    def hand_back(self, reason: str, *, counts: bool) -> bool:
        """Return the run to the queue, or end it when its attempts are used up. False as for `settle`."""
        return self._write(lambda session: runs.hand_back(session, self.claim, reason, counts=counts))

    def _write(self, action: Callable[[Session], object]) -> bool:
        while not self.lost:
            try:
                with self._store.writing() as session:
                    action(session)
            except LeaseLost:
                self.lost = True
            except EpochalError as error:
                log.warning("a run's end cannot be stored yet", experiment=self.claim.experiment_id, why=str(error))
                self._released.wait(RETRY_SECONDS)
            else:
                self._released.set()
                return True
        return False

    def _renew(self) -> None:
        failing = False
        while not self._released.wait(self._interval):
            try:
                with self._store.writing() as session:
                    self.cancel_requested, self.stop_requested = runs.renew(session, self.claim, self.progress)
            except LeaseLost:
                if not self._released.is_set():  # else it is our own end that was stored a moment ago
                    self.lost = True
                return
            except Exception as error:  # noqa: BLE001 (a thread that ended here would lose the run)
                if not failing:  # logged once, though it is tried again and again
                    log.warning("the lease cannot be renewed now", experiment=self.claim.experiment_id, why=str(error))
                failing = True
            else:
                failing = False


def claim_to_json(claim: runs.Claim) -> ClaimJson:
    """A claim as plain data, for the training process."""
    return {
        "experiment_id": claim.experiment_id,
        "run_id": claim.run_id,
        "attempt": claim.attempt,
        "worker": claim.worker,
        "spec": claim.spec.as_json(),
        "checkpoints": [
            {
                "experiment_id": record.experiment_id,
                "kind": record.kind.value,
                "epoch": record.epoch,
                "attempt": record.attempt,
                "path": record.path,
                "sha256": record.sha256,
                "num_bytes": record.num_bytes,
            }
            for record in claim.checkpoints
        ],
        "start_epoch": claim.start_epoch,
    }


def claim_from_json(body: ClaimJson) -> runs.Claim:
    """The claim from `claim_to_json`; its spec is validated again."""
    return runs.Claim(
        experiment_id=body["experiment_id"],
        run_id=body["run_id"],
        attempt=body["attempt"],
        worker=body["worker"],
        spec=load_spec(body["spec"]),
        checkpoints=[
            ArtifactRecord(
                experiment_id=each["experiment_id"],
                kind=ArtifactKind(each["kind"]),
                epoch=each["epoch"],
                attempt=each["attempt"],
                path=each["path"],
                sha256=each["sha256"],
                num_bytes=each["num_bytes"],
            )
            for each in body["checkpoints"]
        ],
        start_epoch=body["start_epoch"],
    )
