"""Files of a lab are open to its user alone, whatever the umask; those that others could open are closed to them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.private import close_to_others, open_privately, private


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_made_in_private_is_this_users_alone(tmp_path: Path) -> None:
    with private():
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
    (tmp_path / "after").touch()
    assert [mode(tmp_path / name) for name in ("folder", "file", "after")] == [0o700, 0o600, 0o666]
    with open_privately(tmp_path / "log") as log:
        log.write(b"x")
    assert mode(tmp_path / "log") == 0o600


def test_a_data_directory_that_is_not_there_is_made_closed(tmp_path: Path) -> None:
    assert close_to_others(tmp_path / "deep" / "lab") is None
    assert mode(tmp_path / "deep" / "lab") == 0o700


def test_a_labs_directory_that_was_open_is_closed_with_all_in_it(tmp_path: Path) -> None:
    lab, outside = tmp_path / "lab", tmp_path / "outside"
    (lab / "experiments/1/attempt-1").mkdir(parents=True)
    (lab / "logs").mkdir()
    outside.touch()
    files = ["epochal.db", "epochal.db-wal", "lab.lock", "logs/api.log", "experiments/1/attempt-1/weights"]
    for name in files:
        (lab / name).touch()
    (lab / "experiments/1/link").symlink_to(outside)
    assert "was open to other users (0777)" in str(close_to_others(lab))
    assert {mode(lab / name) for name in files} == {0o600}
    assert {mode(folder) for folder in (lab, lab / "logs", lab / "experiments/1/attempt-1")} == {0o700}
    assert mode(outside) == 0o666
    assert close_to_others(lab) is None


def test_a_directory_that_holds_other_files_stays_open_and_this_is_said(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("epochal.db", "letter.txt"):
        (home / name).touch()
    assert "holds other files" in str(close_to_others(home))
    assert [mode(home), mode(home / "epochal.db"), mode(home / "letter.txt")] == [0o777, 0o600, 0o666]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_directory_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert "belongs to another user" in str(close_to_others(folder))
    assert mode(folder) == 0o777
