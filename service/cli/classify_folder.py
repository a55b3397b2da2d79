"""`epochal classify DIR --csv FILE`: classifies any number of images into a CSV table, which a second run continues.

The table records the progress: rows are written once, ordered by name, and a second run of the same command skips the
images that have a row. A file that cannot be classified has a row with the reason.
"""

import csv
import fcntl
import io
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import typer

from models.errors import EpochalError
from service.cli.output import Mode, errors, print_json, say, visible

if TYPE_CHECKING:
    from service.cli.client import Client

IMAGE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"),
}
"""Suffixes of images that the lab reads. A copy: importing models.data.importing.names would slow down --help."""
BATCH_IMAGES, BATCH_BYTES = 256, 8_000_000
"""The most that a request carries."""
FIRST_IMAGES, FEWEST_IMAGES, REQUEST_SECONDS = 32, 8, 0.5
"""Images in the first request; later ones have as many as are answered in about so long, which is how often rows are
written: fewer with a large network."""
REQUESTS_AT_ONCE = 3
"""Concurrent requests: one is being read from disk and sent while two are processed."""
TOO_LARGE, TRY_AGAIN, UNREADABLE = 413, (429, 503), "unreadable-image"
PATIENCE, LONGEST_PAUSE_SECONDS = 10, 30.0
NUMBERED = re.compile(r"^image \d+(, '\d+',)? ")
"""The pattern by which the lab's errors name an image that it cannot read."""
REPORT_SECONDS = 10.0
FORMULA = ("=", "+", "-", "@", "'")
"""Spreadsheets take text that begins with one of these for a formula, unless a quote precedes it."""
INTERRUPTED = 130


class TableTrouble(EpochalError):
    """The table cannot be continued."""

    code = "table-trouble"
    title = "The table cannot be continued"


def classify_folder(client: "Client", address: str, folder: Path, table: Path, **params: Any) -> None:
    """Classify the images in and below a folder into a CSV file, continuing an unfinished one.

    Exits with 1 if some image could not be classified, with 130 after Ctrl-C. Raises TableTrouble.
    """
    files = list(images_below(folder))
    if not files:
        raise typer.BadParameter(f"the folder {visible(folder)} holds no images", param_hint="FILE")
    with Table.open(table, int(params["top_k"])) as rows:
        waiting = [file for file in files if cell(file.relative_to(folder)) not in rows.names]
        num_before, began = len(files) - len(waiting), time.monotonic()
        if num_before:
            say(f"{num_before:,} of {len(files):,} images are in {table} already")
        try:
            with _Progress(len(files), num_before) as advance:
                for done in _classify(client, f"{address}/predictions", folder, waiting, params):
                    rows.append(done)
                    advance(len(done))
        except KeyboardInterrupt:
            say(f"stopped: {len(rows.names):,} of {len(files):,} images are in {table}; the same command goes on")
            raise typer.Exit(INTERRUPTED) from None
        _report(rows, len(waiting), time.monotonic() - began)


def _report(rows: "Table", num_done: int, seconds: float) -> None:
    about = {"table": str(rows.path), "images": len(rows.names), "classified_now": num_done, "failed": rows.num_failed}
    if Mode.json:
        print_json({**about, "seconds": round(seconds, 3)})
    rate = f" in {seconds:.0f} s ({num_done / seconds:,.0f}/s)" if num_done else ""
    say(f"classified {num_done:,} images{rate}; {rows.path} has {len(rows.names):,}")
    if rows.num_failed:
        say(f"{rows.num_failed:,} could not be classified; the column `error` says why", style="yellow")
        raise typer.Exit(1)


def images_below(folder: Path) -> Iterator[Path]:
    """The images in and below a folder, ordered by name, without hidden ones and linked folders."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(place, name)


def cell(text: object) -> str:
    """Text for a cell: on one line, and escaped so that spreadsheets do not take it for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


@dataclass(frozen=True, slots=True)
class Row:
    """One image's row."""

    image: Path
    """Below the folder."""
    by: str = ""
    prediction: dict[str, Any] | None = None
    error: str = ""

    def cells(self, top_k: int) -> list[str]:
        """The row's cells, in the order of `header_of`."""
        found = self.prediction
        if found is None:
            return [cell(self.image), self.by, *[""] * (2 + 2 * top_k), cell(self.error)]
        top = [(cell(one["label"]), f"{one['probability']:.6f}") for one in found["top"]]
        calibrated, known = found["calibrated_probability"], found["known"]
        return [
            cell(self.image),
            self.by,
            "" if calibrated is None else f"{calibrated:.6f}",
            "" if known is None else str(known).lower(),
            *(text for pair in top for text in pair),
            *[""] * (2 * (top_k - len(top))),
            "",
        ]


