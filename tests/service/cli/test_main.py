"""Which commands are built, and what becomes of one that is interrupted before it begins."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from service.cli.commands import COMMANDS, GROUPS, app_for
from service.cli.main import app


def exit_code(built: typer.Typer, *arguments: str) -> int:
    return CliRunner().invoke(built, arguments).exit_code


@pytest.mark.parametrize("name", ["", "--help", "clasify", "classify_folder"])
def test_all_commands_are_there_unless_one_of_them_is_named(name: str) -> None:
    help_text = CliRunner().invoke(app_for(name), ["--help"], env={"COLUMNS": "200"}).stdout
    assert all(f"\u2502 {one} " in help_text for one in [*COMMANDS, *GROUPS])
    assert "Did you mean" in CliRunner().invoke(app_for(name), ["clasify"]).stderr


@pytest.mark.parametrize("named", [["lr-test"], ["list"], ["classify"], ["model", "set"]])
def test_the_command_that_is_named_is_the_only_one(named: list[str]) -> None:
    built = app_for(named[0])
    assert exit_code(built, *named, "--help") == 0
    assert exit_code(built, "show", "--help") == 2
    assert exit_code(built, "--help") == 0
    assert exit_code(app, "show", "--help") == 0


INTERRUPTED = """
import epochal_command
import service.cli.commands

def interrupt(name):
    raise KeyboardInterrupt

service.cli.commands.app_for = interrupt
epochal_command.main()
"""


def test_ctrl_c_before_the_command_begins_ends_it_without_a_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "classify", "--csv", "x"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
