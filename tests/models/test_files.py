import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from models.errors import CorruptFile, StorageFull
from models.files import inside, placing, remove_leftovers, sha256_of, storage_errors, verify, write, write_once


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_its_folder_with_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    with placing(path) as temporary:
        temporary.write_bytes(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["file.bin"]


def test_until_the_end_readers_see_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with placing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="boom"), placing(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise RuntimeError("boom")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_file_has_the_permissions_asked_for_and_replaces_a_link_instead_of_following_it(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "secret"
    other.write_bytes(b"somebody's")
    path.symlink_to(other)
    write(path, b"secret", mode=0o600)
    assert (path.read_bytes(), stat.S_IMODE(path.lstat().st_mode)) == (b"secret", 0o600)
    assert other.read_bytes() == b"somebody's"


def test_a_name_as_long_as_file_systems_allow_is_written(tmp_path: Path) -> None:
    write(tmp_path / ("n" * 255), b"content")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"content"]


def test_of_several_that_make_a_file_once_the_first_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: write_once(path, b"%d" % number, mode=0o600), range(16)))
    assert sum(made) == 1
    assert path.read_bytes() == b"%d" % made.index(True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path.parent) == ["secret"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_an_error_of_the_disk_is_storage_full_with_its_reason_and_what_to_do(number: int) -> None:
    with pytest.raises(StorageFull) as caught, storage_errors("weights.pt cannot be written", fix="buy a disk"):
        raise OSError(number, os.strerror(number))
    assert caught.value.detail == f"weights.pt cannot be written: {os.strerror(number)}"
    assert caught.value.fix == "buy a disk"


def test_a_folder_that_is_a_file_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StorageFull, match=r"set\.bin cannot be written: Not a directory"):
        write(tmp_path / "cache" / "datasets" / "set.bin", b"")


def test_an_error_of_something_else_stays_what_it_is() -> None:
    with pytest.raises(FileNotFoundError), storage_errors("weights.pt cannot be written"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def test_on_a_full_disk_the_old_file_stays_whole_and_space_brings_it_back(small_disk: Path) -> None:
    path = small_disk / "checkpoint"
    write(path, b"first")
    for size in (8 << 20, 5 << 20):
        with pytest.raises(StorageFull, match="No space left") as caught:
            write(path, bytes(size))
        assert caught.value.status == 507
        assert path.read_bytes() == b"first"
        assert names(small_disk) == ["checkpoint"]
    assert shutil.disk_usage(small_disk).free > 3 << 20
    write(path, b"second")
    assert path.read_bytes() == b"second"


def test_a_read_only_file_system_is_storage_full(small_disk: Path) -> None:
    path = small_disk / "1" / "weights"
    write(path, b"good")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for target in (path, small_disk / "2" / "weights"):
        with pytest.raises(StorageFull, match="Read-only file system"):
            write(target, b"x")
    assert path.read_bytes() == b"good"


def _write_until_killed(path: Path, started: Event) -> None:
    with placing(path) as temporary:
        temporary.write_bytes(b"half of it")
        started.set()
        signal.pause()


def test_a_writer_that_is_killed_leaves_the_old_file_and_a_leftover_that_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "attempt-1" / "checkpoint"
    write(path, b"good")
    context = multiprocessing.get_context("fork")
    started = context.Event()
    process = context.Process(target=_write_until_killed, args=(path, started))
    process.start()
    assert started.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert path.read_bytes() == b"good"
    assert len(names(path.parent)) == 2
    assert remove_leftovers(tmp_path) == 1
    assert names(path.parent) == ["checkpoint"]


@pytest.mark.parametrize("content", [b"", b"abc", bytes(3_000_000)])
def test_a_digest_is_that_of_the_contents(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert sha256_of(path) == digest
    verify(path, digest)


def test_one_flipped_bit_a_lost_tail_or_no_file_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytes(range(256)) * 100
    path.write_bytes(content)
    digest = sha256_of(path)
    flipped = bytearray(content)
    flipped[5000] ^= 1
    for damaged in (bytes(flipped), content[:-1], b""):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFile, match="digest"):
            verify(path, digest)
    path.unlink()
    with pytest.raises(CorruptFile, match="cannot be read"):
        verify(path, digest)


@settings(max_examples=300)
@given(name=strategies.text(alphabet="a1./\\\0\n~-\u202e:", max_size=12) | strategies.text(max_size=40))
def test_a_stored_path_is_inside_or_refused(name: str) -> None:
    folder = Path("/lab/experiments")
    try:
        path = inside(folder, name)
    except CorruptFile:
        return
    assert path != folder
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(folder)
