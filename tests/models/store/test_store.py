import multiprocessing
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models import urls
from models.errors import CorruptFile, NotFound, StorageFull, Unavailable
from models.settings import Settings
from models.store import Store, experiments, history, runs
from models.store import store as store_module
from models.store.listing import list_page
from models.store.sqlite import dbapi, is_safe
from tests.models.store.helpers import add_experiment, in_processes, make_metrics, sqlite_only, start


@contextmanager
def somebody_writing(settings: Settings) -> Iterator[Any]:
    """Another writer that holds the lock. The same SQLite library: two in one process do not see each other's locks."""
    connection = dbapi.connect(settings.data_dir / "epochal.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        connection.close()


def fill(folder: Path) -> Path:
    """A file that leaves two pages of the file system free."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - 8192))
    return ballast


MENDED = ("3.44.6", "3.50.7", "3.51.3", "3.53.4", "4.0.0")
BROKEN = ("3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.0", "3.51.2")


@pytest.mark.parametrize("version", [*MENDED, *BROKEN])
def test_sqlite_versions_with_the_wal_reset_bug_are_known(version: str) -> None:
    assert is_safe(version) is (version in MENDED)


@sqlite_only
def test_the_store_says_which_sqlite_it_uses(store: Store) -> None:
    assert store.sqlite_version is not None
    assert store.sqlite_safe is is_safe(store.sqlite_version)
    with store.reading() as session:
        assert session.execute(text("SELECT sqlite_version()")).scalar_one() == store.sqlite_version


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a file"):
        Settings(database_url="sqlite://")


def test_a_driver_that_cannot_be_loaded_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unavailable, match="psycopg") as caught:
        Store(Settings(database_url="postgresql://localhost/epochal"))
    assert caught.value.fix is not None


def test_an_error_rolls_everything_back(store: Store) -> None:
    experiment_id = add_experiment(store)
    with pytest.raises(NotFound), store.writing() as session:  # noqa: PT012
        experiments.request_cancel(session, experiment_id)
        experiments.get(session, 999)
    with store.reading() as session:
        assert experiments.get(session, experiment_id).status == "queued"


def test_a_reading_session_cannot_write(store: Store) -> None:
    with pytest.raises((DBAPIError, StorageFull)), store.reading() as session:
        session.execute(text("DELETE FROM experiments"))


def test_a_reader_sees_one_snapshot_while_others_write(store: Store) -> None:
    add_experiment(store)
    with store.reading() as session:
        assert experiments.queued_ids(session) == [1]
        add_experiment(store)
        assert experiments.queued_ids(session) == [1]
    with store.reading() as session:
        assert experiments.queued_ids(session) == [1, 2]


@sqlite_only
def test_while_the_database_is_locked_reads_go_on_and_a_write_waits(store: Store, settings: Settings) -> None:
    add_experiment(store)
    with somebody_writing(settings) as other, ThreadPoolExecutor(max_workers=30) as pool:
        waiting = [pool.submit(add_experiment, store) for _ in range(10)]
        with store.reading() as session:
            assert list_page(session).total == 1
        assert not any(future.done() for future in waiting)
        other.execute("COMMIT")
        assert sorted(future.result(60) for future in waiting) == list(range(2, 12))


@sqlite_only
def test_a_writing_session_has_the_lock_from_its_first_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    store = Store(settings)
    with somebody_writing(settings), pytest.raises(Unavailable, match="busy"), store.writing():
        pytest.fail("nobody may be here while another process writes")
    store.dispose()


@sqlite_only
def test_a_write_that_waited_too_long_is_unavailable(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    store = Store(settings)
    with somebody_writing(settings), pytest.raises(Unavailable, match="busy") as caught:
        add_experiment(store)
    assert caught.value.extra["retry_after_seconds"] > 0
    assert add_experiment(store) == 1
    store.dispose()


def test_a_write_behind_a_long_one_of_the_same_process_is_unavailable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    with store.writing() as session, ThreadPoolExecutor() as pool:
        experiments.queued_ids(session)
        with pytest.raises(Unavailable, match="busy"):
            pool.submit(add_experiment, store).result(60)


@sqlite_only
def test_the_busy_timeout_outlasts_a_lock_of_thirty_seconds(store: Store) -> None:
    with store.writing() as session:
        assert session.execute(text("PRAGMA busy_timeout")).scalar_one() >= 35_000
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == 2


def test_read_then_write_from_several_processes_loses_nothing(store: Store, settings: Settings) -> None:
    experiment_id = add_experiment(store)

    def work(store: Store, number: int) -> None:
        for _ in range(25):
            with store.writing() as session:
                experiment = experiments.get(session, experiment_id)
                experiment.failed_attempts = experiment.failed_attempts + 1

    in_processes(3, work, settings)
    with store.reading() as session:
        assert experiments.get(session, experiment_id).failed_attempts == 75


def test_threads_share_one_store(store: Store) -> None:
    experiment_id = add_experiment(store)

    def work(number: int) -> int:
        if number % 2:
            return add_experiment(store)
        with store.reading() as session:
            return experiments.get(session, experiment_id).id

    with ThreadPoolExecutor(max_workers=50) as pool:
        found = list(pool.map(work, range(100)))
    assert sorted(found) == [1] * 50 + list(range(2, 52))


def test_a_full_disk_is_storage_full_and_space_brings_it_back(small_disk: Path) -> None:
    store = Store(Settings(data_dir=small_disk))
    store.migrate()
    claim = start(store)
    with store.writing() as session:
        history.append_epoch(session, claim, make_metrics(1))
    ballast = fill(small_disk)
    with pytest.raises(StorageFull) as caught:  # noqa: PT012
        for _ in range(1000):
            add_experiment(store, name="x" * 200)
    assert caught.value.status == 507
    with store.reading() as session:
        stored = list_page(session).total
        assert [metrics.epoch for metrics in history.read(session, claim.experiment_id)] == [1]
    ballast.unlink()
    add_experiment(store)
    with store.writing() as session:
        history.append_epoch(session, claim, make_metrics(2))
        assert list_page(session).total == stored + 1
        assert session.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
    store.dispose()


def test_a_file_system_that_turned_read_only_is_storage_full(small_disk: Path) -> None:
    store = Store(Settings(data_dir=small_disk))
    store.migrate()
    add_experiment(store)
    store.dispose()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageFull):
        add_experiment(store)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert add_experiment(store) == 2
    store.dispose()


@sqlite_only
def test_a_store_from_before_a_fork_refuses_to_be_used(store: Store) -> None:
    add_experiment(store)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def child() -> None:
        try:
            add_experiment(store)
        except RuntimeError as error:
            answers.put(str(error))

    process = context.Process(target=child)
    process.start()
    assert "before a fork" in answers.get(timeout=60)
    process.join(60)
    assert add_experiment(store) == 2


def test_writing_inside_writing_is_refused_at_once(store: Store) -> None:
    with store.writing(), pytest.raises(RuntimeError, match="inside"), store.writing():
        pass
    with store.writing(), store.reading() as session:
        assert experiments.queued_ids(session) == []


@sqlite_only
def test_a_damaged_database_is_named_as_such(settings: Settings) -> None:
    (settings.data_dir / "epochal.db").write_bytes(b"<html>" * 2000)
    store = Store(settings)
    with pytest.raises(CorruptFile, match="damaged"), store.reading() as session:
        experiments.queued_ids(session)
    store.dispose()


@sqlite_only
def test_a_backup_made_while_others_write_is_consistent(store: Store, settings: Settings, tmp_path: Path) -> None:
    claim = start(store)
    stop, appended = threading.Event(), threading.Event()

    def train() -> None:
        epoch = 0
        while not stop.is_set():
            epoch += 1
            with store.writing() as session:
                history.append_epoch(session, claim, make_metrics(epoch, val_loss=1 / epoch))
                runs.renew(session, claim, {"epoch": epoch})
            if epoch == 5:
                appended.set()

    with ThreadPoolExecutor() as pool:
        training = pool.submit(train)
        try:
            assert appended.wait(60)
            store.backup(tmp_path / "copy" / "epochal.db")
        finally:
            stop.set()
        training.result(60)
    copy = Store(Settings(data_dir=tmp_path / "copy"))
    copy.migrate()
    with copy.reading() as session:
        epochs = [metrics.epoch for metrics in history.read(session, claim.experiment_id)]
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) >= 5
        best = experiments.summaries(session, [claim.experiment_id])[claim.experiment_id]["best"]["val_loss"]
        assert best["epoch"] == len(epochs)
        assert experiments.get(session, claim.experiment_id).progress == {"epoch": len(epochs)}
    copy.dispose()
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["epochal.db"]


@sqlite_only
def test_a_backup_onto_a_full_disk_leaves_nothing_behind(store: Store, small_disk: Path) -> None:
    for _ in range(3):
        add_experiment(store)
    fill(small_disk)
    with pytest.raises(StorageFull):
        store.backup(small_disk / "epochal.db")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
