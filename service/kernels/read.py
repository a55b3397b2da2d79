"""Finding and reading a layer's kernels: from the weights, or from the kernels stored per epoch."""

import json
import math
import mmap
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from models.errors import Conflict, CorruptFile, InvalidRequest, NotFound
from models.store import artifacts, experiments
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from models.store.tables import Experiment
from service.http.routing import MAX_ID

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I64": np.dtype("<i8")}
WEIGHTS = {"best": ArtifactKind.WEIGHTS_BEST, "last": ArtifactKind.WEIGHTS_LAST}


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Location of one layer's kernels of one epoch."""

    experiment_id: int
    name: str
    layer: str
    epoch: str
    """best, last, or an epoch's number."""
    nearest: bool
    """Whether the nearest stored epoch may be used instead."""
    record: ArtifactRecord
    path: Path

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that the kernels depend on, for the ETag."""
        return self.experiment_id, self.name, self.layer, self.epoch, self.nearest, self.record.sha256

    def title(self, epoch: int | str) -> str:
        """Return the title of a picture of an epoch's kernels."""
        name = f"#{self.experiment_id} {self.name}".strip()
        return f"{name}, {self.layer}, {epoch if isinstance(epoch, str) else f'epoch {epoch}'}"

    def read(self) -> tuple[int | str, NDArray[np.floating]]:
        """Which epoch's they are, and the kernels, (out, in, height, width).

        They are mapped: a layer may be larger than what should be read of it. Raises NotFound for an epoch whose
        kernels are not kept, Conflict if training replaced the file just now.
        """
        try:
            tensors = map_tensors(self.path)
            if self.record.kind is not ArtifactKind.KERNELS:
                return self.epoch, tensors[f"{self.layer}.weight"]
            kept: NDArray[Any] = tensors["kernels"]
            # earlier files hold every epoch and do not say so
            epochs = tensors["epochs"].tolist() if "epochs" in tensors else list(range(1, len(kept) + 1))
            if self.epoch == "last":
                return self.epoch, kept[-1]
            row = self._row(epochs)
            return epochs[row], kept[row]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Conflict(
                f"the kernels of experiment {self.experiment_id} cannot be read now", fix="try again in a moment"
            ) from error

    def _row(self, epochs: list[int]) -> int:
        """Return the index of the requested epoch among the stored ones (ascending)."""
        epoch, last = int(self.epoch), epochs[-1]
        if self.nearest:
            return min(range(len(epochs)), key=lambda row: abs(epochs[row] - epoch))
        if not 1 <= epoch <= last:
            raise _wrong("epoch", f"is {epoch}, and kernels are kept of epochs 1 to {last}", last)
        if epoch not in epochs:
            before, after = max(e for e in epochs if e < epoch), min(e for e in epochs if e > epoch)
            nearest = before if epoch - before <= after - epoch else after
            raise NotFound(
                f"the kernels of epoch {epoch} of experiment {self.experiment_id} are not kept: of this run's epochs 1 "
                f"to {last}, {len(epochs)} are, and the ones beside it are {before} and {after}",
                fix=f"use epoch={nearest}, the nearest that is kept, or add nearest=true",
                errors=[{"field": "epoch", "message": "is not kept", "value": epoch, "nearest": nearest}],
            )
        return epochs.index(epoch)


def map_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, mapped into memory and not read. Raises ValueError if it is none, or damaged.

    https://github.com/huggingface/safetensors#format: eight bytes of the header's length, the header, the tensors.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:data])
    header.pop("__metadata__", None)
    found: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        kind = DTYPES.get(entry["dtype"])
        shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
        if kind is not None and end > start:
            flat: NDArray[Any] = np.frombuffer(content, kind, int(math.prod(shape)), data + int(start))
            found[name] = flat.reshape(shape)
    return found


def find_kernels(
    session: Session, experiment_id: int, layer: str | None, epoch: str, experiments_dir: Path, *, nearest: bool = False
) -> KernelSource:
    """Where the kernels of a layer are. Raises InvalidRequest for an unknown layer or epoch, Conflict if there are no
    kernels yet.
    """
    row = experiments.get(session, experiment_id)
    convolutions = [entry["name"] for entry in row.layers or [] if entry.get("kernel_shape")]
    chosen = _choose_layer(layer, convolutions)
    record = _find_record(session, row, epoch, first=chosen == convolutions[0])
    try:
        path = record.file(experiments_dir)
    except CorruptFile as error:
        raise Conflict(f"the kernels of experiment {row.id} cannot be read: {error.detail}") from error
    return KernelSource(row.id, row.name, chosen, epoch, nearest, record, path)


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
            f"experiment {row.id} is {row.status} and has no kernels to show{'' if row.status.terminal else ' yet'}",
            fix=None if row.status.terminal else "wait until its first epoch has ended",
        )
    return found


def _wrong(field: str, message: str, nearest: Any, **extra: Any) -> InvalidRequest:
    entry = {"field": field, "message": message, "nearest": nearest, **extra}
    return InvalidRequest(f"{field}: {message}", errors=[entry])
