"""Predictions: uploaded images to labels and probabilities."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from anyio import to_thread
from fastapi import Request
from numpy.typing import NDArray
from pydantic import Field
from starlette.responses import Response

from models.cores import usable_cores
from models.data.decoding import BASELINE_SAVING, MILLION, ImageFile, decode_image, open_image
from models.data.isolated import decode_isolated
from models.errors import Conflict, CorruptFile, TooLarge
from models.evaluation.judging import Judged
from service.http.disconnect import while_connected
from service.http.documents import Document, respond
from service.http.queues import BoundedQueue
from service.http.quotas import RateLimiter
from service.http.uploads import Upload, UploadMemory
from service.predictions.fair_queue import FairQueue
from service.predictions.predictor import Predictor, Served

MAX_REQUEST_PIXELS = 240 * MILLION
PIXELS_PER_MINUTE = 2_400 * MILLION
"""Of one caller. Decoding takes 3 (baseline JPEG, counted 1/4) to 70 ns a pixel (WebP) of one core."""
PIECE_PIXELS = 4 * MILLION
"""The most work in one turn, about 0.1 s, which is how long another caller waits for a place."""
NETWORK_COST = 30
"""Pixels of decoding that take as long as a network does for one pixel of its input (SqueezeNet at 224: 20 ms)."""
INLINE_BYTES = 200_000
"""Of images whose headers are read at once; those of more are read in a thread."""
CLASSES_AT_ONCE = 2_000
"""Classes named in an answer that is put together in the event loop, in some milliseconds; longer ones in a thread."""
AT_ONCE_FORMATS = ("PNG", "JPEG", "BMP", "GIF")
AT_ONCE_BYTES, AT_ONCE_PIXELS, AT_ONCE_SECONDS = 32_000, 8_000, 0.0005
"""Limits of a request that is decoded and predicted in the event loop: handing it to a thread would take as long."""


class Likely(Document):
    """One class and its probability."""

    label: str
    index: int
    probability: float
    calibrated_probability: float | None = Field(
        description="With the temperature that was fitted when the run ended; null where there is none for the weights."
    )


class Prediction(Document):
    """The prediction for one image."""

    image: str = Field(description="The part's file name.")
    index: int = Field(description="Its place among the parts, from 0.")
    label: str
    probability: float
    calibrated_probability: float | None
    energy: float = Field(description="-log(sum(exp(logits))): the higher, the less sure the network is.")
    unknown_score: float | None = Field(
        description="How unlike the validation images it is, by its pixels and energy; null where nothing was fitted."
    )
    known: bool | None = Field(
        description="Whether its score is at most that of 95% of the validation images; null where nothing was fitted."
    )
    top: list[Likely] = Field(description="The most probable classes, best first.")


class Timings(Document):
    """The time of a request by part, in milliseconds; parts may overlap with other requests' work."""

    decode_ms: float = Field(description="From files to pixels.")
    wait_ms: float = Field(description="Waiting for a turn among all requests.")
    forward_ms: float = Field(description="The network.")


class PredictionsDocument(Document):
    """Predictions, in the order the images were sent."""

    model: str | None = Field(
        default=None, description="The model's name in the request; null if an experiment was named."
    )
    version: int | None = Field(default=None, description="The version of that name.")
    experiment_id: int
    weights: str
    epoch: int | None = Field(description="The epoch that the weights are of.")
    timings: Timings
    predictions: list[Prediction]


class Stopwatch:
    """Adds up how long a request spends on each of its parts, one part at a time."""

    def __init__(self) -> None:
        self._seconds = {"decode": 0.0, "wait": 0.0, "forward": 0.0}
        self._running = ""
        self._since = 0.0

    def start(self, part: str) -> None:
        """Count the time from now on as decode, wait or forward."""
        self.stop()
        self._running, self._since = part, time.perf_counter()

    def stop(self) -> None:
        """Stop counting until the next start."""
        if self._running:
            self._seconds[self._running] += time.perf_counter() - self._since
        self._running = ""

    def read(self) -> Timings:
        """The times counted so far."""
        return Timings(**{f"{part}_ms": round(1000 * seconds, 3) for part, seconds in self._seconds.items()})


