"""From images that somebody sent to labels and probabilities."""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from models.errors import Conflict, CorruptFile
from service.documents import Document
from service.inference.decoding import decode_image
from service.inference.predictor import Predictor, Served
from service.uploads import Upload


class Likely(Document):
    """One class and how probable it is."""

    label: str
    index: int
    probability: float


class Prediction(Document):
    """What one image shows, as far as the network can tell."""

    image: str = Field(description="The part's file name.")
    index: int = Field(description="Its place among the parts, from 0.")
    label: str
    probability: float
    top: list[Likely] = Field(description="The most probable classes, best first.")


class PredictionsDocument(Document):
    """Predictions, in the order the images were sent."""

    experiment_id: int
    weights: str
    epoch: int | None = Field(description="The epoch that the weights are of.")
    predictions: list[Prediction]


def predict(
    predictor: Predictor, experiment_id: int, which: str, uploads: Sequence[Upload], top_k: int
) -> PredictionsDocument:
    """Decode and predict. Raises ImageError, which names the image, or Conflict where there are no usable weights."""
    served = _find(predictor, experiment_id, which)
    wanted = served.weights.preprocessing
    images = [decode_image(upload.data, wanted, index=index, name=upload.name) for index, upload in enumerate(uploads)]
    probabilities = predictor.predict(served, images)
    return PredictionsDocument(
        experiment_id=experiment_id,
        weights=which,
        epoch=served.weights.epoch,
        predictions=[
            _prediction(index, upload.name, values, wanted.class_names, top_k)
            for index, (upload, values) in enumerate(zip(uploads, probabilities, strict=True))
        ],
    )


def _find(predictor: Predictor, experiment_id: int, which: str) -> Served:
    try:
        return predictor.find(experiment_id, which)
    except CorruptFile as error:
        other = "last" if which == "best" else "best"
        raise Conflict(
            f"{error.detail}, so they are not used",
            fix=f"use weights={other}, or resume or reproduce the experiment",
        ) from error


def _prediction(index: int, name: str, probabilities: np.ndarray, class_names: Sequence[str], top_k: int) -> Prediction:
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    top = [
        Likely(label=class_names[place], index=int(place), probability=float(probabilities[place])) for place in best
    ]
    return Prediction(image=name, index=index, label=top[0].label, probability=top[0].probability, top=top)
