"""A dataset is fetched once, whole or not at all, whatever fails, whoever is killed."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.data.contents import fingerprint
from models.data.fetching import Recipe, dataset_folder, ensure_dataset, is_whole, read_note
from models.data.sources import Arrays, ReportBytes, SourceFailed
from models.errors import DataUnavailable, StorageFull
from tests.models.data.tiny import IMAGES, INFO, fill, quiet, recipe
from tests.processes import wait_until


def fetch(cache_dir: Path, wanted: Recipe) -> Path:
    return ensure_dataset(wanted, cache_dir, quiet)


def refuse(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
    raise SourceFailed("the host does not answer")


def files_in(cache_dir: Path) -> list[str]:
    return sorted(path.name for path in (cache_dir / "datasets").iterdir())


def test_it_is_fetched_once_and_then_found(tmp_path: Path) -> None:
    calls = []

    def counting(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        calls.append(1)
        fill(work, arrays, progress)

    folders = [fetch(tmp_path, recipe(counting)) for _ in range(3)]
    assert len(calls) == 1
    assert len(set(folders)) == 1
    assert np.array_equal(np.load(folders[0] / "train_images.npy"), IMAGES)
    assert files_in(tmp_path) == ["tiny-1", "tiny.lock"]


def test_the_next_source_is_asked_when_one_fails_and_its_half_done_work_is_thrown_away(tmp_path: Path) -> None:
    def half(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        arrays.train_images[:] = 255
        raise SourceFailed("the connection was lost")

    folder = fetch(tmp_path, recipe(half, fill))
    assert read_note(folder)["source"] == "source 2"
    assert np.array_equal(np.load(folder / "train_images.npy"), IMAGES)


def test_when_all_sources_fail_the_error_names_each_and_what_came_of_it(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable) as caught:
        fetch(tmp_path, recipe(refuse, refuse))
    assert "source 1: the host does not answer" in caught.value.detail
    assert "source 2: the host does not answer" in caught.value.detail
    assert caught.value.fix is not None
    assert files_in(tmp_path) == ["tiny.lock"]


@pytest.mark.parametrize("wrong", ["images", "labels", "order"])
def test_what_is_not_the_dataset_is_refused(tmp_path: Path, wrong: str) -> None:
    def corrupt(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        fill(work, arrays, progress)
        if wrong == "images":
            arrays.train_images[0] = 0
        elif wrong == "labels":
            arrays.test_labels[:] = 0
        else:
            arrays.train_labels[:3] = (1, 0, 1)

    with pytest.raises(DataUnavailable):
        fetch(tmp_path, recipe(corrupt))
    assert not is_whole(dataset_folder(INFO, tmp_path))


def test_an_interrupted_fetch_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def interrupted(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        arrays.train_images[:10] = IMAGES[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, recipe(interrupted))
    assert files_in(tmp_path) == ["tiny.lock"]
    assert is_whole(fetch(tmp_path, recipe(fill)))


def test_a_progress_callback_can_stop_it(tmp_path: Path) -> None:
    def stop(label: str, done_bytes: int, total_bytes: int | None) -> None:
        raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        ensure_dataset(recipe(fill), tmp_path, stop)
    assert files_in(tmp_path) == ["tiny.lock"]


def test_a_file_that_was_cut_short_later_is_fetched_again(tmp_path: Path) -> None:
    folder = fetch(tmp_path, recipe(fill))
    os.truncate(folder / "train_images.npy", 1000)
    assert not is_whole(folder)
    assert np.array_equal(np.load(fetch(tmp_path, recipe(fill)) / "train_images.npy"), IMAGES)
    assert files_in(tmp_path) == ["tiny-1", "tiny.lock"]


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    def full(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(StorageFull, match="No space left"):
        fetch(tmp_path, recipe(full))
    assert files_in(tmp_path) == ["tiny.lock"]


def test_other_failures_of_the_system_are_not_hidden(tmp_path: Path) -> None:
    def broken(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        raise OSError(errno.ENODEV, "no such device")

    with pytest.raises(OSError, match="no such device"):
        fetch(tmp_path, recipe(broken))


FETCHING_PROCESS = """
import os, sys, time
from pathlib import Path
from models.data.fetching import ensure_dataset
from tests.models.data.tiny import fill, recipe

cache_dir, log, others = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
waiting = log.with_name("waiting")

def note(path):
    with path.open("a") as file:
        file.write(f"{os.getpid()}\\n")

def fetch_when_others_wait(work, arrays, progress):
    arrays.train_images[:10] = 7
    note(log)
    while others and not (waiting.exists() and len(set(waiting.read_text().split())) >= others):
        time.sleep(0.01)
    fill(work, arrays, progress)

def progress(label, done, total):
    if label.startswith("waiting"):
        note(waiting)

ensure_dataset(recipe(fetch_when_others_wait), cache_dir, progress)
"""


def start_fetching(cache_dir: Path, log: Path, *, others: int) -> subprocess.Popen[bytes]:
    """A process that fetches once so many others wait for it."""
    return subprocess.Popen([sys.executable, "-c", FETCHING_PROCESS, str(cache_dir), str(log), str(others)])


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: path.exists() or process.poll() is not None, what="the process to fetch")
    assert path.exists(), "the process ended before it fetched"


def test_processes_that_want_it_at_once_fetch_it_once(tmp_path: Path) -> None:
    processes = [start_fetching(tmp_path / "cache", tmp_path / "log", others=2) for _ in range(3)]
    assert [process.wait(timeout=90) for process in processes] == [0, 0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert is_whole(dataset_folder(INFO, tmp_path / "cache"))


def test_a_killed_fetch_is_never_taken_for_data_and_its_leavings_are_cleared(tmp_path: Path) -> None:
    cache_dir, log = tmp_path / "cache", tmp_path / "log"
    process = start_fetching(cache_dir, log, others=1)
    wait_for(log, process)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not is_whole(dataset_folder(INFO, cache_dir))
    assert any("fetching" in name for name in files_in(cache_dir))
    fetch(cache_dir, recipe(fill))
    assert files_in(cache_dir) == ["tiny-1", "tiny.lock"]


def test_the_fingerprint_is_of_the_content_whatever_the_source(tmp_path: Path) -> None:
    def slowly(work: Path, arrays: Arrays, progress: ReportBytes) -> None:
        for place in reversed(range(len(arrays.train_images))):
            arrays.train_images[place] = IMAGES[place]
        fill(work, arrays, progress)

    first = read_note(fetch(tmp_path / "a", recipe(fill)))["fingerprint"]
    second = read_note(fetch(tmp_path / "b", recipe(refuse, slowly)))["fingerprint"]
    assert first == second
    changed = Arrays(IMAGES.copy(), np.zeros(40, np.int64), IMAGES[:8], np.zeros(8, np.int64))
    assert fingerprint(changed) != first
