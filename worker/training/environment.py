"""The environment of a run, recorded to explain why results of two runs differ."""

import platform
import resource
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from models.cores import usable_cores
from models.environment import Environment
from worker.training.thread_control import ThreadControl
from worker.training.tuning import Tuning

PACKAGES = ("epochal", "torch", "torchvision", "numpy", "safetensors")


def describe_environment(
    tuning: Tuning, thread_control: ThreadControl, fingerprint: str, precision: str
) -> Environment:
    """Versions, device, threads, how the machine is used, the code's revision and the images' fingerprint."""
    device = tuning.device
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "device_type": device.type,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cores": usable_cores(),
        "threads": thread_control.threads,
        "thread_changes": thread_control.history.as_json(),
        "precision": precision,
        "tuning": tuning.as_json(),
        "git_revision": git_revision(Path(__file__).parent),
        "dataset_fingerprint": fingerprint,
    }


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process in MB: on the GPU, or its resident set with shared pages."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return peak_resident_mb()


def peak_resident_mb(who: int = resource.RUSAGE_SELF) -> float:
    """Peak resident set in MB of this process, or of the largest child that has ended (resource.RUSAGE_CHILDREN)."""
    peak = resource.getrusage(who).ru_maxrss  # bytes on macOS, kilobytes elsewhere
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def git_revision(folder: Path) -> str | None:
    """The commit that is checked out around a folder, read from the files that git keeps; None outside a checkout."""
    for parent in (folder, *folder.parents):
        if (parent / ".git").is_dir():
            return _head_commit(parent / ".git")
    return None


def _head_commit(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text().strip()
        packed = (line.split() for line in (git / "packed-refs").read_text().splitlines())
        return next((parts[0] for parts in packed if parts[1:] == [name]), None)
    except OSError:
        return None


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
