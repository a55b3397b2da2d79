"""Run a command that is killed when its parent process dies.

    python -I -S tether.py PARENT_PID COMMAND...

Linux kills a process with its parent if it has set PR_SET_PDEATHSIG, which survives exec. Setting it here, in a program
of its own, avoids a fork hook (preexec_fn) in the parent, which is unsafe beside threads. On macOS, which lacks the
feature, the command is run without it.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def tethered(command: list[str]) -> list[str]:
    """Return the command line that runs `command` until it ends or the thread that starts it does."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def end_with(parent: int) -> None:
    """Have this process killed when the thread of its parent that started it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os._exit(1)


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    end_with(parent)
    os.execv(command[0], command)  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    main()
