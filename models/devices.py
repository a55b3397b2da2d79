"""Early check that the configured training device exists."""

import subprocess
import sys

from models.errors import InvalidSettings

COUNT_SECONDS = 120.0
COUNT_GPUS = """
import torch
print(torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.version.cuda or "none")
"""


def check_device(name: str) -> None:
    """Raise InvalidSettings where `cuda` or `cuda:N` is no device of this machine; auto and cpu always are.

    PyTorch is called in a separate process: importing it takes seconds, and opening CUDA forbids a later fork.
    """
    if not name.startswith("cuda"):
        return
    command = [sys.executable, "-P", "-c", COUNT_GPUS]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=COUNT_SECONDS, check=False)  # noqa: S603
        count, build = asked.stdout.split()[-2:]
    except (subprocess.TimeoutExpired, ValueError):
        raise InvalidSettings(f"EPOCHAL_DEVICE is {name!r}, and PyTorch does not say which GPUs it can use") from None
    if int(name.partition(":")[2] or 0) < int(count):
        return
    if build == "none":
        found = "this PyTorch was built without CUDA"
    elif count == "0":
        found = "PyTorch finds no GPU here"
    else:
        found = f"there are {count}, cuda:0 to cuda:{int(count) - 1}" if int(count) > 1 else "there is one, cuda:0"
    raise InvalidSettings(f"EPOCHAL_DEVICE is {name!r} and must be a device of this machine: {found}; cpu and auto do")
