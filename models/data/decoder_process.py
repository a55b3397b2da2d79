"""The process that decodes an import's images: `python -m models.data.decoder_process`.

It reads a line of configuration and batches of files from its standard input, writes each image's pixels into its row
of the array file, and sends back a result for each. A file that ends the process (a decoder's bug, too much memory or
time) counts as a broken file and does not end the import. This module has the format of both streams, for the sender
and the receiver.
"""

import contextlib
import errno
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.decoding import decode_upright, open_image, to_channels
from models.data.small_png import decode_together
from models.errors import ImageError

MODULE = "models.data.decoder_process"
MAX_SECONDS = 30.0
"""Limit on the processor time of one image."""
MAX_ADDRESS_SPACE = 3_000_000_000
"""Bytes. The largest pictures that are read take 1.1 GB, and a file may have 0.26 GB itself."""
REASON_BYTES = 300
HEAD = struct.Struct("<IB")
"""The header of a batch: the number of images, and the channels that the array files have at this time."""
IMAGE = struct.Struct("<QBI")
"""The header of one image: its row, whether it is of the test split, the bytes of the file."""
ANSWER = struct.Struct("<BIIH")
"""The outcome, the picture's width and height, and the length in bytes of the reason that follows."""


class Answer(IntEnum):
    """The outcome of one file: written, or why not."""

    WRITTEN = 0
    BROKEN = 1
    COLOURED = 2
    """Not written: the image, or one before it, is in colour and the array has one channel."""
    UNWRITTEN = 3
    """Not written: the disk is full, or fails. The reason is the errno."""


class File(NamedTuple):
    """A file to decode, and the row of the array that it goes into."""

    row: int
    test: bool
    name: str
    data: bytes


class Outcome(NamedTuple):
    """The outcome of decoding a file."""

    answer: Answer
    width: int = 0
    height: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Config:
    """A decoder's configuration: the first line that it reads."""

    side: int
    fit: str
    train: str
    test: str
    offset: int
    """Bytes before the first row, in both array files."""

    def to_line(self) -> bytes:
        """The line that a decoder reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


def send(stream: IO[bytes], files: Sequence[File], channels: int) -> None:
    """Write a batch."""
    heads = [HEAD.pack(len(files), channels), *(IMAGE.pack(file.row, file.test, len(file.data)) for file in files)]
    stream.write(b"".join(heads))
    for file in files:
        stream.write(file.data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[list[File], int]:
    """Read a batch and the channels to write it in; empty at the end of the stream, even within a batch."""
    if len(head := stream.read(HEAD.size)) < HEAD.size:
        return [], 0
    count, channels = HEAD.unpack(head)
    if len(heads := stream.read(count * IMAGE.size)) < count * IMAGE.size:
        return [], 0
    files = [File(row, bool(test), "", stream.read(size)) for row, test, size in IMAGE.iter_unpack(heads)]
    is_whole = all(len(file.data) == size for file, (_, _, size) in zip(files, IMAGE.iter_unpack(heads), strict=True))
    return (files, channels) if is_whole else ([], 0)


def answer(outcomes: Sequence[Outcome]) -> bytes:
    """The answer to a batch."""
    parts = []
    for one in outcomes:
        reason = one.reason.encode(errors="replace")[:REASON_BYTES]
        parts += [ANSWER.pack(one.answer, one.width, one.height, len(reason)), reason]
    return b"".join(parts)


def read_answer(stream: IO[bytes], count: int) -> list[Outcome]:
    """The answer to a batch of so many files, or to the first of them if the process ended before the others."""
    outcomes = []
    for _ in range(count):
        head = stream.read(ANSWER.size)
        if len(head) < ANSWER.size:
            break
        kind, width, height, length = ANSWER.unpack(head)
        outcomes.append(Outcome(Answer(kind), width, height, stream.read(length).decode(errors="replace")))
    return outcomes


class Decoder:
    """Decodes files into the rows of two array files."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._channels = 0
        self._coloured = False
        """Whether there was an image in colour while the array had one channel: all others will come again."""
        self._files: list[int] = []

    def use(self, channels: int) -> None:
        """Open the array files for rows of this many channels; they are new files if that number has changed."""
        if channels != self._channels:
            for file in self._files:
                os.close(file)
            self._files = [os.open(path, os.O_WRONLY) for path in (self._config.train, self._config.test)]
            self._channels = channels
            self._coloured = False

    def decode_all(self, files: Sequence[File]) -> Iterator[Outcome]:
        """Decode files and write their rows; small ones are decoded together. Each has MAX_SECONDS."""
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        ready = decode_together([file.data for file in files], self._config.side)
        for place, file in enumerate(files):
            signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
            yield self._write(file, ready[place], self._square) if place in ready else self.decode(file)

    def decode(self, file: File) -> Outcome:
        """Decode one file and write its row."""
        if self._coloured:
            return Outcome(Answer.COLOURED)
        try:
            image = open_image(file.data)
            pixels = decode_upright(
                image, self._config.side, grayscale=None if self._channels == 1 else False, fit=self._config.fit
            )
        except ImageError as error:
            return Outcome(Answer.BROKEN, reason=error.detail.removeprefix("image 1 "))
        return self._write(file, pixels, image.upright_size)

    @property
    def _square(self) -> tuple[int, int]:
        return self._config.side, self._config.side

    def _write(self, file: File, pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> Outcome:
        """Write a decoded picture, (side, side) or (side, side, 3), of a file with this width and height."""
        if self._coloured:
            return Outcome(Answer.COLOURED)
        if self._channels == 1 and pixels.ndim == 3:
            if (pixels != pixels[..., :1]).any():
                self._coloured = True
                return Outcome(Answer.COLOURED, *size)
            pixels = pixels[..., 0]
        row = pixels.tobytes() if self._channels == 1 else to_channels(pixels, self._channels).tobytes()
        try:
            done = os.pwrite(self._files[file.test], row, self._config.offset + file.row * len(row))
        except OSError as error:
            return Outcome(Answer.UNWRITTEN, reason=str(error.errno))
        if done < len(row):
            return Outcome(Answer.UNWRITTEN, reason=str(errno.ENOSPC))
        return Outcome(Answer.WRITTEN, *size)


def main() -> int:
    """Decode batches until the standard input ends, or the process at its other end does."""
    # ended by the system's default action, even inside a decoder: a handler in Python would wait for it to return
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the import, which then ends this
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody is left to read an answer: end at once, without a message
    with contextlib.suppress(ValueError, OSError):  # macOS does not take it
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    if not (line := sys.stdin.buffer.readline()).endswith(b"\n"):
        return 0  # started ahead, and not needed
    decoder = Decoder(Config(**json.loads(line)))
    while (batch := receive(sys.stdin.buffer))[0]:
        files, channels = batch
        decoder.use(channels)
        for outcome in decoder.decode_all(files):
            sys.stdout.buffer.write(answer([outcome]))
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