class PredictionQueue:
    """Limits of predictions (bytes held, pixels decoded, requests) and their fair queue."""

    def __init__(self) -> None:
        cores = usable_cores()
        self.room = UploadMemory(max_bytes=512 * MILLION, max_share=256 * MILLION)
        self.pieces = FairQueue(places=cores + 1, large_places=1, max_requests=128, max_share=64)
        self.threads = BoundedQueue("predictions", places=cores + 2)
        self._pixels = RateLimiter("million pixels of images per minute", capacity=PIXELS_PER_MINUTE, seconds=60)

    def count_pixels(self, caller: str, images: Sequence[ImageFile]) -> None:
        """Charge images to a caller. Raises TooLarge past a request's budget, TooManyRequests past the caller's."""
        total = sum(image.cost for image in images)
        if total > MAX_REQUEST_PIXELS:
            raise TooLarge(
                f"the images have {total // MILLION:,} million pixels together, of which at most "
                f"{MAX_REQUEST_PIXELS // MILLION} million are read in one request "
                f"(those of baseline JPEGs count 1/{BASELINE_SAVING})",
                fix="send fewer images in a request, or scale them down",
            )
        self._pixels.take(caller, total)

    def count_work(self, caller: str, pixels: int) -> None:
        """Charge other work of a network to a caller, as so many pixels. Raises TooManyRequests."""
        self._pixels.take(caller, pixels)


async def find_served(predictor: Predictor, queue: PredictionQueue, experiment_id: int, which: str) -> Served:
    """The weights to predict with. Raises NotFound or Conflict."""
    served = predictor.ready(experiment_id, which)
    if served is None:
        stamp = predictor.stamp(experiment_id)
        served = await queue.threads.run(_find, predictor, experiment_id, which, stamp)
    return served


async def predict_while_connected(
    request: Request, caller: str, experiment_id: int, which: str, uploads: Sequence[Upload], top_k: int
) -> PredictionsDocument:
    """Decode and predict, at once if that is quick, else as `predict` until the client has gone.

    Raises what `predict` raises, and ClientDisconnect.
    """
    predictor, queue = request.app.state.predictor, request.app.state.predictions
    served = predictor.ready(experiment_id, which)
    if served is not None and _is_quick(served, uploads):
        images, clock = _open(uploads), Stopwatch()
        if sum(image.cost for image in images) <= AT_ONCE_PIXELS and all(map(_is_plain, images)):
            queue.count_pixels(caller, images)
            return _document(served, uploads, _answer(predictor, served, images, (), clock), clock, top_k)
    return await while_connected(request, predict(predictor, queue, caller, experiment_id, which, uploads, top_k))


def _is_plain(image: ImageFile) -> bool:
    """Whether decoding takes no longer than the number of its pixels says."""
    return image.header.file_format in AT_ONCE_FORMATS and not image.header.progressive


def _is_quick(served: Served, uploads: Sequence[Upload]) -> bool:
    """Whether files of this size and number may be looked at, and predicted, in the event loop's thread."""
    small = sum(len(upload.data) for upload in uploads) <= AT_ONCE_BYTES
    return small and len(uploads) * served.fastest_seconds <= AT_ONCE_SECONDS


async def predict(
    predictor: Predictor,
    queue: PredictionQueue,
    caller: str,
    experiment_id: int,
    which: str,
    uploads: Sequence[Upload],
    top_k: int,
) -> PredictionsDocument:
    """Decode and predict, piece by piece, in turn with other callers' requests. Work stops when this is cancelled.

    Raises ImageError, which names the image; TooLarge, TooManyRequests or Unavailable past a bound; Conflict where
    there are no usable weights.
    """
    clock = Stopwatch()
    async with queue.pieces.request(caller):
        served = await find_served(predictor, queue, experiment_id, which)
        if sum(len(upload.data) for upload in uploads) <= INLINE_BYTES:
            images = _open(uploads)
        else:
            images = await queue.threads.run(_open, uploads)
        queue.count_pixels(caller, images)
        wanted = served.weights.preprocessing
        judged: list[Judged] = []
        for piece in _pieces(images, NETWORK_COST * wanted.input_size**2):
            clock.start("wait")
            async with queue.pieces.place(caller, piece.cost, large=piece.large):
                clock.start("decode")
                decoded = [await decode_isolated(image, wanted) for image in piece.images if image.isolated]
                clock.start("wait")
                judged += await queue.threads.run(_answer, predictor, served, piece.images, decoded, clock)
        if len(judged) * min(top_k, len(wanted.class_names)) > CLASSES_AT_ONCE:
            return await queue.threads.run(_document, served, uploads, judged, clock, top_k)
    return _document(served, uploads, judged, clock, top_k)


