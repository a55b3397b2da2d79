"""Commands `epochal up` and `epochal worker`: run the lab, or one worker, in the foreground until Ctrl-C."""

import os
import signal
import sys
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from models.imports import module_command
from models.private import keep_private
from service.cli import options
from service.cli.output import console, errors, shown

if TYPE_CHECKING:
    from service.lab.lab import Lab

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback a key is required.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")] = None,
    data_dir: options.DataDir = None,
    workers: Annotated[int | None, typer.Option(min=0, max=64, help="Training workers to start here.")] = None,
    broker_url: Annotated[str | None, typer.Option(help="A Redis or Valkey to use instead of the lab's own.")] = None,
) -> None:
    """Run the lab until Ctrl-C. Each flag is also a variable: EPOCHAL_PORT, EPOCHAL_WORKERS ..."""
    from service.lab.lab import Lab, LabStopped

    settings = options.settings_for(data_dir, host=host, port=port, workers=workers, broker_url=broker_url)
    keep_private()
    lab = Lab(settings, say=lambda text: console.print(f"[yellow]{shown(text)}[/]"))
    stop_on_signals(lab)
    with console.status("starting the lab"):
        try:
            lab.start()
        except LabStopped:
            return
    try:
        _welcome(lab)
        lab.wait()
        console.print("stopping: the workers put their runs back on the queue")
    finally:
        lab.stop()
    console.print("stopped")


def worker(
    name: Annotated[str | None, typer.Option(help="The worker's name, unique in the lab.")] = None,
    data_dir: options.DataDir = None,
    broker_url: Annotated[str | None, typer.Option(help="The lab's Redis or Valkey (EPOCHAL_BROKER_URL).")] = None,
) -> None:
    """Run one more training worker for a lab, here or on another machine; Ctrl-C requeues its run and stops it.

    On the lab's own machine the data directory suffices. On another one it needs the lab's broker, database and
    a shared data directory: EPOCHAL_BROKER_URL, EPOCHAL_BROKER_PASSWORD, EPOCHAL_DATABASE_URL, EPOCHAL_DATA_DIR.
    """
    from service.lab.broker import EmbeddedBroker
    from service.lab.lab import LabFailed, environment_of

    settings = options.settings_for(data_dir, broker_url=broker_url)
    if not settings.broker_url:
        if not (embedded := EmbeddedBroker.of(settings.data_dir)):
            raise LabFailed(
                f"no broker was named, and no lab runs on {settings.data_dir}",
                fix="Start the lab first (`epochal up`), or give its broker: --broker-url or EPOCHAL_BROKER_URL.",
            )
        settings = settings.model_copy(update={"broker_url": embedded.url})
    environment = environment_of(settings)
    command = module_command("worker", *(["--name", name] if name else []))
    os.execve(command[0], command, environment)  # noqa: S606 (in this one's place: it holds nothing that training needs)


def stop_on_signals(lab: "Lab", *, interrupt: bool = False) -> None:
    """Stop the lab on SIGINT, SIGTERM and SIGHUP; a second signal kills its processes at once.

    `interrupt` also raises KeyboardInterrupt, for a command that is busy with something else than waiting.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            for part in lab.parts:
                part.kill_group()
            return
        asked = True
        was_stopping = lab.stopping
        lab.request_stop()
        if interrupt and not was_stopping:
            raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, handle)


def _welcome(lab: "Lab") -> None:
    settings = lab.settings
    workers = f"{settings.workers} worker{'' if settings.workers == 1 else 's'}"
    say = partial(console.print, soft_wrap=True)  # addresses and keys are copied: no line breaks in them
    say(f"[bold]the lab is at[/] [cyan]{lab.url}[/]  ({workers}; API below {lab.url}/api/v1)")
    say(f"data in {shown(settings.data_dir)}, logs in {shown(lab.logs)}")
    if lab.first_key:
        say("[bold]API key[/], shown once and stored hashed; send it as `Authorization: Bearer KEY`")
        say("or set EPOCHAL_API_KEY. `epochal keys` creates more:")
        say(f"  {lab.first_key}", markup=False)
    elif settings.auth:
        say("an API key is required; `epochal keys create NAME` creates another")
    if not settings.workers:
        errors.print("no worker was started here: experiments wait until one is (epochal worker)", style="yellow")
    say("Ctrl-C stops it")
    sys.stdout.flush()
