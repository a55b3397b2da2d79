"""Predictions with stored weights: a few networks kept ready, and single requests answered in batches."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.errors import Conflict, CorruptFile, InvalidRequest
from models.settings import Settings
from models.store import Store
from service.predictions.batching import Batcher
from service.predictions.weights import READ_ATTEMPTS, Weights, find_record, read_weights

if TYPE_CHECKING:
    from torch import nn

MAX_NETWORKS = 6
MAX_BYTES = 600_000_000
"""What the networks that are kept may take together; the one in use is kept whatever it takes."""
THREADS = 1
"""Of torch, for predictions: training has the other cores, and one thread makes an answer repeatable to the bit."""


class Served:
    """Stored weights that predictions are made with: the file's content until the first prediction, then its network.

    So the API starts, and tells what images an experiment takes, without torch.
    """

    def __init__(self, weights: Weights, data: bytes) -> None:
        self.weights = weights
        self.num_bytes = len(data)
        self._data = data
        self._network: nn.Module | None = None

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
        """Probabilities of the classes for each image (channels, source_size, source_size). For one thread at a time.

        Raises CorruptFile if the weights are not of their network, Conflict if they give no finite answer.
        """
        from service.predictions.network import load_network, probabilities  # torch: two seconds, at the first one

        if self._network is None:
            self._network, self._data = load_network(self.weights, self._data), b""
        answers = probabilities(self._network, self.weights, images)
        if not all(np.isfinite(answer).all() for answer in answers):
            raise Conflict(
                f"the {self.weights.which} weights of experiment {self.weights.experiment_id} give no finite answer",
                fix="ask the best weights, or train at a lower learning rate",
            )
        return answers


class Predictor:
    """Answers predictions from any thread.

    served = predictor.find(42)                        which weights, and what they want an image to be
    image = decode_image(data, served.weights.preprocessing)
    [probabilities] = predictor.predict(served, [image])
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        max_batch: int = 32,
        linger_seconds: float = 0.005,
        capacity: int = 512,
    ) -> None:
        self._store = store
        self._experiments_dir = settings.experiments_dir
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], Served] = OrderedDict()
        self._batcher: Batcher[Served, NDArray[np.uint8], NDArray[np.float64]] = Batcher(
            _predict, max_batch=max_batch, linger_seconds=linger_seconds, capacity=capacity, name="predictions"
        )

    def find(self, experiment_id: int, which: str = "best") -> Served:
        """The weights to predict with: "best" or "last".

        Raises NotFound without such an experiment, Conflict before it has weights, CorruptFile if they are damaged.
        """
        for attempt in range(READ_ATTEMPTS):
            record = find_record(self._store, experiment_id, which)
            with self._lock:
                found = self._kept.get((experiment_id, which))
                if found is not None and found.weights.sha256 == record.sha256:
                    self._kept.move_to_end((experiment_id, which))
                    return found
                try:
                    return self._keep(Served(*read_weights(record, which, self._experiments_dir)))
                except CorruptFile:
                    # A run that goes on replaces the file first and its record after; the record follows at once.
                    if attempt + 1 == READ_ATTEMPTS:
                        raise
            time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def predict(self, served: Served, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
        """Probabilities of the classes for each image, in order; images are what `decode_image` gives.

        They do not depend on what else is asked at the same time, to the bit. Raises Unavailable with
        `retry_after_seconds` when too many images wait.
        """
        side = served.weights.preprocessing.source_size
        expected = (served.weights.preprocessing.channels, side, side)
        for image in images:
            if image.shape != expected:
                raise InvalidRequest(f"an image has the shape {image.shape}; this network takes {expected}")
        return self._batcher.submit(served, images)

    def close(self) -> None:
        """Stop predicting and forget the networks."""
        self._batcher.close()
        with self._lock:
            self._kept.clear()

    def _keep(self, served: Served) -> Served:
        self._kept.pop((served.weights.experiment_id, served.weights.which), None)  # an older version of the same
        self._kept[served.weights.experiment_id, served.weights.which] = served
        while len(self._kept) > 1 and (
            len(self._kept) > MAX_NETWORKS or sum(kept.num_bytes for kept in self._kept.values()) > MAX_BYTES
        ):
            self._kept.popitem(last=False)
        return served


def _predict(served: Served, images: list[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    import torch  # two seconds, spent in the batcher's thread at the first prediction

    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)  # nothing else in the API's process computes
    return served.predict(images)
