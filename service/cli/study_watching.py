"""Following a study: a progress bar of its runs, and a line for each row that has ended; or JSON lines."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn

from service.cli.output import Mode, console, duration, figure, shown, status_text
from service.cli.watching import RECONNECT_SECONDS

if TYPE_CHECKING:
    from service.cli.client import Client

POLL_SECONDS = 2.0
ENDED = ("completed", "cancelled", "failed")
ROW_ENDED = ("completed", "pruned", "cancelled", "failed", "diverged", "skipped", "unavailable")


def watch_study(client: "Client", document: dict[str, Any]) -> dict[str, Any]:
    """Follow a study until it has ended, and return it."""
    told: dict[str, str] = {row["key"]: row["status"] for row in document["rows"] if row["status"] in ROW_ENDED}
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[runs]}  {task.fields[left]}"),
        console=console,
        transient=True,
        disable=Mode.json,
        refresh_per_second=2,
    )
    with bar:
        task = bar.add_task("", total=1.0, runs="", left="")
        while True:
            for row in document["rows"]:
                if row["status"] in ROW_ENDED and told.get(row["key"]) != row["status"]:
                    told[row["key"]] = row["status"]
                    _tell(bar, row)
            progress = document["progress"]
            left = progress["seconds_left"]
            bar.update(
                task,
                description=_doing(document),
                completed=progress["fraction"],
                runs=f"{progress['ended']} of {progress['runs']} runs",
                left=f"about {duration(left)} left" if left else "",
            )
            if document["status"] in ENDED:
                return document
            time.sleep(POLL_SECONDS)
            document = _read(client, document["id"])


def _read(client: "Client", study_id: int) -> dict[str, Any]:
    """Read the study, waiting for a lab that does not answer for a while, for example during a restart."""
    from service.cli.client import NoAnswer

    silent_since = time.monotonic()
    while True:
        try:
            found: dict[str, Any] = client.get(f"/studies/{study_id}")
        except NoAnswer:
            if time.monotonic() - silent_since > RECONNECT_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return found


def _doing(document: dict[str, Any]) -> str:
    running = [row["title"] for row in document["rows"] if row["status"] == "running"]
    return shown(running[0][:40]) if running else shown(document["status"])


def _tell(bar: Progress, row: dict[str, Any]) -> None:
    if Mode.json:
        sys.stdout.write(
            json.dumps({"event": "row", **{key: value for key, value in row.items() if key != "spec"}}) + "\n"
        )
        sys.stdout.flush()
        return
    accuracy, published = row["val_accuracy"], (row["published"] or {}).get("val_accuracy")
    words = f"accuracy {figure(accuracy['mean'])}" if accuracy else "no score"
    words += f" (published {figure(published)})" if published is not None else ""
    time_taken = f", {duration(row['seconds'])}" if row["seconds"] else ""
    reason = f": {shown(row['reason'])}" if row["reason"] else ""
    bar.console.print(
        f"{status_text(row['status'])} {shown(row['key'])} {shown(row['title'])}  {words}{time_taken}{reason}",
        highlight=False,
    )
