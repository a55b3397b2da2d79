"""`epochal`: the lab from a terminal. All commands but up, demo, keys, backup and restore only talk HTTP.

Modules that take long to import (httpx, SQLAlchemy, torch) are imported where they are used, so that help is instant.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from models.errors import EpochalError, InvalidSettings
from service.cli import backup, demo, experiments, keys, pictures, running
from service.cli.output import print_error


class ReportingGroup(TyperGroup):
    """Turns a named failure into its title, detail and fix, and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except EpochalError as error:
            print_error(error)
            raise typer.Exit(2 if isinstance(error, InvalidSettings) else 1) from None


app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A lab server for image classifiers: submit an experiment, read back its curves, kernels and verdict.",
)
app.command()(running.up)
app.command()(running.worker)
app.command()(demo.demo)
app.command()(experiments.submit)
app.command("list")(experiments.list_experiments)
app.command()(experiments.show)
app.command()(experiments.watch)
app.command()(pictures.curves)
app.command()(pictures.kernels)
app.command()(pictures.classify)
app.command()(experiments.verdict)
app.command("lr-test")(pictures.lr_test)
app.command("lr-tests")(pictures.lr_tests)
app.command()(experiments.cancel)
app.command()(experiments.resume)
app.command()(experiments.reproduce)
app.command()(experiments.stability)
app.command()(experiments.delete)
app.command()(backup.backup)
app.command()(backup.restore)
app.add_typer(keys.app, name="keys")

if __name__ == "__main__":
    app()
