"""One uploaded image with its prediction, which explanations, feature maps and timelines begin with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.decoding import ImageFile, decode_image, open_image
from models.data.isolated import decode_isolated
from models.errors import InvalidRequest
from models.evaluation.judging import Judged
from service.evaluation.read import class_number
from service.http.uploads import Upload
from service.predictions.predict import NETWORK_COST, PredictionQueue, find_served, only_whole
from service.predictions.predictor import Predictor, Served

ONE_IMAGE = "curl -F image=@cat.png ADDRESS"
TINY = 1e-300


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """A decoded image and its prediction."""

    name: str
    pixels: NDArray[np.uint8]
    """(channels, side, side)."""
    served: Served
    judged: Judged

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in order."""
        return self.served.weights.preprocessing.class_names

    @property
    def predicted_class(self) -> int:
        """The most probable class."""
        return int(self.judged.probabilities.argmax())

    def target(self, given: str | None) -> int:
        """The class that a request names, or the predicted one. Raises InvalidRequest for an unknown class."""
        chosen = class_number("target", given, self.class_names)
        return self.predicted_class if chosen is None else chosen

    def picture(self) -> NDArray[np.uint8]:
        """The image as (side, side, 3)."""
        pixels = self.pixels.transpose(1, 2, 0)
        return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


async def predict_image(
    predictor: Predictor,
    queue: PredictionQueue,
    caller: str,
    experiment_id: int,
    which: str,
    uploads: Sequence[Upload],
) -> PredictedImage:
    """Decode and predict the image, in a turn of its own. Call it with a request admitted to the queue.

    Raises what a prediction raises, and InvalidRequest for any other number of images.
    """
    if len(uploads) != 1:
        raise InvalidRequest(f"there are {len(uploads)} images; a request takes one", fix=ONE_IMAGE)
    served = await find_served(predictor, queue, experiment_id, which)
    image = await queue.threads.run(open_upload, uploads[0])
    queue.count_pixels(caller, [image])
    wanted = served.weights.preprocessing
    cost = image.cost + NETWORK_COST * wanted.input_size**2
    async with queue.pieces.place(caller, cost, large=image.isolated):
        isolated = await decode_isolated(image, wanted) if image.isolated else None

        def answer() -> PredictedImage:
            pixels = decode_image(image, wanted) if isolated is None else isolated
            with only_whole(which):
                return PredictedImage(uploads[0].name, pixels, served, predictor.judge(served, [pixels])[0])

        return await queue.threads.run(answer)


def open_upload(upload: Upload) -> ImageFile:
    """Read the header. Raises ImageError, which names the image."""
    return open_image(upload.data, index=0, name=upload.name)


def logit(judged: Judged, target: int) -> float:
    """A class's logit, from its probability and the energy."""
    return float(np.log(max(judged.probabilities[target], TINY)) - judged.energy)
