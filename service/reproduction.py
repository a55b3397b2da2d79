"""Whether an experiment came out as the one whose spec it repeats: to the bit, within noise, or not."""

import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.errors import Conflict
from models.metrics import EpochMetrics
from models.store import artifacts, experiments, history
from models.store.states import ArtifactKind
from models.store.tables import Experiment
from service.documents import API, Document

COMPARED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")
"""Series that the spec and the seed decide; time and memory are the machine's."""
SIGMAS = 2.0
HEADER_LENGTH_BYTES = 8


class Agreement(StrEnum):
    """How two runs of one spec compare."""

    PENDING = "pending"
    """One of them has not ended, so there is nothing to say yet."""
    IDENTICAL = "identical"
    """Every epoch agrees to the bit, and so do the weights where both are kept."""
    WITHIN_NOISE = "within-noise"
    """They differ by no more than chance makes two such runs differ."""
    DIFFERENT = "different"
    """They differ by more than that."""


class EnvironmentDifference(Document):
    """One thing about the environment that was not the same."""

    name: str
    original: Any
    reproduction: Any


class ReproductionDocument(Document):
    """Two runs of one spec, compared."""

    original: int
    reproduction: int
    agreement: Agreement
    sentence: str = Field(description="The same in words.")
    epochs_compared: int
    first_difference: int | None = Field(description="The first epoch that is not the same to the bit.")
    largest_difference: dict[str, float] = Field(description="By series, over the epochs that both have.")
    mean_accuracy_difference: float | None
    noise: float | None = Field(description="Mean difference of validation accuracy that chance alone explains.")
    weights_identical: bool | None = Field(description="null where one of them keeps no last weights.")
    environment_differences: list[EnvironmentDifference]
    links: dict[str, str]


def compare(session: Session, experiment_id: int, experiments_dir: Path) -> ReproductionDocument:
    """Compare an experiment with the one it reproduces, or else with the newest that reproduces it."""
    original, repeated = _pair(session, experiments.get(session, experiment_id))
    histories = history.read_many(session, [original.id, repeated.id])
    weights = [_digest_of_weights(session, row.id, experiments_dir) for row in (original, repeated)]
    same_weights = None if None in weights else weights[0] == weights[1]
    num_images = _num_validation_images(original.spec)
    found = judge(histories[original.id], histories[repeated.id], same_weights=same_weights, num_images=num_images)
    if not (original.status.terminal and repeated.status.terminal):
        waiting = next(row for row in (repeated, original) if not row.status.terminal)
        found |= {"agreement": Agreement.PENDING, "sentence": f"Experiment {waiting.id} is {waiting.status}."}
    curves = f"{API}/experiments/{original.id}/curves.png?compare={repeated.id}"
    return ReproductionDocument(
        original=original.id,
        reproduction=repeated.id,
        weights_identical=same_weights,
        environment_differences=_differences(original.environment or {}, repeated.environment or {}),
        links={
            "curves": curves,
            "original": f"{API}/experiments/{original.id}",
            "reproduction": f"{API}/experiments/{repeated.id}",
        },
        **found,
    )


def judge(
    original: Sequence[EpochMetrics],
    repeated: Sequence[EpochMetrics],
    *,
    same_weights: bool | None,
    num_images: int | None,
) -> dict[str, Any]:
    """What two histories say about each other; `num_images` validation images were measured."""
    pairs = list(zip(original, repeated, strict=False))
    unequal = [a.epoch for a, b in pairs if not all(_same(getattr(a, s), getattr(b, s)) for s in COMPARED)]
    largest = {
        series: max(gaps)
        for series in COMPARED
        if (gaps := [gap for a, b in pairs if math.isfinite(gap := abs(getattr(a, series) - getattr(b, series)))])
    }
    differences = [
        gap for a, b in pairs if math.isfinite(gap := abs(a.val_accuracy - b.val_accuracy))
    ]  # fmt: skip
    mean = statistics.fmean(differences) if differences else None
    noise = _noise([a for a, _ in pairs], num_images)
    whole = len(original) == len(repeated) > 0
    if whole and not unequal and same_weights is not False:
        agreement = Agreement.IDENTICAL
        sentence = f"All {len(pairs)} epochs agree to the bit" + (", and so do the weights." if same_weights else ".")
    elif whole and mean is not None and noise is not None and mean <= noise:
        agreement = Agreement.WITHIN_NOISE
        sentence = (
            f"Validation accuracy differs by {100 * mean:.2f} points on average; "
            f"chance alone explains up to {100 * noise:.2f}."
        )
    else:
        agreement = Agreement.DIFFERENT
        sentence = _how_different(len(original), len(repeated), mean, noise)
    return {
        "agreement": agreement,
        "sentence": sentence,
        "epochs_compared": len(pairs),
        "first_difference": unequal[0] if unequal else None,
        "largest_difference": largest,
        "mean_accuracy_difference": mean,
        "noise": noise,
    }


