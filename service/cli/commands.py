"""The `epochal` command. All commands but up, worker, demo, data fetch, keys, backup and restore use only HTTP.

Modules that take long to import (httpx, SQLAlchemy, torch) are imported where they are used, so that help is instant.
"""

import io
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer import _click as click
from typer.core import TyperGroup

from models.errors import EpochalError, InvalidSettings
from service.cli.output import print_error
from service.cli.visible import visible

COMMANDS = {
    "up": "running.up",
    "worker": "running.worker",
    "demo": "demo.demo",
    "submit": "experiments.submit",
    "list": "experiments.list_experiments",
    "show": "experiments.show",
    "edit": "experiments.edit",
    "watch": "experiments.watch",
    "curves": "pictures.curves",
    "kernels": "pictures.kernels",
    "confusion": "evaluation.confusion",
    "mistakes": "evaluation.mistakes",
    "classify": "pictures.classify",
    "explain": "looking.explain",
    "feature-maps": "looking.feature_maps",
    "timeline": "looking.timeline",
    "export": "looking.export",
    "verdict": "experiments.verdict",
    "lr-test": "pictures.lr_test",
    "lr-tests": "pictures.lr_tests",
    "cancel": "experiments.cancel",
    "resume": "experiments.resume",
    "continue": "experiments.continue_training",
    "reproduce": "experiments.reproduce",
    "stability": "experiments.stability",
    "delete": "experiments.delete",
    "backup": "backup.backup",
    "restore": "backup.restore",
}
"""The function of each command, in a module beside this one that is imported for it."""
GROUPS = {
    "study": "studies.app",
    "data": "data.app",
    "model": "models.app",
    "webhook": "webhooks.app",
    "keys": "keys.app",
}
"""The same of commands that have commands of their own."""
HELP = "A lab server for image classifiers: submit an experiment, read back its curves, kernels and verdict."


class ReportingGroup(TyperGroup):
    """Command group that prints an error's title, detail and fix, and exits with 1, or 2 for usage errors."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; characters that the terminal's encoding lacks are escaped."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except EpochalError as error:
            print_error(error)
            raise typer.Exit(2 if isinstance(error, InvalidSettings) else 1) from None
        except click.exceptions.UsageError as error:
            for name in ("message", "option_name"):
                if isinstance(text := getattr(error, name, None), str):
                    setattr(error, name, visible(text))
            raise
        except BrokenPipeError:  # `epochal list | head -1`: the pipe was closed
            _drop_output()
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None:  # of the output itself, most likely
                _drop_output()
            place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            print_error(FileTrouble(f"{place}{error.strerror or error}"))
            raise typer.Exit(1) from None
        return result


class FileTrouble(EpochalError):
    """A file, a folder or the output cannot be used, by an error of the operating system."""

    code = "file-trouble"
    title = "A file or folder cannot be used"


def _drop_output() -> None:
    """Redirect stdout to /dev/null, so that Python does not fail at flushing it on exit."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no file behind it, as in tests
        return


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"epochal {metadata.version('epochal')}")
        raise typer.Exit


def _epochal(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that come before a command."""


def app_for(name: str) -> typer.Typer:
    """The app with the command or group of this name alone, if there is one; else with all of them.

    One command is ready in a third of the time that all of them take.
    """
    app = typer.Typer(
        cls=ReportingGroup,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=HELP,
    )
    app.callback(help=HELP)(_epochal)
    alone = name in COMMANDS or name in GROUPS
    for command, place in COMMANDS.items():
        if command == name or not alone:
            app.command(command)(_find(place))
    for group, place in GROUPS.items():
        if group == name or not alone:
            app.add_typer(_find(place), name=group)
    return app


def _find(place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(import_module(f"service.cli.{module}"), name)
