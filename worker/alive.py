"""Health check: `python -m worker.alive NAME` exits with 0 if the worker of this name on this machine answers."""

import socket
import sys

from models.queue import make_celery
from models.settings import get_settings

PATIENCE_SECONDS = 5.0


def is_alive(name: str) -> bool:
    """Whether the worker answers a ping sent through the broker, which also delivers its tasks."""
    celery = make_celery(get_settings())
    return bool(celery.control.ping(destination=[f"{name}@{socket.gethostname()}"], timeout=PATIENCE_SECONDS))


if __name__ == "__main__":
    sys.exit(0 if is_alive(sys.argv[1]) else 1)
