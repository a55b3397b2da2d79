"""Which kernels somebody wants to see, and reading them: from the weights, or from what was kept of every epoch."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from sqlalchemy.orm import Session

from models.errors import Conflict, CorruptFile, InvalidRequest
from models.store import artifacts, experiments
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from models.store.tables import Experiment
from service.dependencies import MAX_ID

WEIGHTS = {"best": ArtifactKind.WEIGHTS_BEST, "last": ArtifactKind.WEIGHTS_LAST}


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Where one layer's kernels of one epoch are."""

    experiment_id: int
    name: str
    layer: str
    epoch: str
    """best, last, or an epoch's number."""
    record: ArtifactRecord
    path: Path

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that the kernels depend on."""
        return self.experiment_id, self.name, self.layer, self.epoch, self.record.sha256

    @property
    def title(self) -> str:
        """What a picture of them is called."""
        name = f"#{self.experiment_id} {self.name}".strip()
        return f"{name}, {self.layer}, {self.epoch if not self.epoch.isdigit() else 'epoch ' + self.epoch}"

    def read(self) -> NDArray[np.float32]:
        """The kernels, (out, in, height, width). Raises Conflict if training replaced the file just now."""
        try:
            with safe_open(self.path, framework="numpy") as file:
                if self.record.kind is not ArtifactKind.KERNELS:
                    return np.asarray(file.get_tensor(f"{self.layer}.weight"), dtype=np.float32)
                kept = file.get_slice("kernels")
                num_epochs = kept.get_shape()[0]
                row = num_epochs if self.epoch == "last" else int(self.epoch)
                if not 1 <= row <= num_epochs:
                    raise _wrong("epoch", f"is {row}, and kernels are kept of epochs 1 to {num_epochs}", num_epochs)
                return np.asarray(kept[row - 1], dtype=np.float32)
        except (OSError, SafetensorError) as error:
            raise Conflict(
                f"the kernels of experiment {self.experiment_id} cannot be read now", fix="try again in a moment"
            ) from error


def find_kernels(
    session: Session, experiment_id: int, layer: str | None, epoch: str, experiments_dir: Path
) -> KernelSource:
    """Where the kernels of a layer are. Raises InvalidRequest for a layer or epoch that there is not, Conflict before
    there are any.
    """
    row = experiments.get(session, experiment_id)
    convolutions = [entry["name"] for entry in row.layers or [] if entry.get("kernel_shape")]
    chosen = _choose_layer(layer, convolutions)
    record = _find_record(session, row, epoch, first=chosen == convolutions[0])
    try:
        path = record.file(experiments_dir)
    except CorruptFile as error:
        raise Conflict(f"the kernels of experiment {row.id} cannot be read: {error.detail}") from error
    return KernelSource(row.id, row.name, chosen, epoch, record, path)


def _choose_layer(layer: str | None, convolutions: list[str]) -> str:
    if not convolutions:
        raise Conflict("this experiment's network has no known convolutions")
    if layer is None:
        return convolutions[0]
    if layer not in convolutions:
        nearest = (get_close_matches(layer, convolutions, n=1, cutoff=0.0) or convolutions)[0]
        raise _wrong("layer", f"there is no convolution '{layer[:100]}'", nearest, choices=convolutions)
    return layer


def _find_record(session: Session, row: Experiment, epoch: str, *, first: bool) -> ArtifactRecord:
    if epoch in WEIGHTS:
        found = artifacts.newest(session, row.id, WEIGHTS[epoch])
        if found is None and epoch == "last" and first:  # weights are written at the end, kernels after every epoch
            found = artifacts.newest(session, row.id, ArtifactKind.KERNELS)
    else:
        if not (epoch.isascii() and epoch.isdigit() and 1 <= len(epoch) <= 9 and 1 <= int(epoch) <= MAX_ID):
            raise _wrong("epoch", f"is '{epoch[:40]}'; it may be best, last or an epoch's number", "best")
        if not first:
            raise _wrong("epoch", "only the first convolution's kernels are kept of every epoch", "best")
        found = artifacts.newest(session, row.id, ArtifactKind.KERNELS)
    if found is None:
        raise Conflict(
            f"experiment {row.id} is {row.status} and has no kernels to show yet",
            fix=None if row.status.terminal else "wait until its first epoch has ended",
        )
    return found


def _wrong(field: str, message: str, nearest: Any, **extra: Any) -> InvalidRequest:
    entry = {"field": field, "message": message, "nearest": nearest, **extra}
    return InvalidRequest(f"{field}: {message}", errors=[entry])
