"""Predicts with stored weights; a few networks are kept in memory. Thread-safe."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from models.errors import CorruptFile, InvalidRequest
from models.evaluation.calibration import Calibration
from models.evaluation.judging import Judged, NotFinite, check_finite, judge
from models.settings import Settings
from models.store import Store
from models.store.stamps import Stamps
from service.predictions.calibration import find_calibration
from service.predictions.graphs import Graphs
from service.predictions.session import compute_logits, start_session
from service.predictions.weights import READ_ATTEMPTS, Weights, find_record, finite_other, read_weights

MAX_NETWORKS = 6
MAX_BYTES = 600_000_000
"""The most memory of all networks kept; the one in use is kept whatever its size."""


class Served:
    """Stored weights to predict with: the file's content until the first prediction, then an onnxruntime session."""

    def __init__(self, weights: Weights, data: bytes, find_graph: Callable[[Weights], bytes]) -> None:
        self.weights = weights
        self.num_bytes = len(data)
        self.stamp: int | None = None
        """The experiment's revision at which these were its weights, for sure."""
        self.calibration: Calibration | None = None
        """What was fitted for these weights when their run ended."""
        self.fastest_seconds = inf
        """The shortest time that one image took; infinite before the first."""
        self._data = data
        self._find_graph = find_graph
        self._starting = threading.Lock()
        self._session: InferenceSession | None = None

    def judge(self, images: Sequence[NDArray[np.uint8]]) -> list[Judged]:
        """Predict images (channels, source_size, source_size). Thread-safe.

        Raises CorruptFile if the weights are not of their network, Conflict if they give no finite prediction.
        """
        session, began = self._session or self._start(), time.perf_counter()
        answers = compute_logits(session, images)
        self.fastest_seconds = min(self.fastest_seconds, (time.perf_counter() - began) / max(1, len(images)))
        check_finite(answers, self.weights.which, self.weights.experiment_id)
        return judge(images, answers, self.calibration)

    def _start(self) -> InferenceSession:
        with self._starting:
            if self._session is None:
                try:
                    self._session = start_session(self._find_graph(self.weights), self._data)
                except CorruptFile as error:
                    whose = f"the {self.weights.which} weights of experiment {self.weights.experiment_id}"
                    raise CorruptFile(f"{whose} do not fit its network") from error
                self._data = b""
            return self._session


class Predictor:
    """Finds weights and predicts. Thread-safe.

    served = predictor.find(42)                        which weights, and what they want an image to be
    image = decode_image(data, served.weights.preprocessing)
    [judged] = predictor.judge(served, [image])
    """

    def __init__(self, store: Store, settings: Settings, stamps: Stamps | None = None) -> None:
        self._store = store
        self._stamps = stamps
        self._experiments_dir = settings.experiments_dir
        self.graphs = Graphs(store, settings.experiments_dir)
        self._reading = threading.Lock()
        """Held while a file is read, so that requests at once read it once."""
        self._lock = threading.Lock()
        """Held for a moment, by the event loop's thread too."""
        self._kept: OrderedDict[tuple[int, str], Served] = OrderedDict()

    def ready(self, experiment_id: int, which: str) -> Served | None:
        """The result of `find` if it is cached and valid, without reading the database. For the event loop's thread."""
        found = self._get(experiment_id, which)
        if found is None or found.stamp is None or found.stamp != self.stamp(experiment_id):
            return None
        return found

    def find(self, experiment_id: int, which: str = "best", stamp: int | None = None) -> Served:
        """The weights to predict with: "best" or "last". `stamp` is the experiment's from before this call.

        Raises NotFound without such an experiment, Conflict before it has weights, CorruptFile if they are damaged.
        """
        served = self._find(experiment_id, which)
        if served.calibration is None:  # the run may have ended since
            digest = served.weights.sha256
            served.calibration = find_calibration(self._store, experiment_id, digest, self._experiments_dir)
        if stamp is not None:
            served.stamp = stamp
        return served

    def _find(self, experiment_id: int, which: str) -> Served:
        for attempt in range(READ_ATTEMPTS):
            record = find_record(self._store, experiment_id, which)
            with self._reading:
                found = self._get(experiment_id, which)
                if found is not None and found.weights.sha256 == record.sha256:
                    return found
                try:
                    return self._keep(Served(*read_weights(record, which, self._experiments_dir), self.graphs.find))
                except CorruptFile:
                    # A run that goes on replaces the file first and its record after; the record follows at once.
                    if attempt + 1 == READ_ATTEMPTS:
                        raise
            time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def judge(self, served: Served, images: Sequence[NDArray[np.uint8]]) -> list[Judged]:
        """The predictions for images from `decode_image`, in order.

        Results are bit-identical whatever other predictions run at the same time.
        """
        side = served.weights.preprocessing.source_size
        expected = (served.weights.preprocessing.channels, side, side)
        for image in images:
            if image.shape != expected:
                raise InvalidRequest(f"an image has the shape {image.shape}; this network takes {expected}")
        try:
            return served.judge(images)
        except NotFinite as error:
            number, which = served.weights.experiment_id, served.weights.which
            if (other := finite_other(self._store, number, which, self._experiments_dir)) is not None:
                error.fix = f"its {other} weights are finite: ask experiment {number} with weights={other}"
            raise

    def close(self) -> None:
        """Release the networks."""
        with self._lock:
            self._kept.clear()

    def stamp(self, experiment_id: int) -> int | None:
        """The experiment's change number (models.store.stamps); None if unknown. For the event loop's thread."""
        return None if self._stamps is None else self._stamps.of_experiment(experiment_id)

    def _get(self, experiment_id: int, which: str) -> Served | None:
        with self._lock:
            found = self._kept.get((experiment_id, which))
            if found is not None:
                self._kept.move_to_end((experiment_id, which))
            return found

    def _keep(self, served: Served) -> Served:
        with self._lock:
            self._kept.pop((served.weights.experiment_id, served.weights.which), None)  # an older version of the same
            self._kept[served.weights.experiment_id, served.weights.which] = served
            while len(self._kept) > 1 and (
                len(self._kept) > MAX_NETWORKS or sum(kept.num_bytes for kept in self._kept.values()) > MAX_BYTES
            ):
                self._kept.popitem(last=False)
        return served
