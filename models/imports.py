"""Starts Python processes that import this project's packages, whatever is in PYTHONPATH and the working directory."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

HOME = str(Path(__file__).resolve().parent.parent)
"""The folder that holds the packages `models`, `service` and `worker`."""


def module_command(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this project, to be started with `own_packages_first`."""
    return [sys.executable, "-P", "-m", name, *arguments]


def own_packages_first(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of this project: PYTHONPATH begins with HOME, no working directory is searched."""
    others = [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each and each != HOME]
    return {**environment, "PYTHONPATH": os.pathsep.join([HOME, *others]), "PYTHONSAFEPATH": "1"}