def header_of(top_k: int) -> list[str]:
    """The names of the columns; `by` identifies the network that predicts."""
    ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
    pairs = [f"{name}{rank}" for rank in ranks for name in ("label", "probability")]
    return ["image", "by", "calibrated_probability", "known", *pairs, "error"]


class Table:
    """A CSV file that rows are appended to, by one process at a time."""

    def __init__(self, path: Path, file: IO[bytes], top_k: int) -> None:
        self.path = path
        self.names: set[str] = set()
        """The cells of images that have a row."""
        self.num_failed = 0
        self._by = ""
        self._file = file
        self._top_k = top_k

    @classmethod
    def open(cls, path: Path, top_k: int) -> "Table":
        """Open or create a table. Raises TableTrouble for a file of another form, or one in use."""
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            table = cls(path, file, top_k)
            table._read()
        except BlockingIOError:
            file.close()
            raise TableTrouble(f"{path} is being written by another command", fix="Wait for it.") from None
        except BaseException:
            file.close()
            raise
        return table

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> None:
        """Read the existing rows; an incomplete last line is removed."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        wanted = header_of(self._top_k)
        try:
            found = list(csv.reader(io.StringIO(whole.decode(), newline="")))
        except (UnicodeDecodeError, csv.Error):
            found = [["?"]]
        if (found and found[0] != wanted) or (not whole and not _is_start_of(content, wanted)):
            raise TableTrouble(
                f"{self.path} exists and begins with other columns",
                fix="Name another file, or give the same --top-k as before.",
            )
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        if not found:
            self._write([wanted])
        for row in found[1:]:
            if len(row) != len(wanted):
                raise TableTrouble(f"{self.path} has a row of {len(row)} columns, not {len(wanted)}: {row[:1]}")
            self._note(row)

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows. Raises TableTrouble if they are of other weights than those before."""
        cells = [row.cells(self._top_k) for row in rows]
        for row in cells:
            if row[1] and self._by not in ("", row[1]):
                raise TableTrouble(
                    f"{self.path} has predictions by {self._by}, and these are by {row[1]}",
                    fix="Name another file with --csv, or name the network that the table is of.",
                )
            self._note(row)
        self._write(cells)

    def _note(self, row: Sequence[str]) -> None:
        self.names.add(row[0])
        self._by = row[1] or self._by
        self.num_failed += bool(row[-1])

    def _write(self, rows: Sequence[Sequence[str]]) -> None:
        """Append rows in one write, so that an interrupted command leaves complete rows."""
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\n").writerows(rows)
        self._file.write(out.getvalue().encode())
        self._file.flush()


def _is_start_of(content: bytes, header: Sequence[str]) -> bool:
    return ",".join(header).encode().startswith(content)


def _classify(
    client: "Client", address: str, folder: Path, files: Sequence[Path], params: dict[str, Any]
) -> Iterator[list[Row]]:
    """Yield the rows of the files, batch by batch in order, with REQUESTS_AT_ONCE concurrent requests."""
    limit = Limit()
    running: deque[Future[list[Row]]] = deque()
    pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)

    def classify(batch: Sequence[Path]) -> list[Row]:
        began = time.monotonic()
        rows = _classify_batch(client, address, folder, batch, params)
        limit.learn(len(batch), time.monotonic() - began)
        return rows

    try:
        for batch in _batches(files, limit):
            running.append(pool.submit(classify, batch))
            if len(running) > REQUESTS_AT_ONCE:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class Limit:
    """How many images the next request has at most."""

    def __init__(self) -> None:
        self.images = min(FIRST_IMAGES, BATCH_IMAGES)

    def learn(self, num_images: int, seconds: float) -> None:
        """Note how long a request took. The limit at most doubles: the first requests are slower than later ones."""
        wanted = int(num_images * REQUEST_SECONDS / max(seconds, 1e-6))
        self.images = min(max(min(wanted, 2 * num_images), FEWEST_IMAGES), BATCH_IMAGES)


