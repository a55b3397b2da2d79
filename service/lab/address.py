"""Where the lab of a data directory is reached: one small file, written once it answers and removed when it stops."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.files import write

ADDRESS_FILE = "lab.json"
LOCK_FILE = "lab.lock"


def write_address(data_dir: Path, url: str) -> None:
    """Say that this process runs the lab of `data_dir`, and where it answers."""
    write(data_dir / ADDRESS_FILE, json.dumps({"url": url, "pid": os.getpid()}).encode())


def remove_address(data_dir: Path) -> None:
    """Say no more."""
    (data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def running_lab(data_dir: Path) -> dict[str, Any] | None:
    """{"url", "pid"} of the lab that says it uses `data_dir`, if that process lives."""
    try:
        found: dict[str, Any] = json.loads((data_dir / ADDRESS_FILE).read_text(encoding="utf-8"))
        url, pid = str(found["url"]), int(found["pid"])
        if pid <= 0:
            return None
        os.kill(pid, 0)
    except PermissionError:  # it lives, and is someone else's
        pass
    except (OSError, OverflowError, ValueError, KeyError, TypeError):
        return None
    return {"url": url, "pid": pid}


@contextmanager
def announced(data_dir: Path, url: str) -> Iterator[None]:
    """The address of an API that was started by itself, without `epochal up`, while it runs."""
    if _locked(data_dir):
        yield  # it is part of a lab, which has the address written
        return
    write_address(data_dir, url)
    try:
        yield
    finally:
        if (found := running_lab(data_dir)) and found["pid"] == os.getpid():
            remove_address(data_dir)


def reachable_url(host: str, port: int) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (compared, not bound)
    return f"http://{f'[{reached}]' if ':' in reached else reached}:{port}"


def _locked(data_dir: Path) -> bool:
    """Whether a lab holds the data directory."""
    with (data_dir / LOCK_FILE).open("a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
