"""What the engine reports is stored by the experiment's present owner only; estimates of the time left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from models import files
from models.curves.metrics import EpochMetrics
from models.errors import LeaseLost, Unavailable
from models.settings import Settings
from models.spec.parse import parse_spec
from models.store import Status, Store, artifacts, experiments, history, runs
from models.verdict import judge
from tests.stores import new_store
from worker import sink as sink_module
from worker.folders import attempt_folder, sweep
from worker.sink import Pace, StoreSink


class Bench:
    """A store with one claimed experiment, and the sink of its run."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder)
        self.store = new_store(self.settings)
        with self.store.writing() as session:
            self.experiment_id = experiments.create(
                session, parse_spec({"model": "baseline", "epochs": 4}), layers=None, warnings=[]
            ).id
        self.reports: list[dict[str, Any]] = []
        self.claim_again()

    def claim_again(self) -> None:
        with self.store.writing() as session:
            claim = runs.claim(session, self.experiment_id, "w", 3)
        assert claim is not None
        self.claim = claim
        self.sink = StoreSink(self.store, claim, self.settings.experiments_dir, self.reports.append)

    def hand_back(self) -> None:
        with self.store.writing() as session:
            runs.hand_back(session, self.claim, "told to", counts=False)

    def write(self, name: str, content: bytes = b"x") -> Path:
        folder = attempt_folder(self.settings.experiments_dir, self.experiment_id, self.claim.attempt)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(content)
        return path

    def epochs(self) -> list[int]:
        with self.store.reading() as session:
            return [each.epoch for each in history.read(session, self.experiment_id)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.dispose()


def metrics(epoch: int, **changes: Any) -> EpochMetrics:
    values: dict[str, Any] = {
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "val_loss": 1.0,
        "val_accuracy": 0.5,
        "lr": 0.1,
        "grad_norm": None,
        "seconds": 10.0,
        "images_per_second": 100.0,
        "peak_memory_mb": 1.0,
    }
    return EpochMetrics(epoch=epoch, **{**values, **changes})


def test_a_resumed_attempt_drops_the_epochs_that_it_trains_again(bench: Bench) -> None:
    for epoch in (1, 2, 3):
        bench.sink.append_epoch(metrics(epoch))
    bench.hand_back()
    bench.claim_again()
    bench.sink.append_epoch(metrics(2))
    assert bench.epochs() == [1, 2]


def test_every_write_of_an_attempt_that_lost_its_lease_is_refused(bench: Bench) -> None:
    late = bench.sink
    path = bench.write("weights-best.safetensors")
    bench.hand_back()
    bench.claim_again()
    for write in (
        lambda: late.append_epoch(metrics(1)),
        lambda: late.save("weights-best", 0, path),
        lambda: late.notice("code", "text", {}),
        lambda: late.verdict(judge([], spec=bench.claim.spec, num_classes=10)),
        lambda: late.environment({}),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert bench.epochs() == []


def stored_files(bench: Bench) -> dict[str, bytes]:
    """What the records point at, by kind and epoch."""
    with bench.store.reading() as session:
        records = artifacts.list_for(session, bench.experiment_id)
    for record in records:
        files.verify(record.file(bench.settings.experiments_dir), record.sha256)
    return {
        f"{record.kind} {record.epoch}": record.file(bench.settings.experiments_dir).read_bytes() for record in records
    }


def all_stored(bench: Bench) -> int:
    return len(list(bench.settings.experiments_dir.rglob("stored-*")))


def test_the_two_newest_checkpoints_are_kept_whatever_the_engine_removes(bench: Bench) -> None:
    for number in range(4):
        bench.sink.save("checkpoint", number, bench.write(f"checkpoint-{number}.pt", bytes([number])))
    later = bench.write("checkpoint-4.pt", b"later")
    bench.sink.save("checkpoint", 3, later)  # of the middle of the same epoch
    later.unlink()
    assert stored_files(bench) == {"checkpoint 3": b"later", "checkpoint 2": bytes([2])}
    assert all_stored(bench) == 2


def test_a_record_fits_its_file_while_the_next_one_is_written_over_it(bench: Bench) -> None:
    path = bench.write("weights-last.safetensors", b"first")
    bench.sink.save("weights-last", 0, path)
    successor = path.with_name("new")
    successor.write_bytes(b"second")
    successor.replace(path)  # and the process is killed here
    assert stored_files(bench) == {"weights-last 0": b"first"}
    bench.sink.save("weights-last", 0, path)
    bench.sink.save("weights-last", 0, path)
    assert stored_files(bench) == {"weights-last 0": b"second"}
    assert all_stored(bench) == 1


def test_a_new_attempts_weights_take_the_place_of_the_old_ones(bench: Bench) -> None:
    old = bench.write("weights-last.safetensors", b"old")
    bench.sink.save("weights-last", 0, old)
    bench.hand_back()
    bench.claim_again()
    bench.sink.save("weights-last", 0, bench.write("weights-last.safetensors", b"new"))
    assert stored_files(bench) == {"weights-last 0": b"new"}


def test_a_sweep_removes_what_no_record_points_at(bench: Bench) -> None:
    lost = bench.write("weights-last.safetensors", b"replaced by attempt 2")
    bench.sink.save("weights-last", 0, lost)
    bench.hand_back()
    bench.claim_again()
    bench.sink.save("weights-last", 0, bench.write("weights-last.safetensors", b"new"))
    bench.sink.save("kernels", 0, bench.write("kernels.safetensors", b"k"))
    bench.write(".weights-last.safetensors.17.partial")
    bench.write("stored-weights-last-0123456789ab.safetensors", b"killed before it was recorded")
    bench.hand_back()
    bench.claim_again()
    with bench.store.reading() as session:
        records = artifacts.list_for(session, bench.experiment_id)
    sweep(bench.settings.experiments_dir, bench.experiment_id, records, bench.claim.attempt)
    root = bench.settings.experiments_dir / str(bench.experiment_id)
    assert sorted(path.name for path in root.iterdir()) == ["attempt-2"]
    assert all_stored(bench) == 2
    assert not list(root.rglob(".*"))
    assert set(stored_files(bench)) == {"weights-last 0", "kernels 0"}


def test_progress_goes_to_the_supervisor_and_not_to_the_database(bench: Bench) -> None:
    with bench.store.reading() as session:
        before = experiments.get(session, bench.experiment_id).revision
    bench.sink.progress(1, 30, 100, 512.0, "training")
    assert bench.reports[-1]["progress"] == {
        "epoch": 1,
        "epochs": 4,
        "phase": "training",
        "step": 30,
        "steps": 100,
        "seconds_left": None,
        "images_per_second": 512.0,
    }
    with bench.store.reading() as session:
        assert experiments.get(session, bench.experiment_id).revision == before
        assert experiments.get(session, bench.experiment_id).status is Status.RUNNING


def test_the_time_left_is_estimated_from_steps_and_then_from_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(sink_module.time, "monotonic", lambda: clock[0])
    pace = Pace(epochs=3)
    assert pace.seconds_left(1, 0, 10, "training") is None
    clock[0] += 2
    assert pace.seconds_left(1, 5, 10, "training") == pytest.approx(2 + 2 * 4)
    pace.epoch_ended(metrics(1, seconds=6.0))
    assert pace.seconds_left(2, 0, 10, "training") == pytest.approx(6 + 6)
    clock[0] += 4
    assert pace.seconds_left(2, 9, 10, "validating") == pytest.approx(2 + 6)
    clock[0] += 10
    assert pace.seconds_left(2, 10, 10, "validating") == pytest.approx(6)


class Outage:
    """A store whose next transactions fail, before they begin or after they were committed."""

    def __init__(self, store: Store, *failures: str) -> None:
        self._store = store
        self._failures = list(failures)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        failure = self._failures.pop(0) if self._failures else None
        if failure == "before":
            raise Unavailable("the database does not answer")
        with self._store.writing() as session:
            yield session
        if failure == "after":
            raise Unavailable("the connection was lost")


@pytest.mark.parametrize("failures", [["before"] * 6, ["after"], ["before", "after", "after", "before"]])
def test_an_outage_is_waited_for_and_what_was_committed_before_it_is_stored_once(
    bench: Bench, failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "RETRY_SECONDS", 0.0)
    bench.sink.append_epoch(metrics(1))
    for epoch in (2, 3):
        bench.sink._store = Outage(bench.store, *failures)  # type: ignore[assignment]
        bench.sink.append_epoch(metrics(epoch))
    assert bench.epochs() == [1, 2, 3]
    bench.sink._store = Outage(bench.store, *failures)  # type: ignore[assignment]
    bench.sink.save("checkpoint", 3, bench.write("checkpoint.pt", b"whole"))
    with bench.store.reading() as session:
        (record,) = artifacts.list_for(session, bench.experiment_id)
    assert record.file(bench.settings.experiments_dir).read_bytes() == b"whole"
    assert {report.get("waiting") for report in bench.reports} - {None}, "the supervisor hears of it, and ends nothing"


def test_a_run_that_is_asked_to_end_does_not_wait_for_the_database(bench: Bench) -> None:
    sink = StoreSink(bench.store, bench.claim, bench.settings.experiments_dir, bench.reports.append, lambda: "shutdown")
    sink._store = Outage(bench.store, "before", "before")  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        sink.append_epoch(metrics(1))
