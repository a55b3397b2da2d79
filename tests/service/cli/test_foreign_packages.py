"""Every command runs where the working directory and PYTHONPATH hold other packages with this project's names."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from models.imports import HOME
from service.cli.main import app
from tests.system.foreign import foreign_environment

RUN_ALL = """
import contextlib, importlib, io, json, sys
from epochal_command import main

commands, modules = json.loads(sys.argv[1])
codes = {}
for command in commands:
    sys.argv = ["epochal", *command.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            codes[command] = end.code
for module in modules:
    importlib.import_module(module)
ours = ("models", "service", "worker", "tests", "benchmarks", "epochal_command")
files = {name: module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in ours}
print(json.dumps([codes, files]))
"""
COMMANDLINE = Path(HOME) / "service" / "cli"


def commands_of(group: Any, prefix: str = "") -> Iterator[str]:
    """The names of all commands, nested ones with their group's."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}"
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{prefix}{name} ")


COMMANDS = ["", *commands_of(typer.main.get_command(app))]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], dict[str, str]]:
    """The exit code of each command's --help, and the files of our modules once those of all commands are imported."""
    folder = tmp_path_factory.mktemp("foreign")
    modules = [f"service.cli.{path.stem}" for path in sorted(COMMANDLINE.glob("*.py"))]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps([COMMANDS, modules])],
        cwd=folder,
        env=foreign_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes, files = json.loads(done.stdout)
    return codes, files


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_beside_packages_with_our_names(
    command: str, ran: tuple[dict[str, int], dict[str, str]]
) -> None:
    assert ran[0][command] == 0


def test_all_modules_of_the_commands_are_those_of_this_project(ran: tuple[dict[str, int], dict[str, str]]) -> None:
    assert {"models", "service", "service.cli.study_watching"} <= ran[1].keys()
    assert [name for name, file in ran[1].items() if not Path(file).is_relative_to(HOME)] == []
