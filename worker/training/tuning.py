"""The one place that decides how the machine is used, from the device and the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Tuning:
    """How a run uses the machine. Same spec, same device, same number of cores: same choices, so same results."""

    device: torch.device
    threads: int
    """Threads inside one operation, on a CPU."""
    channels_last: bool
    optimizer: str
    """fused, foreach or forloop."""
    prefetch: bool
    """Prepare the next chunk of batches in a thread."""
    chunk_images: int
    """Images that are prepared at once."""
    eval_batch: int
    images_on_device: bool

    def as_json(self) -> dict[str, Any]:
        """Plain data for the run's record."""
        return {**asdict(self), "device": str(self.device)}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The process-wide part of it holds within this block."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def choose_tuning(device: str) -> Tuning:
    """Decide."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Tuning(
        device=torch.device(device),
        threads=torch.get_num_threads(),
        channels_last=False,
        optimizer="fused",
        prefetch=False,
        chunk_images=512,
        eval_batch=500,
        images_on_device=device != "cpu",
    )
