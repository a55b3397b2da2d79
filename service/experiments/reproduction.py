"""Comparison of an experiment with its reproduction: identical to the bit, within noise, or different."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.curves.agreement import Agreement, Comparison, agreement
from models.curves.metrics import EpochMetrics
from models.errors import Conflict, CorruptFile
from models.plain import JsonObject
from models.store import artifacts, experiments, history
from models.store.states import ArtifactKind
from models.store.tables import Experiment
from service.http.documents import API, Document
from service.http.prefix import with_prefix

HEADER_LENGTH_BYTES = 8


class EnvironmentDifference(Document):
    """One difference between two runs' environments."""

    name: str
    original: Any
    reproduction: Any


class ReproductionDocument(Document):
    """Two runs of one spec, compared."""

    original: int
    reproduction: int
    agreement: Agreement | Literal["pending"]
    sentence: str = Field(description="The comparison in words.")
    epochs: tuple[int, int] = Field(description="How many epochs each has.")
    first_difference: int | None = Field(description="The first epoch that is not the same to the bit.")
    series: dict[str, dict[str, float | int]] = Field(
        description="By series: the largest difference and its epoch, the difference over the last third and what "
        "chance explains of it (tolerance), and the share of epochs within chance of each other."
    )
    weights_identical: bool | None = Field(description="null where one of them keeps no last weights.")
    environment_differences: list[EnvironmentDifference]
    links: dict[str, str]


def compare(session: Session, experiment_id: int, experiments_dir: Path) -> ReproductionDocument:
    """Compare an experiment with the one it reproduces, or else with the newest that reproduces it."""
    original, repeated = _pair(session, experiments.get(session, experiment_id))
    histories = history.read_many(session, [original.id, repeated.id])
    weights = [_digest_of_weights(session, row.id, experiments_dir) for row in (original, repeated)]
    same_weights = None if None in weights else weights[0] == weights[1]
    found = compare_runs(histories[original.id], histories[repeated.id], same_weights=same_weights)
    if not (original.status.terminal and repeated.status.terminal):
        waiting = next(row for row in (repeated, original) if not row.status.terminal)
        found["agreement"] = "pending"
        found["sentence"] = f"Experiment {waiting.id} is {waiting.status}."
    address, its_address = (with_prefix(f"{API}/experiments/{row.id}") for row in (original, repeated))
    return ReproductionDocument(
        original=original.id,
        reproduction=repeated.id,
        weights_identical=same_weights,
        environment_differences=_differences(original.environment or {}, repeated.environment or {}),
        links={
            "curves": f"{address}/curves.png?compare={repeated.id}",
            "original": address,
            "reproduction": its_address,
        },
        **found,
    )


def compare_runs(
    original: Sequence[EpochMetrics], repeated: Sequence[EpochMetrics], *, same_weights: bool | None
) -> Comparison:
    """Compare two histories (`models.curves.agreement`) and the digests of the last weights."""
    found = agreement(original, repeated)
    if found["agreement"] == Agreement.BIT_IDENTICAL:
        if same_weights:
            found["sentence"] = f"All {len(original)} epochs agree to the bit, and so do the weights."
        elif same_weights is False:
            found["agreement"] = Agreement.WITHIN_NOISE
            found["sentence"] = f"All {len(original)} epochs agree to the bit; the last weights do not."
    return found


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


def _digest_of_weights(session: Session, experiment_id: int, experiments_dir: Path) -> str | None:
    """Return the SHA-256 of the last weights' tensors, without the metadata, which contains the experiment's id."""
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
    except (OSError, ValueError, AttributeError, OverflowError, MemoryError, RecursionError, CorruptFile):
        return None
    return digest.hexdigest()


def _differences(original: JsonObject, repeated: JsonObject, prefix: str = "") -> list[EnvironmentDifference]:
    found: list[EnvironmentDifference] = []
    for name in sorted(original.keys() | repeated.keys()):
        one, other = original.get(name), repeated.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{name}.")
        elif one != other and "seconds" not in prefix + name:
            found.append(EnvironmentDifference(name=prefix + name, original=one, reproduction=other))
    return found
