"""The `epochal` command. All commands but up, worker, demo, data fetch, keys, backup and restore use only HTTP.

Modules that take long to import (httpx, SQLAlchemy, torch) are imported where they are used, so that help is instant.
"""

import io
import os
import sys
from copy import copy
from typing import Annotated, Any

import typer
from typer import _click as click
from typer.core import TyperGroup
from typer.main import get_command_name

from models.errors import EpochalError, InvalidSettings
from service.cli import (
    backup,
    data,
    demo,
    evaluation,
    experiments,
    keys,
    looking,
    models,
    pictures,
    running,
    studies,
    webhooks,
)
from service.cli.output import print_error, visible


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


app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A lab server for image classifiers: submit an experiment, read back its curves, kernels and verdict.",
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        typer.echo(f"epochal {metadata.version('epochal')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A lab server for image classifiers: submit an experiment, read back its curves, kernels and verdict."""


app.command()(running.up)
app.command()(running.worker)
app.command()(demo.demo)
app.command()(experiments.submit)
app.command("list")(experiments.list_experiments)
app.command()(experiments.show)
app.command()(experiments.edit)
app.command()(experiments.watch)
app.command()(pictures.curves)
app.command()(pictures.kernels)
app.command()(evaluation.confusion)
app.command()(evaluation.mistakes)
app.command()(pictures.classify)
app.command()(looking.explain)
app.command("feature-maps")(looking.feature_maps)
app.command()(looking.timeline)
app.command()(looking.export)
app.command()(experiments.verdict)
app.command("lr-test")(pictures.lr_test)
app.command("lr-tests")(pictures.lr_tests)
app.command()(experiments.cancel)
app.command()(experiments.resume)
app.command("continue")(experiments.continue_training)
app.command()(experiments.reproduce)
app.command()(experiments.stability)
app.command()(experiments.delete)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(studies.app, name="study")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="model")
app.add_typer(webhooks.app, name="webhook")
app.add_typer(keys.app, name="keys")


def app_for(name: str) -> typer.Typer:
    """The app with this command alone, if there is one of this name: building all of them takes 0.1 s."""
    chosen = copy(app)
    chosen.registered_commands = [one for one in app.registered_commands if name == _name_of(one)]
    chosen.registered_groups = [one for one in app.registered_groups if name == one.name]
    return chosen if chosen.registered_commands or chosen.registered_groups else app


def _name_of(command: Any) -> str:
    return command.name or get_command_name(command.callback.__name__)


if __name__ == "__main__":
    app()
