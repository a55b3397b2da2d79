"""A real Celery worker for the queue's tests: notes each number it is sent, and holds on to number 0."""

import os
from pathlib import Path

from models.queue import TRAIN_TASK, make_celery
from models.settings import Settings

app = make_celery(Settings())
folder = Path(os.environ["ECHO_FOLDER"])


@app.task(name=TRAIN_TASK)
def train(experiment_id: int) -> None:
    """Note the number."""
    with (folder / "taken").open("a") as file:
        file.write(f"{experiment_id}\n")
    if experiment_id == 0:
        (folder / "gate").read_bytes()  # a FIFO: waits until somebody writes
        with (folder / "taken").open("a") as file:
            file.write("let go\n")
