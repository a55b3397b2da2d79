"""Stored weights: finding the file, checking its digest, reading its metadata. Free of torch."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import Conflict, CorruptFile, InvalidRequest
from models.preprocessing import Preprocessing, WeightsDescription
from models.spec.model import NetworkSpec
from models.spec.parse import load_model
from models.store import Store, artifacts, experiments
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from service.predictions.session import UNREADABLE, read_tensors

KINDS = {"best": ArtifactKind.WEIGHTS_BEST, "last": ArtifactKind.WEIGHTS_LAST}
OTHER = {"best": "last", "last": "best"}
READ_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of an experiment, with their network's spec and preprocessing."""

    experiment_id: int
    which: str
    """best or last."""
    epoch: int | None
    sha256: str
    model: NetworkSpec
    preprocessing: Preprocessing
    test_time_augmentation: str = "none"


def find_record(store: Store, experiment_id: int, which: str) -> ArtifactRecord:
    """The newest record of an experiment's best or last weights.

    Raises NotFound if there is no such experiment, Conflict if it has no weights (yet).
    """
    if which not in KINDS:
        raise InvalidRequest(f"weights is '{which[:20]}'; an experiment keeps its best and its last", fix="use best")
    with store.reading() as session:
        found = artifacts.newest(session, experiment_id, KINDS[which])
        if found is not None:
            return found
        status = experiments.get(session, experiment_id).status
        other = OTHER[which]
        has_other = artifacts.newest(session, experiment_id, KINDS[other]) is not None
    fix = f"ask for its {other} weights: weights={other}" if has_other else "wait until its first epoch has ended"
    raise Conflict(
        f"experiment {experiment_id} is {status} and has no {which} weights" + ("" if status.terminal else " yet"),
        fix=None if status.terminal and not has_other else fix,
    )


def finite_other(store: Store, experiment_id: int, which: str, experiments_dir: Path) -> str | None:
    """Which other weights of an experiment, "best" or "last", have finite values alone; None if there are none."""
    other = OTHER[which]
    try:
        _, data = read_weights(find_record(store, experiment_id, other), other, experiments_dir)
        return other if all(np.isfinite(tensor).all() for tensor in read_tensors(data).values()) else None
    except (Conflict, CorruptFile, *UNREADABLE):
        return None


def read_weights(record: ArtifactRecord, which: str, experiments_dir: Path) -> tuple[Weights, bytes]:
    """A weights file's description and content.

    Raises CorruptFile if the content is not what was recorded: damaged, or replaced since by a run that goes on.
    """
    try:
        data = record.file(experiments_dir).read_bytes()
    except OSError as error:
        raise CorruptFile(f"the {which} weights of experiment {record.experiment_id} cannot be read") from error
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise CorruptFile(f"the {which} weights of experiment {record.experiment_id} do not match their digest")
    try:
        weights = _described(read_about(data), record, which)
    except UNREADABLE as error:
        text = f"the {which} weights of experiment {record.experiment_id} do not say what network they are of"
        raise CorruptFile(text) from error
    return weights, data


def _described(about: WeightsDescription, record: ArtifactRecord, which: str) -> Weights:
    epoch = about.get("epoch")
    return Weights(
        experiment_id=record.experiment_id,
        which=which,
        epoch=None if epoch is None else int(epoch),
        sha256=record.sha256,
        model=load_model(about["model"]),
        preprocessing=Preprocessing.from_json(about["preprocessing"]),
        test_time_augmentation=str(about.get("test_time_augmentation", "none")),
    )


def read_about(data: bytes) -> WeightsDescription:
    """Read a weights file's metadata: the network's spec and the preprocessing."""
    try:
        length = int.from_bytes(data[:8], "little")
        about: WeightsDescription = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["epochal"])
        return about
    except UNREADABLE as error:
        raise CorruptFile("a weights file does not say what network it is of") from error
