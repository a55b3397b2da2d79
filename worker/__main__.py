"""Run one training worker in the foreground, with settings from EPOCHAL_* variables. `epochal worker` executes this.

After SIGTERM or Ctrl-C it saves a checkpoint, hands the run back and exits within 10 s.
"""

import argparse
import os
import signal
import sys

from models.private import keep_private
from models.settings import settings_or_exit
from worker.processes.nursery import get_nursery


def main() -> None:
    """Start the nursery, which imports torch in parallel with this process, then the Celery worker."""
    parser = argparse.ArgumentParser(prog="epochal worker", description="Train experiments from the lab's queue.")
    parser.add_argument("--name", default=f"worker-{os.getpid()}", help="a name that no other worker of the lab has")
    name = parser.parse_args().name
    settings_or_exit()
    for signum in (signal.SIGTERM, signal.SIGINT):  # before the worker has started there is no run to hand back
        signal.signal(signum, lambda *_: sys.exit(0))
    keep_private()
    get_nursery().start()

    from worker.app import app

    app.worker_main(
        [
            "--quiet",
            "worker",
            f"--hostname={name}@%h",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",  # it would wait a second for other workers' answers
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    main()
