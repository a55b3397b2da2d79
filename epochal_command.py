"""What the `epochal` command runs: puts this project's own packages first in the search path, then the command line.

`models`, `service` and `worker` are names that other folders have too. A folder on PYTHONPATH, or the one a command is
started in, would otherwise take their place, here and in every process that a lab starts. For the same reason the
command does not start in `epochal.py`: a clone of this project in the working directory is a folder of that name.
"""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.cli.predicting import PredictingProcess

INTERRUPTED = 130


def main() -> None:
    """Run the command line with the project's packages first in the search path."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))

    from models.imports import own_packages_first

    os.environ.update(own_packages_first(os.environ))
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # there are none, and the search reads each package

    # What is imported stays until the end: looking through it for garbage takes a quarter of a short command's time.
    gc.disable()
    predicting = _start_predicting(sys.argv[1:])
    try:
        # httpx imports its own command line, click and pygments with it, if it can; this makes it go without.
        sys.modules["httpx._main"] = None  # type: ignore[assignment]
        from service.cli.commands import app_for

        app = app_for(sys.argv[1] if len(sys.argv) > 1 else "")
        gc.freeze()
        gc.enable()
        app(prog_name="epochal", obj=predicting)
    except KeyboardInterrupt:  # during the imports; commands have their own answer to it
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()
        if predicting is not None:
            predicting.end()


def _start_predicting(arguments: list[str]) -> "PredictingProcess | None":
    """Start the process of `epochal classify --csv` before the command's own imports, which take as long as its."""
    if arguments[:1] != ["classify"] or not any(one.partition("=")[0] == "--csv" for one in arguments):
        return None
    from service.cli.predicting import PredictingProcess

    return PredictingProcess()
