"""Training processes on one machine know of each other, and each takes its share of the cores."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_until
from worker.training import neighbours as module
from worker.training.neighbours import FILE, Neighbour, Neighbours

pytestmark = pytest.mark.skipif(not module._CAN_LOCK, reason="these locks are Linux's")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def threads(found: list[Neighbour]) -> list[int]:
    return sorted(other.threads for other in found)


def test_each_knows_the_others_and_not_itself(shared: Path) -> None:
    one, two, three = (Neighbours(shared=[shared]) for _ in range(3))
    one.train_with(2)
    assert (threads(one.others()), threads(two.others())) == ([], [2])
    two.train_with(1)
    three.train_with(4)
    assert [threads(each.others()) for each in (one, two, three)] == [[1, 4], [2, 4], [1, 2]]
    three.train_with(3)
    assert threads(one.others()) == [1, 3]
    three.train_with(5)
    assert threads(one.others()) == [1, 5]
    for each in (two, three):
        each.close()
    assert one.others() == []
    one.close()


def test_many_are_all_counted(shared: Path) -> None:
    crowd = [Neighbours(shared=[shared]) for _ in range(40)]
    for number, each in enumerate(crowd, 1):
        each.train_with(number)
    with Neighbours(shared=[shared]) as last:
        assert threads(last.others()) == list(range(1, 41))
    for each in crowd:
        each.close()


TRAINING = """
import sys, time
from pathlib import Path
from worker.training.neighbours import Neighbours
here = Neighbours(shared=[Path(sys.argv[1])])
here.train_with(3)
print("ready", flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed_is_no_neighbour_any_more(shared: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(shared)], stdout=subprocess.PIPE, text=True)
    with process, Neighbours(shared=[shared]) as here:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert threads(here.others()) == [3]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: here.others() == [], 10, "the lock to go")


def test_who_shares_two_folders_is_counted_once(shared: Path, tmp_path: Path) -> None:
    one, two = Neighbours([tmp_path], shared=[shared]), Neighbours([tmp_path], shared=[shared])
    elsewhere = Neighbours([tmp_path], shared=[tmp_path / "another container"])
    one.train_with(1)
    two.train_with(2)
    elsewhere.train_with(3)
    assert threads(one.others()) == [2, 3]
    assert threads(elsewhere.others()) == [1, 2]
    for each in (one, two, elsewhere):
        each.close()


def test_the_first_folder_that_can_be_used_is_the_shared_one(shared: Path) -> None:
    with Neighbours(shared=[shared / "missing", shared]) as one, Neighbours(shared=[shared]) as two:
        one.train_with(1)
        assert threads(two.others()) == [1]


def test_without_a_place_nobody_is_known_and_nothing_fails(tmp_path: Path) -> None:
    with Neighbours([tmp_path / "missing"], shared=[tmp_path / "missing", Path("/proc")]) as alone:
        alone.train_with(2)
        assert alone.others() == []
        assert alone.fair_share(1) == 1


def test_a_link_in_the_shared_folder_is_not_followed(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (shared / FILE).symlink_to(target)
    dangling = tmp_path / "dangling"
    dangling.mkdir()
    (dangling / FILE).symlink_to(tmp_path / "not made")
    with Neighbours(shared=[shared, dangling]) as here:
        here.train_with(1)
        assert here.others() == []
    assert target.read_text() == "kept"
    assert not (tmp_path / "not made").exists()


def test_others_may_use_the_file_whatever_the_makers_umask(shared: Path) -> None:
    before = os.umask(0o077)
    try:
        Neighbours(shared=[shared]).close()
    finally:
        os.umask(before)
    assert (shared / FILE).stat().st_mode & 0o777 == 0o644


def test_a_file_that_may_only_be_read_is_enough(shared: Path) -> None:
    """It is another user's as a rule."""
    Neighbours(shared=[shared]).close()
    (shared / FILE).chmod(0o444)
    shared.chmod(0o555)
    with Neighbours(shared=[shared]) as one, Neighbours(shared=[shared]) as two:
        one.train_with(2)
        assert threads(two.others()) == [2]
    shared.chmod(0o755)


@pytest.mark.parametrize(
    ("cores", "others", "limit", "expected"),
    [
        (2, [], 2, 2),
        (2, [], 1, 1),
        (2, [1], 2, 1),
        (2, [2], 2, 1),
        (2, [1, 1, 1], 2, 1),
        (4, [4], 4, 2),
        (4, [1], 4, 3),
        (4, [1, 1], 4, 2),
        (4, [2, 2], 4, 1),
        (8, [1, 1], 4, 4),
        (3, [3], 3, 1),
        (3, [1], 3, 2),
    ],
)
def test_a_share_is_what_is_free_or_an_equal_part(
    shared: Path, monkeypatch: pytest.MonkeyPatch, cores: int, others: list[int], limit: int, expected: int
) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    monkeypatch.setattr(module, "machine_cores", lambda: cores)
    crowd = [Neighbours(shared=[shared]) for _ in others]
    for each, count in zip(crowd, others, strict=True):
        each.train_with(count)
    with Neighbours(shared=[shared]) as here:
        assert here.fair_share(limit) == expected
    for each in crowd:
        each.close()


def test_a_container_with_cores_of_its_own_takes_none_of_ours(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "machine_cores", lambda: 8)
    monkeypatch.setattr(module, "_group", lambda: 1)
    container = Neighbours(shared=[shared])
    monkeypatch.setattr(module, "_group", lambda: 2)
    with container, Neighbours(shared=[shared]) as here:
        container.train_with(2)
        assert here.fair_share(2) == 2
        container.train_with(7)
        assert here.fair_share(2) == 2, "half of 8 cores is more than it may use"
        monkeypatch.setattr(module, "machine_cores", lambda: 3)
        assert here.fair_share(2) == 1
