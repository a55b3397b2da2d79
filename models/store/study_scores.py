"""Reads the scores of runs for comparisons: the best accuracy, and which images the best weights classify correctly."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from models.errors import CorruptFile
from models.evaluation.outputs import read_outputs
from models.store import artifacts, experiments
from models.store.states import ArtifactKind, Status
from models.store.tables import Experiment
from models.studies.comparison import Bools, Score

KEPT = 256
COUNTED = (Status.COMPLETED, Status.DIVERGED, Status.CANCELLED)
"""A run that was cancelled or diverged has its best weights until then; one that failed is left out."""


def read_scores(
    session: Session, experiments_dir: Path, rows: Sequence[Experiment], val_images: Mapping[int, int]
) -> dict[int, Score]:
    """The scores of experiments that have ended with at least one epoch, by id.

    `val_images` says on how many images each was validated, for those whose answers were not kept.
    """
    ended = [row for row in rows if row.status in COUNTED]
    summaries = experiments.summaries(session, [row.id for row in ended])
    scores = {}
    for row in ended:
        best = summaries[row.id]["best"].get("val_accuracy")
        if best is None:
            continue
        correct = _correct(session, experiments_dir, row)
        scores[row.id] = Score(
            seed=int(row.spec["seed"]),
            accuracy=float(best["value"]) if correct is None else float(correct.mean()),
            num_images=val_images[row.id] if correct is None else len(correct),
            correct=correct,
            images=images_of(row),
        )
    return scores


def images_of(row: Experiment) -> str:
    """Which images a run was validated on: equal for runs with the same."""
    dataset: dict[str, Any] = row.spec["dataset"]
    chosen = {name: dataset.get(name) for name in ("name", "val_fraction", "split_seed", "val_limit")}
    return json.dumps([row.dataset_fingerprint, row.spec.get("spec_version"), chosen], sort_keys=True)


def _correct(session: Session, experiments_dir: Path, row: Experiment) -> Bools | None:
    record = artifacts.find(session, row.id, ArtifactKind.OUTPUTS_VALIDATION)
    if record is None:
        return None
    try:
        return _read(record.file(experiments_dir), record.sha256)
    except CorruptFile:
        return None


@lru_cache(KEPT)
def _read(path: Path, _sha256: str) -> Bools:
    outputs = read_outputs(path)
    return np.asarray(outputs.logits.argmax(axis=1) == outputs.labels)
