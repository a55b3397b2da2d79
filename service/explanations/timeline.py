"""Predicts one image with the weights of every kept epoch: when it was learned and when forgotten.

Forgetting events: Toneva et al. 2019 (arXiv 1812.05159).
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.errors import Conflict, CorruptFile
from models.evaluation.probabilities import Floats, softmax
from models.settings import Settings
from models.store import Store, artifacts
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from service.explanations.predicted_image import PredictedImage, predict_image
from service.http.documents import Document
from service.http.uploads import Upload
from service.predictions.graphs import Graphs
from service.predictions.predict import NETWORK_COST, PredictionQueue
from service.predictions.predictor import Predictor
from service.predictions.session import compute_logits, start_session
from service.predictions.weights import read_about

START_COST = 3
"""Reading and preparing an epoch's weights takes about as long as predicting three images."""
EXACT = (ArtifactKind.WEIGHTS_BEST, ArtifactKind.WEIGHTS_LAST)


class TimelineEpoch(Document):
    """The prediction of the image by the weights of one epoch."""

    epoch: int
    label: str
    probability: float
    target_probability: float
    is_target: bool = Field(description="Whether the label is the target.")


class TimelineDocument(Document):
    """One image at the kept epochs."""

    experiment_id: int
    image: str
    target: str = Field(description="The class that is followed: the one asked for, or what the best weights say.")
    target_index: int
    learned_at: int | None = Field(description="The first kept epoch that takes the image for the target.")
    forgotten_at: list[int] = Field(description="Kept epochs that do not, where the kept epoch before does.")
    kept_from: int | None = Field(description="The epoch from which on every kept one does; null if the last does not.")
    epochs: list[TimelineEpoch] = Field(description="Rising; not all epochs' weights are kept.")


@dataclass(frozen=True, slots=True)
class Timeline:
    """Probabilities (epochs, classes) of one image at the kept epochs."""

    predicted: PredictedImage
    target: int
    epochs: tuple[int, ...]
    probabilities: Floats

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the target is the most probable class, by kept epoch."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.target)

    @property
    def learned_at(self) -> int | None:
        """The first kept epoch that predicts the target; None if none does."""
        return next((epoch for epoch, is_right in zip(self.epochs, self.right, strict=True) if is_right), None)

    @property
    def forgotten_at(self) -> list[int]:
        """Kept epochs that do not predict the target, where the kept epoch before does."""
        pairs = itertools.pairwise(zip(self.epochs, self.right, strict=True))
        return [epoch for (_, before), (epoch, now) in pairs if before and not now]

    @property
    def kept_from(self) -> int | None:
        """The epoch from which on every kept epoch predicts the target; None if the last does not."""
        found = None
        for epoch, is_right in zip(reversed(self.epochs), reversed(self.right), strict=True):
            if not is_right:
                break
            found = epoch
        return found

    def document(self) -> TimelineDocument:
        """Build the JSON document."""
        names = self.predicted.class_names
        return TimelineDocument(
            experiment_id=self.predicted.served.weights.experiment_id,
            image=self.predicted.name,
            target=names[self.target],
            target_index=self.target,
            learned_at=self.learned_at,
            forgotten_at=self.forgotten_at,
            kept_from=self.kept_from,
            epochs=[
                TimelineEpoch(
                    epoch=epoch,
                    label=names[int(row.argmax())],
                    probability=float(row.max()),
                    target_probability=float(row[self.target]),
                    is_target=bool(is_right),
                )
                for epoch, row, is_right in zip(self.epochs, self.probabilities, self.right, strict=True)
            ],
        )


async def follow_image(
    store: Store,
    settings: Settings,
    predictor: Predictor,
    queue: PredictionQueue,
    whose: str,
    experiment_id: int,
    uploads: Sequence[Upload],
    target: str | None,
) -> Timeline:
    """Predict one image with the weights of every kept epoch, each in a turn of its own.

    Raises what predictions raise, and InvalidRequest for an unknown class.
    """
    async with queue.pieces.request(whose):
        predicted = await predict_image(predictor, queue, whose, experiment_id, "best", uploads)
        number = predicted.target(target)
        records = await queue.threads.run(_find_records, store, experiment_id)
        cost = (1 + START_COST) * NETWORK_COST * predicted.served.weights.preprocessing.input_size**2
        queue.count_work(whose, cost * len(records))
        found: dict[int, Floats] = {}
        for record in records:
            async with queue.pieces.place(whose, cost):
                scored = await queue.threads.run(_score, predictor.graphs, predicted, record, settings)
            if scored is not None:
                found.setdefault(*scored)
    epochs = tuple(sorted(found))
    return Timeline(predicted, number, epochs, np.stack([found[epoch] for epoch in epochs]))


def _find_records(store: Store, experiment_id: int) -> list[ArtifactRecord]:
    """The records of kept weights by epoch; of an epoch that is kept in 32 and in 16 bits, the 32-bit one."""
    with store.reading() as session:
        exact = [artifacts.newest(session, experiment_id, kind) for kind in EXACT]
        return [
            *(record for record in exact if record is not None),
            *artifacts.list_kind(session, experiment_id, ArtifactKind.WEIGHTS_EPOCH),
        ]


def _score(
    graphs: Graphs, predicted: PredictedImage, record: ArtifactRecord, settings: Settings
) -> tuple[int, Floats] | None:
    """The epoch of a weights file and its probabilities; None for a file that was removed in the meantime.

    Raises Conflict for weights that are damaged or whose logits are not finite.
    """
    try:
        data = record.file(settings.experiments_dir).read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, CorruptFile) as error:
        raise Conflict(f"{record.path} cannot be read", fix="reproduce the experiment") from error
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise Conflict(f"{record.path} does not match its digest", fix="reproduce the experiment")
    try:
        epoch = read_about(data).get("epoch")
        session = start_session(graphs.find(predicted.served.weights), data)
    except CorruptFile as error:
        raise Conflict(f"{record.path}: {error.detail}", fix="reproduce the experiment") from error
    [logits] = compute_logits(session, [predicted.pixels])
    if not np.isfinite(logits).all():
        raise Conflict(f"the weights of epoch {epoch} give no finite prediction", fix="train at a lower learning rate")
    return None if epoch is None else (int(epoch), softmax(logits[None])[0])


def spans_of(right: Sequence[bool]) -> Iterator[tuple[int, int, bool]]:
    """Runs of equal answers: first place, last place, answer."""
    place = 0
    for answer, group in itertools.groupby(right):
        count = sum(1 for _ in group)
        yield place, place + count - 1, answer
        place += count
