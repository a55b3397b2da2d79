"""The ONNX graph that an experiment's weights belong to: the stored one, or one made now for older experiments."""

import hashlib
import json
import os
import subprocess
import threading
from pathlib import Path

from cachetools import LRUCache

from models.errors import Conflict, CorruptFile
from models.imports import module_command, own_packages_first
from models.store import Store, artifacts
from models.store.states import ArtifactKind
from service.predictions.weights import Weights

MODULE = "models.networks.export"
MAX_SECONDS = 120
"""Time limit for making a graph; importing torch takes two seconds of it."""
MAX_MADE = 64


class Graphs:
    """Finds graphs. Those made here are cached in memory by the description in the weights file.

    Making a graph needs torch, which a separate process imports.
    """

    def __init__(self, store: Store, experiments_dir: Path) -> None:
        self._store = store
        self._experiments_dir = experiments_dir
        self._made: LRUCache[str, bytes] = LRUCache(MAX_MADE)
        self._lock = threading.Lock()

    def find(self, weights: Weights) -> bytes:
        """The serialised graph. Raises Conflict where the network cannot be exported."""
        return self._stored(weights) or self._make(weights)

    def _stored(self, weights: Weights) -> bytes | None:
        """The graph that the worker wrote; None if there is none, or it is damaged."""
        with self._store.reading() as session:
            record = artifacts.newest(session, weights.experiment_id, ArtifactKind.GRAPH)
        try:
            data = record.file(self._experiments_dir).read_bytes() if record else b""
        except (OSError, CorruptFile):
            return None
        return data if record and hashlib.sha256(data).hexdigest() == record.sha256 else None

    def _make(self, weights: Weights) -> bytes:
        about = {
            "model": weights.model.model_dump(mode="json"),
            "preprocessing": weights.preprocessing.to_json(),
            "test_time_augmentation": weights.test_time_augmentation,
        }
        description = json.dumps(about, sort_keys=True)
        with self._lock:  # one process at a time: torch takes 300 MB
            if (made := self._made.get(description)) is None:
                made = self._made[description] = _export(description, weights)
            return made


def _export(description: str, weights: Weights) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            module_command(MODULE),
            input=description.encode(),
            capture_output=True,
            timeout=MAX_SECONDS,
            check=True,
            env=own_packages_first(os.environ),
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise Conflict(
            f"the network of experiment {weights.experiment_id} cannot be turned into a graph that predicts",
            fix="reproduce the experiment with this version of Epochal",
        ) from error
    return done.stdout
