"""Reads all images of a plan into array files, in batches, with a record from which an interrupted import continues."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.data.decoder_process import Answer, Config, File, Outcome
from models.data.importing.arrays import ImageFile, check_free_space
from models.data.importing.decoders import Decoders
from models.data.importing.names import shown
from models.data.importing.options import ImportOptions, OnBroken
from models.data.importing.plan import Plan
from models.data.importing.source import Source
from models.errors import ArchiveError
from models.files import flush, placing

RECORD = "reading.npz"
RECORD_SECONDS = 10.0
"""Seconds between two records: a killed import repeats at most that much."""
PROGRESS_SECONDS = 0.2
BATCH_IMAGES, FEWEST_IMAGES = 256, 16
"""Images that a decoder gets at once: as many as make handing them over cheap, and as few as keep all decoders busy."""
BATCHES_A_DECODER = 8
BATCH_BYTES = 1 << 20
"""Bytes that a decoder gets at once: a dozen photos, so that all decoders have work until the end."""
TO_DO = 255


class Reading:
    """Reads the images of a plan into two array files in the folder `work`."""

    def __init__(self, work: Path, source: Source, plan: Plan, options: ImportOptions, size: int) -> None:
        self._work, self._source, self._plan, self._options, self.size = work, source, plan, options, size
        self._digest = f"{plan.digest(source.listing.entries, options)} {size}"
        count = len(plan.entries)
        self.answers = np.full(count, TO_DO, dtype=np.uint8)
        self.sizes = np.zeros((count, 2), dtype=np.int32)
        """Width and height of each picture in its file."""
        self.reasons: dict[int, str] = {}
        """Why an image could not be read, by its place in the plan."""
        self.channels = 1
        """1 (gray) until the first image in colour, then 3."""
        self._place = {int(entry): place for place, entry in enumerate(plan.entries)}
        self._recorded = self._told = time.monotonic()

    @property
    def written(self) -> npt.NDArray[np.bool_]:
        """For each image of the plan, whether its pixels are in the array file."""
        return np.equal(self.answers, Answer.WRITTEN)

    @property
    def arrays(self) -> tuple[ImageFile, ImageFile]:
        """The array files of the training and the test split."""
        num_train = self._plan.num_train
        return self._file("train", num_train), self._file("test", len(self._plan.entries) - num_train)

    def _file(self, split: str, rows: int, channels: int | None = None) -> ImageFile:
        return ImageFile(self._work / f"{split}_images.npy", rows, channels or self.channels, self.size)

    def run(self, decoders: Decoders, progress: Callable[[str, int, int], None]) -> None:
        """Read the images that have not been read. With `on_broken=refuse`, raises ArchiveError for a broken file."""
        if not self._load_record():
            self._begin()
        left = {int(self._plan.entries[place]) for place in np.flatnonzero(self.answers == TO_DO)}
        train, test = self.arrays
        config = Config(self.size, self._options.fit.value, str(train.path), str(test.path), len(train.header()))
        assert len(test.header()) == config.offset
        decoders.begin(config)
        again: list[File] = []
        files = self._read(left, progress)
        most = max(FEWEST_IMAGES, min(BATCH_IMAGES, len(left) // (BATCHES_A_DECODER * decoders.count)))
        while (batch := again or next_batch(files, most)) or decoders.busy:
            again = self._note(decoders.submit(batch, self.channels) if batch else decoders.drain())
            if again:
                again += self._note(decoders.drain())
                self._widen()
            self._tell(progress)
        self._tell(progress, last=True)

    def _begin(self) -> None:
        pixels = len(self._plan.entries) * self.size**2
        check_free_space(
            self._work, pixels * self.channels, f"{len(self._plan.entries):,} images of {self.size} pixels"
        )
        for array in self.arrays:
            array.create()

    def _note(self, results: Iterable[tuple[File, Outcome]]) -> list[File]:
        """Record the outcomes of files. Returns the files in colour that do not fit an array with one channel."""
        coloured = []
        for file, outcome in results:
            if outcome.answer is Answer.COLOURED:
                coloured.append(file)
                continue
            if outcome.answer is Answer.UNWRITTEN:
                raise OSError(int(outcome.reason), os.strerror(int(outcome.reason)))
            place = file.row + file.test * self._plan.num_train
            self.sizes[place, 0], self.sizes[place, 1] = outcome.width, outcome.height
            if outcome.answer is Answer.BROKEN:
                self._broken(place, file.name, outcome.reason)
            else:
                self.answers[place] = outcome.answer
        if time.monotonic() - self._recorded > RECORD_SECONDS:
            self._record()
        return coloured

    def _broken(self, place: int, name: str, reason: str) -> None:
        if self._options.on_broken is OnBroken.REFUSE:
            raise ArchiveError(
                f"'{shown(name)}' {reason}",
                fix="replace or remove the file; with on_broken `skip` such files are left out and listed",
                file=shown(name),
            )
        self.answers[place] = Answer.BROKEN
        self.reasons[place] = reason

    def _read(self, entries: set[int], progress: Callable[[str, int, int], None]) -> Iterator[File]:
        """Yield files with the rows they go into. One that cannot be read is recorded as broken."""
        for number, data in self._source.contents(entries):
            place, name = self._place[number], self._source.listing.entries[number].name
            if isinstance(data, ArchiveError):
                self._broken(place, name, data.detail.removeprefix(f"'{shown(name)}' "))
                self._tell(progress)
                continue
            is_test = place >= self._plan.num_train
            yield File(place - is_test * self._plan.num_train, is_test, name, data)

    def _widen(self) -> None:
        """Convert the array files from one channel to three."""
        written = self.written
        wide_bytes = 3 * len(self._plan.entries) * self.size**2
        check_free_space(self._work, wide_bytes, f"{len(self._plan.entries):,} images of {self.size} pixels in colour")
        num_train = self._plan.num_train
        for array, rows in zip(self.arrays, (written[:num_train], written[num_train:]), strict=True):
            wide = array.widened(array.path.with_suffix(".wide"), rows)
            wide.path.replace(array.path)
        self.channels = 3
        self._record()

    def _tell(self, progress: Callable[[str, int, int], None], *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._told >= PROGRESS_SECONDS:
            self._told = now
            progress("reading images", int((self.answers != TO_DO).sum()), len(self.answers))

    def _record(self) -> None:
        """Write the record of the images read so far, after flushing their pixels to the disk."""
        for array in self.arrays:
            flush(array.path)
        with placing(self._work / RECORD) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                digest=np.array(self._digest),
                channels=np.array(self.channels),
                answers=self.answers,
                sizes=self.sizes,
                reasons=np.array(json.dumps(self.reasons)),
            )
        self._recorded = time.monotonic()

    def forget(self) -> None:
        """Remove the record: an import that is interrupted after this starts from the beginning."""
        (self._work / RECORD).unlink(missing_ok=True)

    def _load_record(self) -> bool:
        """Load the record of an earlier call; False if there is none, or one of other files or options."""
        try:
            with np.load(self._work / RECORD) as record:
                if str(record["digest"]) != self._digest:
                    return False
                answers, sizes, channels = record["answers"], record["sizes"], int(record["channels"])
                reasons = {int(place): str(reason) for place, reason in json.loads(str(record["reasons"])).items()}
        except (OSError, ValueError, KeyError, EOFError):
            return False
        num_train = self._plan.num_train
        files = (self._file("train", num_train, channels), self._file("test", len(answers) - num_train, channels))
        if any(not file.path.exists() or os.stat(file.path).st_size != file.num_bytes for file in files):
            return False
        self.answers, self.sizes, self.channels, self.reasons = answers, sizes, channels, reasons
        return True


def next_batch(files: Iterator[File], most: int) -> list[File]:
    """The next batch of files, limited by number and bytes; empty at the end."""
    batch, size = list[File](), 0
    for file in files:
        batch.append(file)
        size += len(file.data)
        if len(batch) >= most or size >= BATCH_BYTES:
            break
    return batch
