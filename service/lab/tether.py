"""Run a command that cannot outlive the process that started it.

    python -I -S tether.py PARENT_PID COMMAND...

Linux ends a process when its parent dies if the process asked for that beforehand (PR_SET_PDEATHSIG) and the wish
survives exec. Asking from here, in a program of its own, spares the starting process a fork hook, which is unsafe
beside threads. Where the wish cannot be made (macOS) the command runs all the same.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def tethered(command: list[str]) -> list[str]:
    """The command line that runs `command` tied to this process, or rather to the thread that starts it."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the wish was made
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    main()
