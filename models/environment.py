"""The environment of a run: recorded by the worker, compared and shown by the service."""

from typing import TypedDict

from models.plain import JsonObject


class ThreadChange(TypedDict):
    """A change of the number of threads at a place in a run."""

    times_lowered: int
    epoch: int
    step: int
    threads: int


class Environment(TypedDict, total=False):
    """Versions, hardware and threads of a run. One that an earlier version recorded may lack some of it."""

    python: str
    platform: str
    versions: dict[str, str | None]
    """Of the packages that decide the results, by name."""
    device: str
    device_type: str
    """cpu or cuda."""
    cuda: str | None
    cores: int
    """Cores that the process may use."""
    threads: int
    thread_changes: list[ThreadChange]
    precision: str
    """The number format that the forward and backward pass had: fp32, bf16 or fp16."""
    tuning: JsonObject
    """How the machine was used: worker.training.tuning."""
    git_revision: str | None
    dataset_fingerprint: str
    cuda_graphs: str | None
    """recorded, or why not; None where they were not wanted."""
    seconds: dict[str, float]
    """Seconds of each phase, so far."""
    joules: float
    """Energy that all attempts took, where it was measured."""
