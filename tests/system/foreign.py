"""Somebody else's packages with the names of this project's, in the working directory and on PYTHONPATH of commands."""

import os
import sys
from pathlib import Path

EPOCHAL = [sys.executable, "-P", "-c", "from epochal_command import main; main()"]
"""What the installed `epochal` is; `python -m epochal` is taken where no folder of that name is in the way."""


def foreign_packages(folder: Path) -> Path:
    """A folder with packages and modules that have the names of this project's and end whatever imports them."""
    for name in ("models", "service", "worker", "epochal"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the wrong {name} was imported')")
    for name in ("tests", "benchmarks"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('the wrong {name} was imported')")
    return folder


def foreign_environment(folder: Path) -> dict[str, str]:
    """The environment of a command that finds them on PYTHONPATH."""
    return {**os.environ, "PYTHONPATH": str(foreign_packages(folder))}
