"""`epochal classify DIR --csv FILE`: classifies any number of images into a CSV table, which a second run continues.

The network is downloaded once and predicts on this machine, so no image travels and all rows are of the same weights.
The table records the progress: rows are written once, ordered by name, and a second run of the same command skips the
images that have a row. A file that cannot be classified has a row with the reason.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import typer

from models.errors import CorruptFile, EpochalError
from models.text import plural
from service.cli.output import Mode, errors, print_json, say
from service.cli.prediction_table import Table, cell
from service.cli.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress

    from service.cli.client import Client
    from service.cli.predicting import PredictingProcess

IMAGE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"),
}
"""Suffixes of images that the lab reads. A copy: importing models.data.importing.names would slow down --help."""
PATIENCE, LONGEST_PAUSE_SECONDS = 10, 30.0
TRY_AGAIN, UNKNOWN_FORMAT = (429, 503), 422
REPORT_SECONDS, BAR_SECONDS = 10.0, 0.1
"""Between two reports of the progress: lines in a log, and a bar on a terminal."""
INTERRUPTED = 130
INSTALL = "Install the lab's version of Epochal on this machine."


class OtherVersion(EpochalError):
    """The lab's networks are not of the form that this version of the command predicts with."""

    code = "other-version"
    title = "The lab is of another version of Epochal"


def classify_folder(
    client: "Client",
    address: str,
    predicting: "PredictingProcess",
    folder: Path,
    table: Path,
    *,
    top_k: int,
    weights: str | None,
) -> None:
    """Classify the images in and below a folder into a CSV file, continuing an unfinished one.

    Exits with 1 if some image could not be classified, with 130 after Ctrl-C. Raises TableTrouble, OtherVersion,
    PredictingEnded, and Conflict for weights that give no finite prediction.
    """
    names = list(images_below(folder))
    if not names:
        raise typer.BadParameter(f"the folder {visible(folder)} holds no images", param_hint="FILE")
    with Table.open(table, top_k) as rows:
        waiting = [name for name in names if cell(name) not in rows.names] if rows.names else names
        num_before, began = len(names) - len(waiting), time.monotonic()
        if num_before:
            say(f"{num_before:,} of {len(names):,} images are in {table} already")
        try:
            rows.check_by(load(predicting, client, address, weights))
            with _Progress(len(names), num_before) as progress:
                for done in predicting.classify(str(folder), waiting, top_k):
                    rows.append(done)
                    progress.advance(len(done))
        except KeyboardInterrupt:
            say(f"stopped: {len(rows.names):,} of {len(names):,} images are in {table}; the same command continues")
            raise typer.Exit(INTERRUPTED) from None
        _report(rows, len(waiting), time.monotonic() - began)


def _report(rows: Table, num_done: int, seconds: float) -> None:
    about = {"table": str(rows.path), "images": len(rows.names), "classified_now": num_done, "failed": rows.num_failed}
    if Mode.json:
        print_json({**about, "seconds": round(seconds, 3)})
    rate = f" in {seconds:.0f} s ({num_done / seconds:,.0f}/s)" if num_done else ""
    say(f"classified {plural(num_done, 'image')}{rate}; {rows.path} has {len(rows.names):,}")
    if rows.num_failed:
        say(f"{rows.num_failed:,} could not be classified; the column `error` says why", style="yellow")
        raise typer.Exit(1)


def images_below(folder: Path) -> Iterator[str]:
    """The paths, below a folder, of its images and of those in its folders, without hidden ones and linked folders.

    They are ordered by name, those of a folder before those of the folders in it.
    """
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(place, folder)
        prefix = "" if below == os.curdir else below + os.sep
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield prefix + name


def load(predicting: "PredictingProcess", client: "Client", address: str, weights: str | None) -> str:
    """Have the network of an experiment or a model read; return its name. Raises OtherVersion, or what the lab says."""
    content = download(client, address, weights)
    try:
        return predicting.load(content)
    except CorruptFile as error:
        raise OtherVersion(f"{client.url}: {error.detail}", fix=INSTALL) from error


def download(client: "Client", address: str, weights: str | None) -> bytes:
    """The network of an experiment or a model as a file. Raises OtherVersion, or what the lab says."""
    from service.cli.client import Problem

    for attempt in range(PATIENCE):
        try:
            return client.download(f"{address}/export", format="served", weights=weights)[1]
        except Problem as problem:
            if problem.status == UNKNOWN_FORMAT and "format" in problem.detail:
                raise OtherVersion(f"{client.url} sends no networks to predict with", fix=INSTALL) from problem
            pause = problem.document.get("retry_after_seconds")
            if problem.status not in TRY_AGAIN or not isinstance(pause, int | float) or attempt == PATIENCE - 1:
                raise
            time.sleep(min(max(pause, 0.1), LONGEST_PAUSE_SECONDS))
    raise AssertionError("unreachable")


class _Progress:
    """A bar with rate and time left on a terminal; a line every ten seconds elsewhere, both on standard error."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._at_first = total, done, done
        self._began = self._reported = time.monotonic()
        self._bar = self._make_bar() if errors.is_terminal else None

    def _make_bar(self) -> "Progress":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        bar = Progress(*columns, console=errors, transient=True, auto_refresh=False)
        bar.add_task("", total=self._total, completed=self._done, rate="")
        return bar

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count images as done."""
        self._done += count
        now = time.monotonic()
        if now - self._reported < (BAR_SECONDS if self._bar else REPORT_SECONDS):
            return
        self._reported = now
        rate = (self._done - self._at_first) / max(now - self._began, 1e-9)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, rate=f"{rate:,.0f}/s", refresh=True)
        else:
            left = (self._total - self._done) / rate if rate else 0
            errors.print(f"{self._done:,} of {self._total:,} images, {rate:,.0f}/s, {left:,.0f} s left")
