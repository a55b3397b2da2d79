"""Reads the scores of runs for comparisons: the best accuracy, and which images the best weights classify correctly."""

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from models.errors import CorruptFile
from models.evaluation.outputs import read_outputs
from models.spec.study import MAX_RUNS
from models.store import artifacts, experiments
from models.store.states import ArtifactKind, Status
from models.store.tables import Experiment
from models.studies.comparison import Score

KEPT = MAX_RUNS
"""Scores that are kept, a byte for each validation image: those of the largest study."""
COUNTED = (Status.COMPLETED, Status.DIVERGED, Status.CANCELLED)
"""A run that was cancelled or diverged has its best weights until then; one that failed is left out."""


def read_scores(
    session: Session, experiments_dir: Path, rows: Sequence[Experiment], val_images: Callable[[Experiment], int]
) -> dict[int, Score]:
    """The scores of experiments that have ended with at least one epoch, by id.

    `val_images` says on how many images one was validated whose predictions were not stored. The score of a run is the
    same object at each call, so that comparisons of the same scores are found in their cache.
    """
    ended = [row for row in rows if row.status in COUNTED]
    numbers = [row.id for row in ended]
    summaries = experiments.summaries(session, numbers)
    outputs = artifacts.find_many(session, numbers, ArtifactKind.OUTPUTS_VALIDATION)
    scores = {}
    for row in ended:
        best = summaries[row.id]["best"].get("val_accuracy")
        if best is None:
            continue
        seed, images = int(row.spec["seed"]), images_of(row)
        found = _score_of(outputs.get(row.id), experiments_dir, seed, images)
        scores[row.id] = found or _score_of_epoch(float(best["value"]), val_images(row), seed, images)
    return scores


def images_of(row: Experiment) -> str:
    """Which images a run was validated on: equal for runs with the same."""
    dataset: dict[str, Any] = row.spec["dataset"]
    chosen = {name: dataset.get(name) for name in ("name", "split", "val_fraction", "split_seed", "val_limit")}
    return json.dumps([row.dataset_fingerprint, row.spec.get("spec_version"), chosen], sort_keys=True)


def _score_of(record: artifacts.ArtifactRecord | None, experiments_dir: Path, seed: int, images: str) -> Score | None:
    """A score with its predictions on each image; None where they were not stored or cannot be read."""
    if record is None:
        return None
    try:
        return _score_of_file(record, experiments_dir, seed, images)
    except CorruptFile:
        return None


@lru_cache(KEPT)
def _score_of_file(record: artifacts.ArtifactRecord, experiments_dir: Path, seed: int, images: str) -> Score:
    outputs = read_outputs(record.file(experiments_dir))
    correct = np.asarray(outputs.logits.argmax(axis=1) == outputs.labels)
    return Score(seed, float(correct.mean()), len(correct), correct, images)


@lru_cache(KEPT)
def _score_of_epoch(accuracy: float, num_images: int, seed: int, images: str) -> Score:
    return Score(seed, accuracy, num_images, None, images)
