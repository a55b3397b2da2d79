"""The running lab's address, in a small file in the data directory that exists while the lab runs."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from models.files import write

ADDRESS_FILE = "lab.json"
LOCK_FILE = "lab.lock"


class LabAddress(TypedDict):
    """The address and the process of the running lab of a data directory."""

    url: str
    pid: int


def write_address(data_dir: Path, url: str) -> None:
    """Write the file: this process runs the lab of `data_dir` at `url`."""
    write(data_dir / ADDRESS_FILE, json.dumps({"url": url, "pid": os.getpid()}).encode())


def remove_address(data_dir: Path) -> None:
    """Remove the file."""
    (data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def running_lab(data_dir: Path) -> LabAddress | None:
    """Read the address of the lab that uses `data_dir`; None if there is none or its process has ended."""
    try:
        found: LabAddress = json.loads((data_dir / ADDRESS_FILE).read_text(encoding="utf-8"))
        url, pid = str(found["url"]), int(found["pid"])
        if pid <= 0:
            return None
        os.kill(pid, 0)
    except PermissionError:  # the process exists, of another user
        pass
    except (OSError, OverflowError, ValueError, KeyError, TypeError):
        return None
    return {"url": url, "pid": pid}


@contextmanager
def announced(data_dir: Path, url: str) -> Iterator[None]:
    """Context manager: write the address of an API that was started without `epochal up`, while it runs."""
    if _locked(data_dir):
        yield  # part of a lab, which writes the address itself
        return
    write_address(data_dir, url)
    try:
        yield
    finally:
        if (found := running_lab(data_dir)) and found["pid"] == os.getpid():
            remove_address(data_dir)


def reachable_url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens on `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"


def _locked(data_dir: Path) -> bool:
    """Whether a running lab has locked the data directory."""
    with (data_dir / LOCK_FILE).open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
