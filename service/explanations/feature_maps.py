"""Computes a layer's outputs for one image, by a worker."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from models.errors import Conflict, InvalidRequest
from models.store import Store, experiments
from service.explanations.ask import Explainer, unpack
from service.explanations.predicted_image import PredictedImage, predict_image
from service.http.access import Caller
from service.http.uploads import Upload
from service.predictions.predict import PredictionQueue
from service.predictions.predictor import Predictor


@dataclass(frozen=True, slots=True)
class FeatureMaps:
    """A layer's outputs (maps, height, width) for an image, as they are drawn."""

    predicted: PredictedImage
    layer: str
    shape: tuple[int, ...]
    """Of all of them: more maps, and larger ones, than are drawn."""
    maps: NDArray[np.float64]


async def compute_feature_maps(
    store: Store,
    predictor: Predictor,
    queue: PredictionQueue,
    explainer: Explainer,
    caller: Caller,
    whose: str,
    experiment_id: int,
    which: str,
    uploads: Sequence[Upload],
    layer: str | None,
) -> FeatureMaps:
    """Have a worker compute a layer's outputs. Raises as `explain` does, and InvalidRequest for an unknown layer."""
    chosen = await queue.threads.run(_find_layer, store, experiment_id, layer)
    async with queue.pieces.request(whose):
        predicted = await predict_image(predictor, queue, whose, experiment_id, which, uploads)
    answer = await explainer.ask(predicted, caller, {"layer": chosen})
    return FeatureMaps(predicted, chosen, tuple(answer["full_shape"]), unpack(answer))


def _find_layer(store: Store, experiment_id: int, given: str | None) -> str:
    with store.reading() as session:
        layers = experiments.get(session, experiment_id).layers or []
    names = [str(layer["name"]) for layer in layers]
    if not names:
        raise Conflict("this experiment's network has no known layers")
    if given is None:
        return next((str(layer["name"]) for layer in layers if layer.get("kernel_shape")), names[0])
    if given in names:
        return given
    if given.isascii() and given.isdecimal() and len(given) <= 6 and int(given) < len(names):
        return names[int(given)]
    nearest = (get_close_matches(given[:100], names, n=1, cutoff=0.0) or names)[0]
    message = f"there is no layer '{given[:60]}'; it may be a layer's name or its number, 0 to {len(names) - 1}"
    entry = {"field": "layer", "message": message, "value": given[:100], "nearest": nearest}
    raise InvalidRequest(f"layer: {message}", fix="GET .../layers lists them", errors=[entry])