async def respond_predictions(document: PredictionsDocument) -> Response:
    """Serialise predictions, many of them in a thread."""
    if sum(len(prediction.top) for prediction in document.predictions) > CLASSES_AT_ONCE:
        return await to_thread.run_sync(respond, document)
    return respond(document)


def _document(
    served: Served, uploads: Sequence[Upload], judged: Sequence[Judged], clock: Stopwatch, top_k: int
) -> PredictionsDocument:
    class_names = served.weights.preprocessing.class_names
    return PredictionsDocument(
        experiment_id=served.weights.experiment_id,
        weights=served.weights.which,
        epoch=served.weights.epoch,
        timings=clock.read(),
        predictions=[
            _prediction(index, upload.name, one, class_names, top_k)
            for index, (upload, one) in enumerate(zip(uploads, judged, strict=True))
        ],
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """The images decoded and predicted in one turn: one large image, or a few small ones."""

    images: list[ImageFile]
    cost: int

    @property
    def large(self) -> bool:
        return self.cost > PIECE_PIXELS


def _pieces(images: Sequence[ImageFile], network_cost: int) -> Iterator[_Piece]:
    """The images in order, in pieces of at most PIECE_PIXELS each where single images allow it."""
    piece, cost = list[ImageFile](), 0
    for image in images:
        own = image.cost + network_cost
        if piece and cost + own > PIECE_PIXELS:
            yield _Piece(piece, cost)
            piece, cost = [], 0
        piece.append(image)
        cost += own
    if piece:
        yield _Piece(piece, cost)


def _open(uploads: Sequence[Upload]) -> list[ImageFile]:
    return [open_image(upload.data, index=index, name=upload.name) for index, upload in enumerate(uploads)]


def _answer(
    predictor: Predictor,
    served: Served,
    images: Sequence[ImageFile],
    isolated: Sequence[NDArray[np.uint8]],
    clock: Stopwatch,
) -> list[Judged]:
    """Decode what was not decoded in a process of its own, and predict."""
    clock.start("decode")
    done = iter(isolated)
    pixels = [next(done) if image.isolated else decode_image(image, served.weights.preprocessing) for image in images]
    clock.start("forward")
    with only_whole(served.weights.which):
        judged = predictor.judge(served, pixels)
    clock.stop()
    return judged


def _find(predictor: Predictor, experiment_id: int, which: str, stamp: int | None) -> Served:
    with only_whole(which):
        return predictor.find(experiment_id, which, stamp)


@contextmanager
def only_whole(which: str) -> Iterator[None]:
    """Turn CorruptFile, for damaged or wrong weights, into a Conflict that says what to do."""
    try:
        yield
    except CorruptFile as error:
        other = "last" if which == "best" else "best"
        raise Conflict(
            f"{error.detail}, so they are not used",
            fix=f"use weights={other}, or resume or reproduce the experiment",
        ) from error


def _prediction(index: int, name: str, judged: Judged, class_names: Sequence[str], top_k: int) -> Prediction:
    top = [
        Likely(label=class_names[place], index=place, probability=probability, calibrated_probability=calibrated)
        for place, probability, calibrated in judged.top(top_k)
    ]
    return Prediction(
        image=name,
        index=index,
        label=top[0].label,
        probability=top[0].probability,
        calibrated_probability=top[0].calibrated_probability,
        energy=judged.energy,
        unknown_score=judged.unknown_score,
        known=judged.known,
        top=top,
    )
