"""Trains cases with the engine and keeps what its last verdict was given."""

import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import worker.training.recorder
import worker.training.verdicts
from benchmarks.verdict_score.faults import Case, body_of, injected
from models.data.dataset import ImageDataset, load_dataset
from models.settings import get_settings
from models.spec.parse import parse_spec
from models.verdict import judge
from worker.training.engine import train
from worker.training.sink import MemorySink

Given = dict[str, Any]
"""The arguments of `judge`."""


def load(name: str) -> ImageDataset:
    """A dataset from the cache."""
    return load_dataset(name, get_settings())


def run(case: Case, dataset: ImageDataset) -> Given:
    """Train a case; what the last verdict was given."""
    spec = parse_spec(body_of(case))
    if case.fault.dataset is not None:
        dataset = case.fault.dataset(dataset, spec, case.variant)
    given: Given = {}

    def recorded(history: Any, **more: Any) -> Any:
        if more["finished"]:
            given.update(history=list(history), **more)
        return judge(history, **more)

    with (
        tempfile.TemporaryDirectory() as folder,
        injected(case),
        patch.object(worker.training.verdicts, "judge", recorded),
        patch.object(worker.training.recorder, "export_described", lambda about: b""),  # of no use to a verdict
    ):
        train(spec, dataset, MemorySink(), Path(folder), device="cpu")
    return given


def path_of(folder: Path, case: Case) -> Path:
    """Where what a case's verdict was given is kept."""
    return folder / f"{case.name}.pickle"


def collect(folder: Path, wanted: Sequence[Case], most: int, say: Callable[[str], None]) -> bool:
    """Train the cases that are not in the folder yet, at most so many. Returns whether all are there."""
    for case in wanted:
        if path_of(folder, case).exists():  # asked anew for each: several processes may share the work
            continue
        if not most:
            return False
        most -= 1
        began = time.process_time()
        given = run(case, load(case.dataset))
        partial = path_of(folder, case).with_suffix(".partial")
        partial.write_bytes(pickle.dumps(given))
        partial.rename(path_of(folder, case))
        say(f"{case.name} {time.process_time() - began:.1f} CPU s")
    return True


def kept(folder: Path, case: Case) -> Given | None:
    """What a case's verdict was given; None if it was not trained yet."""
    path = path_of(folder, case)
    given: Given | None = pickle.loads(path.read_bytes()) if path.exists() else None
    return given
