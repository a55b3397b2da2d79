"""Finds and reads the best weights' logits on a split, and computes figures from them."""

from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from models.errors import Conflict, CorruptFile, InvalidRequest
from models.evaluation.calibration import expected_calibration_error
from models.evaluation.mistakes import surest_mistakes
from models.evaluation.outputs import AboutOutputs, Outputs, read_about, read_outputs
from models.evaluation.probabilities import Floats, softmax
from models.files import verify
from models.store import artifacts, experiments
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind, Status
from models.store.tables import Experiment

REPEAT = "POST /api/v1/experiments/{id}/reproduce runs its spec again and stores them"


class EvaluatedSplit(StrEnum):
    """A split that the best weights are measured on when a run ends."""

    VALIDATION = "validation"
    """Held out of the training images; decides which epoch is the best."""
    TEST = "test"
    """Measured once, where the spec asks for it."""


KINDS = {
    EvaluatedSplit.VALIDATION: ArtifactKind.OUTPUTS_VALIDATION,
    EvaluatedSplit.TEST: ArtifactKind.OUTPUTS_TEST,
}


@dataclass(frozen=True, slots=True)
class OutputsSource:
    """The location of one experiment's stored outputs on one split."""

    experiment_id: int
    name: str
    split: EvaluatedSplit
    record: ArtifactRecord
    path: Path

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that figures and pictures depend on."""
        return self.experiment_id, self.name, self.split.value, self.record.sha256

    def title(self, about: AboutOutputs) -> str:
        """The title of a picture."""
        name = f"#{self.experiment_id} {self.name}".strip()
        return f"{name}, {self.split} split, epoch {about.epoch}"

    def read(self) -> Outputs:
        """The outputs. Raises Conflict if they cannot be read."""
        try:
            verify(self.path, self.record.sha256)
            return read_outputs(self.path)
        except CorruptFile as error:
            raise self._unreadable(error) from error

    def about(self) -> AboutOutputs:
        """The header of the file. Raises Conflict if it cannot be read."""
        try:
            return read_about(self.path)
        except CorruptFile as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: CorruptFile) -> Conflict:
        return Conflict(
            f"the outputs of experiment {self.experiment_id} on the {self.split} split cannot be read: {error.detail}",
            fix=REPEAT.format(id=self.experiment_id),
        )


def find_outputs(session: Session, experiment_id: int, split: EvaluatedSplit, experiments_dir: Path) -> OutputsSource:
    """Where the outputs are. Raises NotFound without the experiment, Conflict with the reason while there are none."""
    row = experiments.get(session, experiment_id)
    record = artifacts.find(session, experiment_id, KINDS[split])
    if record is None:
        raise _none_yet(row, split)
    try:
        path = record.file(experiments_dir)
    except CorruptFile as error:
        raise Conflict(f"the outputs of experiment {row.id} cannot be read: {error.detail}") from error
    return OutputsSource(row.id, row.name, split, record, path)


def _none_yet(row: Experiment, split: EvaluatedSplit) -> Conflict:
    start = f"experiment {row.id} is {row.status} and has no outputs on the {split} split"
    evaluates_test = bool(row.spec.get("dataset", {}).get("evaluate_test"))
    if split is EvaluatedSplit.TEST and not evaluates_test:
        return Conflict(
            f"{start}: its spec has dataset.evaluate_test false",
            fix="ask for split=validation, or submit the spec again with dataset.evaluate_test true",
        )
    if not row.status.terminal:
        return Conflict(f"{start} yet: they are stored when a run ends", fix="wait until it has ended")
    if row.status is Status.COMPLETED:
        return Conflict(
            f"{start}: it was trained by a version of Epochal that did not store them, or its outputs were not finite",
            fix=REPEAT.format(id=row.id),
        )
    return Conflict(
        f"{start}: a run that does not complete stores those of the validation split, and only if an epoch has ended "
        "and measuring takes seconds",
        fix=f"POST /api/v1/experiments/{row.id}/resume continues it",
    )


def class_number(field: str, given: str | None, names: tuple[str, ...]) -> int | None:
    """The class with a name or number. Raises InvalidRequest, with the nearest name, if there is none."""
    if given is None:
        return None
    if given in names:
        return names.index(given)
    if given.isascii() and given.isdecimal() and len(given) <= 6 and int(given) < len(names):
        return int(given)
    folded = [name.casefold() for name in names]
    if given.casefold() in folded:
        return folded.index(given.casefold())
    nearest = names[folded.index((get_close_matches(given[:100].casefold(), folded, n=1, cutoff=0.0) or folded)[0])]
    message = f"there is no class '{given[:60]}'; it may be a class's name or its number, 0 to {len(names) - 1}"
    entry = {"field": field, "message": message, "value": given[:100], "nearest": nearest}
    raise InvalidRequest(f"{field}: {message}", errors=[entry])


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrongly classified image. Classes are numbers."""

    position: int
    label: int
    predicted: int
    probability: float
    """Of the predicted class."""
    label_probability: float


def find_mistakes(outputs: Outputs, label: int | None, predicted: int | None) -> list[Mistake]:
    """The wrong predictions, the highest confidence first."""
    probabilities = softmax(outputs.logits)
    rows = surest_mistakes(probabilities, outputs.labels, label=label, predicted=predicted)
    chosen = probabilities[rows].argmax(axis=1)
    return [
        Mistake(
            position=int(outputs.positions[row]),
            label=int(outputs.labels[row]),
            predicted=int(number),
            probability=float(probabilities[row, number]),
            label_probability=float(probabilities[row, outputs.labels[row]]),
        )
        for row, number in zip(rows, chosen, strict=True)
    ]


def calibration_errors(
    outputs: Outputs, temperature: float | None
) -> tuple[Floats, Floats | None, float, float | None]:
    """Probabilities and expected calibration error of the outputs, as they are and with a temperature."""
    before = softmax(outputs.logits)
    after = None if temperature is None else softmax(outputs.logits, temperature)
    error = expected_calibration_error(before, outputs.labels)
    return before, after, error, None if after is None else expected_calibration_error(after, outputs.labels)


def predicted_classes(outputs: Outputs) -> NDArray[np.int64]:
    """The class of the highest logit of each image (N,)."""
    return np.asarray(outputs.logits.argmax(axis=1), np.int64)