def _how_different(num_original: int, num_repeated: int, mean: float | None, noise: float | None) -> str:
    if num_original != num_repeated:
        return f"One has {num_original} epochs and the other {num_repeated}."
    if mean is None or noise is None:
        return "There are no finite epochs to compare."
    return (
        f"Validation accuracy differs by {100 * mean:.2f} points on average, "
        f"more than the {100 * noise:.2f} that chance explains."
    )


def _noise(epochs: Sequence[EpochMetrics], num_images: int | None) -> float | None:
    """The mean difference of accuracy between two runs that differ by chance alone.

    Two things make it: the validation images are a sample (a binomial error of each run), and a curve wobbles from
    epoch to epoch by as much as a different order of the same additions can move it.
    """
    accuracies = [epoch.val_accuracy for epoch in epochs if math.isfinite(epoch.val_accuracy)]
    if not accuracies:
        return None
    p = statistics.fmean(accuracies)
    sampling = math.sqrt(2 * p * (1 - p) / num_images) if num_images else 0.0
    steps = [abs(later - before) for before, later in pairwise(accuracies)]
    late = steps[len(steps) // 2 :]  # early epochs climb, which is no noise
    wobble = statistics.median(late) if late else 0.0
    return SIGMAS * math.hypot(sampling, wobble)


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _pair(session: Session, row: Experiment) -> tuple[Experiment, Experiment]:
    if row.reproduces is not None:
        return experiments.get(session, row.reproduces), row
    query = select(Experiment.id).where(Experiment.reproduces == row.id).order_by(Experiment.id.desc()).limit(1)
    newest = session.scalar(query)
    if newest is None:
        raise Conflict(
            f"experiment {row.id} reproduces none and is reproduced by none",
            fix=f"POST {API}/experiments/{row.id}/reproduce runs it again",
        )
    return row, experiments.get(session, newest)


def _num_validation_images(spec: dict[str, Any]) -> int | None:
    from models.data.catalogue import get_dataset
    from models.errors import SpecError

    dataset = spec["dataset"]
    try:
        num_held_out = round(float(dataset["val_fraction"]) * get_dataset(dataset["name"]).num_train)
    except SpecError:  # a dataset that is gone from the catalogue
        return None
    return min(num_held_out, int(dataset.get("val_limit") or num_held_out))


def _digest_of_weights(session: Session, experiment_id: int, experiments_dir: Path) -> str | None:
    """Digest of the last weights' numbers, without the metadata, which names the experiment."""
    record = artifacts.newest(session, experiment_id, ArtifactKind.WEIGHTS_LAST)
    if record is None:
        return None
    digest = hashlib.sha256()
    try:
        with record.file(experiments_dir).open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")))
            header.pop("__metadata__", None)
            digest.update(json.dumps(header, sort_keys=True).encode())
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except (OSError, ValueError):
        return None
    return digest.hexdigest()


def _differences(original: dict[str, Any], repeated: dict[str, Any], prefix: str = "") -> list[EnvironmentDifference]:
    found: list[EnvironmentDifference] = []
    for name in sorted(original.keys() | repeated.keys()):
        one, other = original.get(name), repeated.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{name}.")
        elif one != other and "seconds" not in prefix + name:
            found.append(EnvironmentDifference(name=prefix + name, original=one, reproduction=other))
    return found
