import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies

from models.errors import CorruptFile, StorageFull
from models.files import atomic_write, inside, placing, remove_leftovers, sha256_of, verify


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_its_folder_with_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["file.bin"]


def test_until_the_end_readers_see_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="boom"), atomic_write(path) as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError("boom")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_writer_that_wants_a_path_gets_one(tmp_path: Path) -> None:
    with placing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"content")
    assert names(tmp_path) == ["file"]


def test_on_a_full_disk_the_old_file_stays_whole_and_space_brings_it_back(small_disk: Path) -> None:
    path = small_disk / "checkpoint"
    with atomic_write(path) as file:
        file.write(b"first")
    for size in (8 << 20, 5 << 20):
        with pytest.raises(StorageFull, match="No space left") as caught, atomic_write(path) as file:
            file.write(bytes(size))
        assert caught.value.status == 507
        assert path.read_bytes() == b"first"
        assert names(small_disk) == ["checkpoint"]
    assert shutil.disk_usage(small_disk).free > 3 << 20
    with atomic_write(path) as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"


def test_a_read_only_file_system_is_storage_full(small_disk: Path) -> None:
    path = small_disk / "1" / "weights"
    with atomic_write(path) as file:
        file.write(b"good")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for target in (path, small_disk / "2" / "weights"):
        with pytest.raises(StorageFull, match="Read-only file system"), atomic_write(target) as file:
            file.write(b"x")
    assert path.read_bytes() == b"good"


def _write_until_killed(path: Path, started: Event) -> None:
    with atomic_write(path) as file:
        file.write(b"half of it")
        file.flush()
        started.set()
        signal.pause()


def test_a_writer_that_is_killed_leaves_the_old_file_and_a_leftover_that_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "attempt-1" / "checkpoint"
    with atomic_write(path) as file:
        file.write(b"good")
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
