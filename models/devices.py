"""Which devices this machine has for training, asked of PyTorch in a process of its own."""

import subprocess
import sys

from models.errors import InvalidSettings

COUNT_SECONDS = 120.0
COUNT_GPUS = """
import torch
print(torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.version.cuda or "none")
"""


def check_device(name: str) -> None:
    """Raise InvalidSettings where `cuda` or `cuda:N` is not a device of this machine; auto and cpu always are.

    PyTorch is called in a separate process: importing it takes seconds, and opening CUDA forbids a later fork.
    """
    if not name.startswith("cuda"):
        return
    asked = _ask_pytorch()
    if asked is None:
        raise InvalidSettings(f"EPOCHAL_DEVICE is {name!r}, and PyTorch does not say which GPUs it can use")
    count, build = asked
    if int(name.partition(":")[2] or 0) < count:
        return
    if build == "none":
        found = "this PyTorch was built without CUDA"
    elif count == 0:
        found = "PyTorch finds no GPU here"
    else:
        found = f"there are {count}, cuda:0 to cuda:{count - 1}" if count > 1 else "there is one, cuda:0"
    raise InvalidSettings(f"EPOCHAL_DEVICE is {name!r} and must be a device of this machine: {found}; cpu and auto do")


def trains_on_cpu(name: str) -> bool:
    """Whether a worker with this EPOCHAL_DEVICE trains on the CPU: it is asked to, or `auto` finds no GPU."""
    if name != "auto":
        return name == "cpu"
    asked = _ask_pytorch()
    return asked is None or asked[0] == 0


def _ask_pytorch() -> tuple[int, str] | None:
    """The number of GPUs that PyTorch can use, and the CUDA version it was built for; None without an answer."""
    command = [sys.executable, "-P", "-c", COUNT_GPUS]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=COUNT_SECONDS, check=False)  # noqa: S603
        count, build = asked.stdout.split()[-2:]
        return int(count), build
    except (subprocess.TimeoutExpired, ValueError):
        return None
