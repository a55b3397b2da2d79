"""Downloads and clients: checked, with a deadline, and with a reason when they fail."""

import errno
import gzip
import hashlib
import io
import json
import pickle
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.data import cifar10, fashion_mnist
from models.data.idx import read_idx
from models.data.sources import Arrays, SourceFailed, download, run_client
from tests.models.data.tiny import quiet


def make_arrays(num_train: int, num_test: int, channels: int, size: int) -> Arrays:
    return Arrays(
        np.zeros((num_train, channels, size, size), np.uint8),
        np.zeros(num_train, np.int64),
        np.zeros((num_test, channels, size, size), np.uint8),
        np.zeros(num_test, np.int64),
    )


def test_a_download_reports_its_progress_and_is_checked(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    content = bytes(range(256)) * 4000
    (folder / "file.bin").write_bytes(content)
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "file.bin"
    digest = hashlib.sha256(content).hexdigest()[:8]
    download(
        f"{url}/file.bin",
        target,
        digest=("sha256", digest),
        progress=lambda label, done, total: seen.append((done, total)),
    )
    assert target.read_bytes() == content
    assert seen[-1] == (len(content), len(content))


def test_a_download_with_another_digest_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = server
    (folder / "file.bin").write_bytes(b"something else")
    with pytest.raises(SourceFailed, match="has md5"):
        download(f"{url}/file.bin", tmp_path / "file.bin", digest=("md5", "0" * 32), progress=quiet)


def test_a_missing_file_and_a_dead_host_are_told(server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = server
    with pytest.raises(SourceFailed, match="404"):
        download(f"{url}/nothing", tmp_path / "x", digest=("md5", ""), progress=quiet)
    with pytest.raises(SourceFailed, match="could not be downloaded"):
        download("http://127.0.0.1:9/nothing", tmp_path / "x", digest=("md5", ""), progress=quiet)


def test_torchvisions_archive_is_downloaded_checked_and_read(server: tuple[str, Path], tmp_path: Path) -> None:
    from models.torchvision_compat import torchvision

    address, folder = server
    rng = np.random.default_rng(0)
    names = ["data_batch_1", "data_batch_2", "test_batch"]
    images = {name: rng.integers(0, 256, (4, 3, 32, 32), dtype=np.uint8) for name in names}
    entries = {name: pickle.dumps({"data": images[name].reshape(4, -1), "labels": [3, 1, 4, 1]}) for name in names} | {
        "batches.meta": pickle.dumps({"label_names": ["a", "b"]})
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (folder / "small.tar.gz").write_bytes(archive.getvalue())

    def md5(content: bytes) -> str:
        return hashlib.md5(content).hexdigest()

    class Small(torchvision.datasets.CIFAR10):  # type: ignore[misc]
        url = f"{address}/small.tar.gz"
        filename = "small.tar.gz"
        tgz_md5 = md5(archive.getvalue())
        train_list = [[name, md5(entries[name])] for name in names[:2]]
        test_list = [["test_batch", md5(entries["test_batch"])]]
        meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(entries["batches.meta"])}

    arrays = make_arrays(8, 4, 3, 32)
    cifar10.fetch_from_torchvision(tmp_path, arrays, quiet, Small)
    assert np.array_equal(arrays.train_images, np.concatenate([images[name] for name in names[:2]]))
    assert np.array_equal(arrays.test_images, images["test_batch"])
    assert arrays.train_labels.tolist() == [3, 1, 4, 1] * 2


def test_the_npm_archive_is_read_row_by_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 32, 32, 3), dtype=np.uint8)  # five files of training images, then the test's
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for number, batch in enumerate(images, start=1):
            buffer = io.BytesIO()
            Image.fromarray(batch.reshape(4, 1024, 3)).save(buffer, "PNG")
            add(f"data_batch_{number}.png" if number <= 5 else "test_batch.png", buffer.getvalue())
        add("train_lables.json", json.dumps([n % 10 for n in range(20)]).encode())
        add("test_lables.json", json.dumps([9, 8, 7, 6]).encode())
        add("index.js", b"not data")
    arrays = make_arrays(20, 4, 3, 32)
    cifar10.read_npm_archive(path, arrays, quiet)
    assert np.array_equal(arrays.train_images, images[:5].reshape(20, 32, 32, 3).transpose(0, 3, 1, 2))
    assert np.array_equal(arrays.test_images, images[5].transpose(0, 3, 1, 2))
    assert arrays.train_labels.tolist() == [n % 10 for n in range(20)]
    assert arrays.test_labels.tolist() == [9, 8, 7, 6]


def write_idx(path: Path, values: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


def test_fashion_mnists_files_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for field, (name, _) in fashion_mnist.FILES.items():
        write_idx(tmp_path / name, images if "images" in field else np.arange(5, dtype=np.uint8))
    arrays = make_arrays(5, 5, 1, 28)
    fashion_mnist.read_files(tmp_path, arrays)
    assert np.array_equal(arrays.test_images[:, 0], images)
    assert arrays.train_labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"\0\0\x0d\1"), gzip.compress(b"\0\0\x08\3\0")],
    ids=["empty", "not gzip", "another type", "cut off"],  # what is compressed holds the time
)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.gz").write_bytes(content)
    with pytest.raises(SourceFailed):
        read_idx(tmp_path / "file.gz")


def test_a_client_that_fails_or_is_not_there_is_told_with_its_last_words(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        run_client(command, work=tmp_path, watch=[tmp_path], label="x", total_bytes=1, progress=quiet)

    run(sys.executable, "-c", "pass")
    with pytest.raises(SourceFailed, match="ended with 3: no such package"):
        run(sys.executable, "-c", "print('no such package'); raise SystemExit(3)")
    with pytest.raises(SourceFailed, match="could not be run"):
        run("a-client-that-nobody-has")
    with pytest.raises(OSError, match="No space left") as caught:
        run(sys.executable, "-c", "print('npm error code ENOSPC'); raise SystemExit(1)")
    assert caught.value.errno == errno.ENOSPC


def test_a_client_is_ended_when_the_fetch_is_stopped(tmp_path: Path) -> None:
    def stop(label: str, done_bytes: int, total_bytes: int | None) -> None:
        raise KeyboardInterrupt

    script = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_client([sys.executable, "-c", script], work=tmp_path, watch=[], label="x", total_bytes=1, progress=stop)
