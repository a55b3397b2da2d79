"""The `epochal` command, and `python -m epochal`: sees to it that this project's own packages are the ones imported.

`models`, `service` and `worker` are names that other folders have too. A folder on PYTHONPATH, or the one a command is
started in, would otherwise take their place, here and in every process that a lab starts.
"""

import os
import sys
from pathlib import Path

HOME = str(Path(__file__).resolve().parent)
"""The folder that holds the three packages."""


def main() -> None:
    """Run the command line with the project's packages first in the search path."""
    sys.path.insert(0, HOME)
    others = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each and each != HOME]
    os.environ["PYTHONPATH"] = os.pathsep.join([HOME, *others])
    os.environ["PYTHONSAFEPATH"] = "1"  # no process that is started from here looks into its working directory

    from service.cli.main import app

    app(prog_name="epochal")


if __name__ == "__main__":
    main()
