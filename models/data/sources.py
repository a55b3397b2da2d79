"""Sources that a dataset is fetched from: their interface, downloads, package managers."""

import errno
import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ReportBytes = Callable[[str, int, int | None], None]
"""progress(label, done_bytes, total_bytes): called a few times a second during a fetch; it may raise to stop it."""

CONNECT_SECONDS = 4.0
READ_SECONDS = 30.0
CHUNK_BYTES = 1 << 18


class SourceFailed(Exception):
    """A source could not deliver the dataset, so the next one is tried. The message is shown to users."""


@dataclass(frozen=True)
class Arrays:
    """The four arrays of a dataset: images uint8 (N, C, H, W), labels int64 (N,). A source fills them in place."""

    train_images: npt.NDArray[np.uint8]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.uint8]
    test_labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """One place to fetch a dataset from. `fetch(work, arrays, progress)` may fill the folder `work` with what it needs.

    `fetch` raises SourceFailed if it fails. The arrays may be partly filled then; they are discarded.
    """

    name: str
    fetch: Callable[[Path, Arrays, ReportBytes], None]


def download(url: str, target: Path, *, digest: tuple[str, str], progress: ReportBytes) -> None:
    """Download to a file and compare its digest: an algorithm and the hexadecimal digits it must begin with.

    A host that does not answer in CONNECT_SECONDS, or falls silent for READ_SECONDS, is a SourceFailed.
    """
    import httpx  # 0.1 s to import, and a lab whose data is there never needs it

    algorithm, expected = digest
    found = hashlib.new(algorithm, usedforsecurity=False)  # torchvision publishes MD5 for its datasets
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    try:
        with (
            httpx.stream("GET", url, timeout=timeout, follow_redirects=True) as response,
            target.open("wb") as file,
        ):
            response.raise_for_status()
            total = int(response.headers.get("content-length", 0)) or None
            for chunk in response.iter_bytes(CHUNK_BYTES):
                file.write(chunk)
                found.update(chunk)
                progress(f"downloading {target.name}", file.tell(), total)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceFailed(f"{url} could not be downloaded: {error or type(error).__name__}") from error
    if not found.hexdigest().startswith(expected):
        raise SourceFailed(f"{url} has {algorithm} {found.hexdigest()}, not {expected}")


def run_client(
    command: Sequence[str], *, work: Path, watch: Sequence[Path], label: str, total_bytes: int, progress: ReportBytes
) -> None:
    """Run a package manager's client in `work`; the growth of the paths in `watch` is reported as its progress."""
    log = work / "client.log"
    before = _size_of(watch)
    try:
        with log.open("wb") as output:
            # no stdin: a client must not wait for an answer that nobody will give
            client = subprocess.Popen(  # noqa: S603  (the commands are constants of this package)
                command, cwd=work, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
    except OSError as error:
        raise SourceFailed(f"{command[0]} could not be run: {error.strerror or error}") from error
    try:
        while True:
            try:
                client.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                progress(label, min(max(0, _size_of(watch) - before), total_bytes), total_bytes)
    finally:
        if client.poll() is None:
            client.kill()
            client.wait()
    if client.returncode != 0:
        text = log.read_text(errors="replace").strip()
        if "ENOSPC" in text or os.strerror(errno.ENOSPC) in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = text.splitlines()
        raise SourceFailed(f"`{' '.join(command[:3])}` ended with {client.returncode}: {' '.join(lines[-4:])[:400]}")


def _size_of(paths: Sequence[Path]) -> int:
    total = 0
    for path in paths:
        for found in [path] if path.is_file() else path.rglob("*"):
            try:
                total += os.stat(found).st_size if found.is_file() else 0
            except OSError:
                continue  # renamed between the listing and the look
    return total
