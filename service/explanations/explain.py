"""Computes which pixels a prediction depends on, by one of three methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from service.explanations.ask import Explainer, unpack
from service.explanations.occlusion import covered, relevance, windows_of
from service.explanations.predicted_image import PredictedImage, logit, predict_image
from service.http.access import Caller
from service.http.documents import Document
from service.http.uploads import Upload
from service.predictions.predict import NETWORK_COST, PIECE_PIXELS, PredictionQueue, only_whole
from service.predictions.predictor import Predictor


class Method(StrEnum):
    """How an explanation is computed."""

    OCCLUSION = "occlusion"
    """The fall of the class's logit when a part is covered."""
    GRAD_CAM = "grad_cam"
    """Where the last feature map supports the class; computed by a worker."""
    INTEGRATED_GRADIENTS = "integrated_gradients"
    """What each pixel adds to the class's logit; computed by a worker."""


class ExplanationDocument(Document):
    """The relevance of each pixel for the target class: above 0 where the pixel supports it."""

    experiment_id: int
    weights: str
    epoch: int | None
    image: str
    method: Method
    label: str = Field(description="The predicted class.")
    target: str = Field(description="The class that is explained.")
    target_index: int
    probability: float = Field(description="Of the target.")
    logit: float = Field(description="Of the target.")
    width: int
    height: int
    map: list[list[float]] = Field(description="A row of pixels each, of the image as the network gets it.")


@dataclass(frozen=True, slots=True)
class Explained:
    """An image with its map (side, side)."""

    predicted: PredictedImage
    method: Method
    target: int
    map: NDArray[np.float64]

    def document(self) -> ExplanationDocument:
        """Build the JSON document."""
        predicted, weights = self.predicted, self.predicted.served.weights
        return ExplanationDocument(
            experiment_id=weights.experiment_id,
            weights=weights.which,
            epoch=weights.epoch,
            image=predicted.name,
            method=self.method,
            label=predicted.class_names[predicted.predicted_class],
            target=predicted.class_names[self.target],
            target_index=self.target,
            probability=float(predicted.judged.probabilities[self.target]),
            logit=logit(predicted.judged, self.target),
            width=self.map.shape[1],
            height=self.map.shape[0],
            map=[[float(f"{value:.6g}") for value in row] for row in self.map],
        )


async def explain(
    predictor: Predictor,
    queue: PredictionQueue,
    explainer: Explainer,
    caller: Caller,
    whose: str,
    experiment_id: int,
    which: str,
    uploads: Sequence[Upload],
    method: Method,
    target: str | None,
) -> Explained:
    """Explain the prediction of one image.

    Raises what predictions raise; InvalidRequest for an unknown class; Unavailable if a worker is needed and none
    answers.
    """
    async with queue.pieces.request(whose):
        predicted = await predict_image(predictor, queue, whose, experiment_id, which, uploads)
        number = predicted.target(target)
        if method is Method.OCCLUSION:
            return Explained(predicted, method, number, await _occlude(predictor, queue, whose, predicted, number))
    answer = await explainer.ask(predicted, caller, {"method": method.value, "target": number})
    return Explained(predicted, method, number, unpack(answer))


async def _occlude(
    predictor: Predictor, queue: PredictionQueue, whose: str, predicted: PredictedImage, target: int
) -> NDArray[np.float64]:
    """Predict with one window covered after another, a few windows per turn in the queue."""
    wanted = predicted.served.weights.preprocessing
    windows = windows_of(wanted.source_size)
    cost = NETWORK_COST * wanted.input_size**2
    queue.count_work(whose, cost * len(windows))
    whole, falls = logit(predicted.judged, target), list[float]()
    together = max(1, PIECE_PIXELS // cost)
    for start in range(0, len(windows), together):
        some = windows[start : start + together]

        def judge(some: Sequence[tuple[slice, slice]] = some) -> list[float]:
            images = list(covered(predicted.pixels, some, wanted))
            with only_whole(predicted.served.weights.which):
                return [whole - logit(one, target) for one in predictor.judge(predicted.served, images)]

        async with queue.pieces.place(whose, cost * len(some)):
            falls += await queue.threads.run(judge)
    return relevance(wanted.source_size, windows, falls)
