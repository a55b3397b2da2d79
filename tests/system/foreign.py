"""Somebody else's project: packages with the names of this one's, in the working directory and on PYTHONPATH.

Beside them settings of other programs that libraries of ours read from the working directory or the environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

EPOCHAL = [sys.executable, "-P", "-c", "from epochal_command import main; main()"]
"""What the installed `epochal` is; `python -m epochal` is taken where no folder of that name is in the way."""

MODULES = {
    "models/__init__.py": "models",
    "models/spec/__init__.py": "models",
    "service.py": "service",
    "worker/app.py": "worker",  # in a folder without an __init__.py
    "worker/__main__.py": "worker",
    "epochal/__init__.py": "epochal",
    "tests.py": "tests",
    "benchmarks.py": "benchmarks",
    "celeryconfig.py": "celeryconfig",
}
"""Files, and the name by which they would be imported."""
THEIR_BROKER = "redis://their-broker.invalid:6379/3"
VARIABLES = {
    "APP": "theirs",
    "BROKER_URL": THEIR_BROKER,
    "CELERY_BROKER_URL": THEIR_BROKER,
    "CELERY_LOADER": "default",
    "DJANGO_SETTINGS_MODULE": "theirs.settings",
    "WEB_CONCURRENCY": "4",
}
"""What a shell holds that is set up for a project with Celery, Django and uvicorn."""

RUN_ALL = """
import json, sys
from epochal_command import main

for command in json.loads(sys.argv[1]):
    sys.argv = ["epochal", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{command} ended with {end.code}")
"""


def foreign_packages(folder: Path) -> Path:
    """A folder with packages and modules that have the names of this project's and end whatever imports them."""
    for path, name in MODULES.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"raise SystemExit('the wrong {name} was imported')")
    (folder / "matplotlibrc").write_text("text.usetex: True\n")
    return folder


def foreign_environment(folder: Path) -> dict[str, str]:
    """The environment of a command that finds them on PYTHONPATH."""
    return {**os.environ, **VARIABLES, "PYTHONPATH": str(foreign_packages(folder))}


def run_commands(folder: Path, commands: Sequence[Sequence[str]]) -> str:
    """Run commands there, one after the other in one process, which imports only once; returns what they print."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN_ALL, json.dumps([list(command) for command in commands])],
        cwd=folder,
        env=foreign_environment(folder),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
