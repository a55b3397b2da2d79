"""What the `epochal` command runs: puts this project's own packages first in the search path, then the command line.

`models`, `service` and `worker` are names that other folders have too. A folder on PYTHONPATH, or the one a command is
started in, would otherwise take their place, here and in every process that a lab starts. For the same reason the
command does not start in `epochal.py`: a clone of this project in the working directory is a folder of that name.
"""

import gc
import os
import sys
from pathlib import Path


def main() -> None:
    """Run the command line with the project's packages first in the search path."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))

    from models.imports import own_packages_first

    os.environ.update(own_packages_first(os.environ))

    # What is imported stays until the end: looking through it for garbage takes a quarter of a short command's time.
    gc.disable()
    from service.cli.main import app_for

    app = app_for(sys.argv[1] if len(sys.argv) > 1 else "")
    gc.freeze()
    gc.enable()
    try:
        app(prog_name="epochal")
    finally:
        gc.freeze()
