"""Requests computations that need torch from a worker: explanations by gradients, and a layer's outputs."""

import base64
import time
from typing import cast

import anyio
import numpy as np
from anyio import to_thread
from celery import Celery
from numpy.typing import NDArray

from models.errors import Conflict, InvalidRequest, Unavailable
from models.measurements import ExplanationRefused, ExplanationResult, Question, Wanted
from models.spec.parse import load_spec
from models.store import Store, experiments, measurements
from models.store.states import MeasurementKind, MeasurementStatus
from models.store.tables import Measurement
from service.explanations.predicted_image import PredictedImage
from service.health.check import live_worker_names
from service.http.access import Caller
from service.http.queues import BoundedQueue
from service.predictions.weights import find_record

SECONDS = 60.0
POLL_SECONDS = 0.1
PER_KEY = 3
"""The most requests of one key; 8 of all keys may wait at once."""


class Explainer:
    """Stores a request as a measurement for the workers and waits for the answer."""

    def __init__(self, store: Store, celery: Celery, writes: BoundedQueue) -> None:
        self._store = store
        self._celery = celery
        self._writes = writes
        self.queue = BoundedQueue("explanations", places=8, share=PER_KEY, max_waiting=0, retry_after_seconds=5)

    async def ask(self, predicted: PredictedImage, caller: Caller, wanted: Wanted) -> ExplanationResult:
        """The worker's answer about an image.

        Raises Unavailable where no worker answers in time or it fails, Conflict where the weights have changed,
        InvalidRequest where the network has nothing of the kind.
        """
        if not await to_thread.run_sync(live_worker_names, self._store, self._celery):
            raise Unavailable(
                "no worker is running, and gradients and layers' outputs are computed by one",
                fix="start one (`epochal up`, or `epochal worker`), or use method=occlusion, which needs none",
                retry_after_seconds=10,
            )
        async with self.queue.place(caller.name):
            number = await self._writes.run(self._create, predicted, caller, wanted)
            try:
                with anyio.move_on_after(SECONDS):
                    return await self._answer(number)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._writes.run(self._remove, number)
        raise Unavailable(f"no worker answered within {SECONDS:g} s", fix="try again", retry_after_seconds=10)

    async def _answer(self, number: int) -> ExplanationResult:
        ends = time.monotonic() + 2 * SECONDS  # the caller's limit comes first
        while time.monotonic() < ends:
            found = await to_thread.run_sync(self._read, number)
            if found.status is MeasurementStatus.COMPLETED:
                result = cast(ExplanationResult | ExplanationRefused, found.result)
                if "refused" in result:
                    raise InvalidRequest(result["refused"], fix=result["fix"])
                return result
            if found.status is MeasurementStatus.FAILED:
                raise Unavailable(f"the worker could not compute it: {found.reason}", fix="its log may say more")
            await anyio.sleep(POLL_SECONDS)
        raise AssertionError("unreachable")

    def _create(self, predicted: PredictedImage, caller: Caller, wanted: Wanted) -> int:
        weights = predicted.served.weights
        record = find_record(self._store, weights.experiment_id, weights.which)
        if record.sha256 != weights.sha256:
            raise Conflict("the weights have just changed", fix="send it again")
        pixels = base64.b64encode(predicted.pixels.tobytes()).decode()
        options: Question = {"weights": record.path, "sha256": record.sha256, "pixels": pixels, **wanted}
        with self._store.writing() as session:
            spec = load_spec(experiments.get(session, weights.experiment_id).spec)
            return measurements.create(session, MeasurementKind.EXPLANATION, spec, options, caller.name).id

    def _read(self, number: int) -> Measurement:
        with self._store.reading() as session:
            return measurements.get(session, number)

    def _remove(self, number: int) -> None:
        with self._store.writing() as session:
            measurements.remove(session, number)


def unpack(answer: ExplanationResult) -> NDArray[np.float64]:
    """Decode the numbers in a worker's answer. Raises Conflict if they are not finite."""
    values = np.frombuffer(base64.b64decode(answer["values"]), np.float32).astype(np.float64).reshape(answer["shape"])
    if not np.isfinite(values).all():
        raise Conflict("the weights give no finite explanation", fix="train at a lower learning rate")
    return values