def _batches(files: Sequence[Path], limit: Limit) -> Iterator[list[Path]]:
    batch, size = list[Path](), 0
    for file in files:
        try:
            own = file.stat().st_size
        except OSError:  # gone since, or a link to nothing: reading it will tell
            own = 0
        if batch and (len(batch) >= limit.images or size + own > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += own
    if batch:
        yield batch


def _classify_batch(
    client: "Client", address: str, folder: Path, files: Sequence[Path], params: dict[str, Any]
) -> list[Row]:
    """The rows of one batch, in order. Images that the lab refuses get an error, and the others are sent again."""
    from service.cli.client import Problem

    rows: dict[Path, Row] = {}
    contents: dict[Path, bytes] = {}
    for file in files:
        try:
            contents[file] = _read(file)
        except OSError as error:
            reason = error.strerror or str(error)
            rows[file] = Row(file.relative_to(folder), error=f"cannot be read: {reason}")
    waiting = [list(contents)] if contents else []
    while waiting:
        batch = waiting.pop(0)
        try:
            answer = _send(client, address, [contents[file] for file in batch], params)
        except Problem as problem:
            index = problem.document.get("index")
            if problem.code == UNREADABLE and isinstance(index, int) and 0 <= index < len(batch):
                refused = batch.pop(index)
                rows[refused] = Row(refused.relative_to(folder), error=NUMBERED.sub("", problem.detail))
                waiting[:0] = [batch] if batch else []
            elif problem.status == TOO_LARGE and len(batch) == 1:
                rows[batch[0]] = Row(batch[0].relative_to(folder), error=problem.detail)
            elif problem.status == TOO_LARGE:
                waiting[:0] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            else:
                raise
            continue
        by = _whose(answer)
        for file, prediction in zip(batch, answer["predictions"], strict=True):
            rows[file] = Row(file.relative_to(folder), by, prediction)
    return [rows[file] for file in files]


def _read(file: Path) -> bytes:
    if not file.is_file():
        file.stat()  # says why, of one that is gone
        raise OSError("it is no file")
    return file.read_bytes()


def _send(client: "Client", address: str, images: Sequence[bytes], params: dict[str, Any]) -> dict[str, Any]:
    """Send images, again after a Retry-After. Their parts are numbered: names of files say nothing to the lab."""
    from service.cli.client import Problem

    boundary = uuid4().hex
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="image"; filename="%d"\r\n\r\n%b\r\n'
        % (boundary.encode(), number, image)
        for number, image in enumerate(images, 1)
    ]
    body = b"".join([*parts, b"--%b--\r\n" % boundary.encode()])
    for attempt in range(PATIENCE):
        try:
            answer: dict[str, Any] = client.post_form(address, body, boundary, **params)
            return answer
        except Problem as problem:
            pause = problem.document.get("retry_after_seconds")
            if problem.status not in TRY_AGAIN or not isinstance(pause, int | float) or attempt == PATIENCE - 1:
                raise
            time.sleep(min(max(pause, 0.1), LONGEST_PAUSE_SECONDS))
    raise AssertionError("unreachable")


def _whose(answer: dict[str, Any]) -> str:
    """The network that made an answer's predictions."""
    model = f"{answer['model']} version {answer['version']}, " if answer["model"] is not None else ""
    epoch = f" of epoch {answer['epoch']}" if answer["epoch"] is not None else ""
    return cell(f"{model}experiment {answer['experiment_id']}, {answer['weights']} weights{epoch}")


class _Progress:
    """A bar with rate and time left on a terminal; a line every ten seconds elsewhere, both on standard error."""

    def __init__(self, total: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._total, self._done = total, done
        self._began = self._reported = time.monotonic()
        self._at_first = done
        rate = TextColumn("{task.fields[rate]}")
        columns = (BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        self._bar = Progress(*columns, console=errors, transient=True)
        self._task = self._bar.add_task("", total=total, completed=done, rate="")

    def __enter__(self) -> Any:
        if errors.is_terminal:
            self._bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        if errors.is_terminal:
            self._bar.stop()

    def _advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        rate = (self._done - self._at_first) / max(now - self._began, 1e-9)
        self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f}/s")
        if not errors.is_terminal and now - self._reported >= REPORT_SECONDS:
            self._reported = now
            left = (self._total - self._done) / rate if rate else 0
            errors.print(f"{self._done:,} of {self._total:,} images, {rate:,.0f}/s, {left:,.0f} s left")
