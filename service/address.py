"""Where the lab of a data directory is reached: one small file, written once it answers and removed when it stops."""

import json
import os
from pathlib import Path
from typing import Any

ADDRESS_FILE = "lab.json"


def write_address(data_dir: Path, url: str) -> None:
    """Say that this process runs the lab of `data_dir`, and where it answers."""
    (data_dir / ADDRESS_FILE).write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")


def remove_address(data_dir: Path) -> None:
    """Say no more."""
    (data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def running_lab(data_dir: Path) -> dict[str, Any] | None:
    """{"url", "pid"} of the lab that says it uses `data_dir`, if that process lives."""
    try:
        found: dict[str, Any] = json.loads((data_dir / ADDRESS_FILE).read_text(encoding="utf-8"))
        os.kill(found["pid"], 0)
    except PermissionError:  # it lives, and is someone else's
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found
