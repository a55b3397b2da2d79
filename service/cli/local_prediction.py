"""Predicts images of this machine with a downloaded network, on all cores, by the functions that the lab predicts with.

On processes, since threads would wait for Python's global interpreter lock. On Linux they are forked when the network
is ready, and share its weights with the process that forks them (service.cli.predicting).
"""

import multiprocessing
import os
import signal
import stat
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from numpy.typing import NDArray

from models.cores import usable_cores
from models.data.decoding import decode_image, open_image, to_channels
from models.data.small_png import decode_together
from models.errors import ImageError
from models.evaluation.judging import Judged, check_finite, judge
from service.cli.prediction_table import Row, cell, failed_row
from service.export.served import About, unpack
from service.lab.tether import end_with
from service.predictions.session import compute_logits

MAX_FILE_BYTES = 500_000_000
"""The largest pictures that are read have 330 MB: a BMP of 110 million pixels."""
VALUES_AT_ONCE, MOST_AT_ONCE = 200_000, 64
"""Pixel values of the images that a process is given at once: 64 of 32 x 32, one of 224 x 224. It predicts them within
some tenths of a second, which is how often rows are written."""
SMALL_FILE_BYTES = 20_000
"""Files up to this size are kept until all of a batch have been read, to be decoded together; larger ones are decoded
one by one, so that a batch of photos does not fill the memory."""
AHEAD = 8
"""Batches for each process that may be finished before an older one is."""


class LocalNetwork:
    """A downloaded network, ready to predict files of this machine."""

    def __init__(self, content: bytes) -> None:
        """Read what `service.export.served.pack` made. Raises CorruptFile for anything else."""
        self.content = content
        self.about, self._session = unpack(content)
        self.by = name_of(self.about)
        self._labels = [cell(name) for name in self.about.preprocessing.class_names]

    @property
    def batch_size(self) -> int:
        """How many images are predicted at once."""
        seen = self.about.preprocessing
        return min(MOST_AT_ONCE, max(1, VALUES_AT_ONCE // (3 * max(seen.source_size, seen.input_size) ** 2)))

    def classify(self, folder: str, names: Sequence[str], top_k: int) -> list[Row]:
        """The rows of files in a folder; one that cannot be read has a row that says why.

        Raises Conflict if the weights give no finite prediction.
        """
        rows, images = dict[str, Row](), dict[str, NDArray[np.uint8]]()
        for name, found in self._read(folder, names):
            if isinstance(found, str):
                rows[name] = failed_row(name, found, top_k)
            else:
                images[name] = found
        pixels = list(images.values())
        logits = compute_logits(self._session, pixels)
        check_finite(logits, self.about.weights, self.about.experiment_id)
        for name, judged in zip(images, judge(pixels, logits, self.about.calibration), strict=True):
            rows[name] = self._row(name, judged, top_k)
        return [rows[name] for name in names]

    def _read(self, folder: str, names: Sequence[str]) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
        """Yield each file's pixels (C, S, S), or why it has none; small files last, since they are decoded together."""
        small = dict[str, bytes]()
        for name in names:
            try:
                data = read_file(os.path.join(folder, name))
            except OSError as error:
                yield name, f"cannot be read: {error.strerror or error}"
                continue
            if len(data) <= SMALL_FILE_BYTES:
                small[name] = data
            else:
                yield name, self._decode(data)
        wanted = self.about.preprocessing
        together = decode_together(list(small.values()), wanted.source_size)
        for place, (name, data) in enumerate(small.items()):
            square = together.get(place)
            if square is None or (wanted.grayscale and square.ndim == 3):
                yield name, self._decode(data)
            else:
                yield name, to_channels(square, wanted.channels)

    def _decode(self, data: bytes) -> NDArray[np.uint8] | str:
        """A file's pixels (C, S, S), or why it cannot be decoded."""
        try:
            image, wanted = open_image(data), self.about.preprocessing
            if not image.isolated:
                return decode_image(image, wanted)
            import anyio

            from models.data.isolated import decode_isolated

            return anyio.run(decode_isolated, image, wanted)
        except ImageError as error:
            return error.detail.removeprefix("image 1 ")

    def _row(self, name: str, judged: Judged, top_k: int) -> Row:
        """The row of an image, with the cells of `header_of`."""
        top = judged.top(top_k)
        calibrated = top[0][2]
        row = [
            cell(name),
            self.by,
            "" if calibrated is None else f"{calibrated:.6f}",
            "" if judged.known is None else str(judged.known).lower(),
        ]
        for index, probability, _ in top:
            row += self._labels[index], f"{probability:.6f}"
        return [*row, *[""] * (2 * (top_k - len(top))), ""]


def name_of(about: About) -> str:
    """The cell that tells by which network a row is."""
    model = f"{about.model} version {about.version}, " if about.model is not None else ""
    epoch = f" of epoch {about.epoch}" if about.epoch is not None else ""
    return cell(f"{model}experiment {about.experiment_id}, {about.weights} weights{epoch}")


def read_file(path: str) -> bytes:
    """A file's content. Raises OSError for one that is none, or too large for any picture."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    if found.st_size > MAX_FILE_BYTES:
        raise OSError(f"it has {found.st_size:,} bytes, of which at most {MAX_FILE_BYTES:,} are read")
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def classify_files(network: LocalNetwork, folder: str, names: Sequence[str], top_k: int) -> Iterator[list[Row]]:
    """Yield the rows of files in a folder, some at a time, in order, as `LocalNetwork.classify` makes them.

    A file that ends the process which reads it (a bug of a decoder, too little memory) has a row that says so.
    """
    size, done = network.batch_size, 0
    while done < len(names):
        try:
            for rows in _in_order(network, folder, names[done:], top_k):
                yield rows
                done += len(rows)
        except BrokenProcessPool:
            suspects = names[done : done + size]
            yield [_classify_alone(network, folder, name, top_k) for name in suspects]
            done += len(suspects)


def _in_order(network: LocalNetwork, folder: str, names: Sequence[str], top_k: int) -> Iterator[list[Row]]:
    starts = deque(range(0, len(names), network.batch_size))
    num_processes = min(usable_cores(), len(starts))
    pool = _start_processes(network, num_processes)
    running = deque[Future[list[Row]]]()
    try:
        while starts or running:
            while starts and len(running) < AHEAD * num_processes:
                start = starts.popleft()
                running.append(pool.submit(_classify, folder, names[start : start + network.batch_size], top_k))
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _classify_alone(network: LocalNetwork, folder: str, name: str, top_k: int) -> Row:
    try:
        with _start_processes(network, 1) as pool:
            return pool.submit(_classify, folder, [name], top_k).result()[0]
    except BrokenProcessPool:
        return failed_row(name, "ends the process that decodes it: it is damaged, or needs too much memory", top_k)


_network: LocalNetwork | None = None
"""In each process: forked ones find it here, others make it of the same content."""


def _start_processes(network: LocalNetwork, count: int) -> ProcessPoolExecutor:
    global _network
    _network = network
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    return ProcessPoolExecutor(count, context, _start, (os.getpid(), network.content))


def _start(parent: int, content: bytes) -> None:
    """Begin a process, which ends with its parent and leaves Ctrl-C to it."""
    global _network
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent)
    _network = _network or LocalNetwork(content)


def _classify(folder: str, names: Sequence[str], top_k: int) -> list[Row]:
    assert _network is not None
    return _network.classify(folder, names, top_k)
