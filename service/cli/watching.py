"""Following a run by its events: progress bars and a line per epoch, or JSON lines."""

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from service.cli.output import Mode, console, duration, figure, say, shown, status_text

if TYPE_CHECKING:
    from service.cli.client import Client, Event

RECONNECT_SECONDS = 60.0
"""How long a lab may be silent, as while it restarts, before watching gives up."""
TERMINAL = frozenset({"completed", "failed", "cancelled", "diverged"})


def watch(client: "Client", experiment_id: int, *, quiet: bool = False) -> dict[str, Any]:
    """Follow an experiment until it has ended and return it; `quiet` only waits."""
    experiment: dict[str, Any] = client.get(f"/experiments/{experiment_id}")
    if quiet:
        for _ in follow(client, experiment_id):
            pass
    elif Mode.json:
        for event in follow(client, experiment_id):
            sys.stdout.write(json.dumps({"event": event.kind, **event.data}) + "\n")
            sys.stdout.flush()
    else:
        _Display(experiment).run(follow(client, experiment_id))
    ended: dict[str, Any] = client.get(f"/experiments/{experiment_id}")
    return ended


def follow(client: "Client", experiment_id: int) -> Iterator["Event"]:
    """Yield every event of an experiment, in order and once, reconnecting as needed."""
    from service.cli.client import NoAnswer

    last_id: str | None = None
    silent_since: float | None = None
    while True:
        try:
            for event in client.events(f"/experiments/{experiment_id}/events", last_id):
                silent_since, last_id = None, event.id or last_id
                if event.kind == "end":
                    return
                yield event
        except NoAnswer:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since > RECONNECT_SECONDS:
                raise
        time.sleep(1.0)


class _Display:
    """Progress bar of the run's steps, with a line above it for each finished epoch."""

    def __init__(self, experiment: dict[str, Any]) -> None:
        self.epochs = int(experiment["spec"]["epochs"])
        self.status = shown(experiment["status"])
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            refresh_per_second=4,
        )

    def run(self, events: Iterator["Event"]) -> None:
        with self.bar:
            task = self.bar.add_task(self.status, total=None, speed="", left="")
            for event in events:
                self._show(task, event)

    def _show(self, task: TaskID, event: "Event") -> None:
        data = event.data
        if event.kind == "epoch":
            self.bar.console.print(epoch_line(data, self.epochs), highlight=False)
        elif event.kind == "progress":
            self._move(task, data.get("progress") or data)
        elif event.kind == "state":
            self.bar.update(task, description=shown(data.get("status")))
            reason = f": {shown(data['reason'])}" if data.get("reason") else ""
            self.bar.console.print(f"{status_text(str(data.get('status')))}{reason}")
        elif event.kind == "notice":
            self.bar.console.print(f"[yellow]note[/] {shown(data.get('text') or data.get('code') or '')}")

    def _move(self, task: TaskID, progress: dict[str, Any]) -> None:
        epoch, steps = int(progress.get("epoch") or 1), int(progress.get("steps") or 0)
        phase = str(progress.get("phase") or "training")
        speed, left = progress.get("images_per_second"), progress.get("seconds_left")
        self.bar.update(
            task,
            description=f"epoch {epoch}/{shown(progress.get('epochs') or self.epochs)} {shown(phase)}",
            total=steps or None,
            completed=int(progress.get("step") or 0),
            speed=f"{speed:,.0f} images/s" if speed else "",
            left=f"{duration(left)} left" if left is not None else "",
        )


def epoch_line(metrics: dict[str, Any], epochs: int) -> str:
    """Format one epoch's metrics on one line."""
    speed = metrics.get("images_per_second")
    return (
        f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}"
        f"  train loss {figure(metrics.get('train_loss'))} accuracy {figure(metrics.get('train_accuracy'))}"
        f"  validation loss {figure(metrics.get('val_loss'))} accuracy {figure(metrics.get('val_accuracy'))}"
        + (f"  {speed:,.0f} images/s" if speed else "")
    )


def say_outcome(experiment: dict[str, Any]) -> None:
    """Print how a run ended, in one or two lines."""
    best = (experiment.get("best") or {}).get("val_accuracy")
    line = f"experiment {experiment['id']} {experiment['status']}"
    if best:
        line += f"; best validation accuracy {figure(best['value'])} at epoch {best['epoch']}"
    say(line, style="bold")
    if experiment.get("reason"):
        say(f"  {experiment['reason']}")
