"""Validation of submitted specs: fields, dataset, and the network, built on the meta device."""

import threading
from dataclasses import dataclass
from typing import Annotated, Any

from cachetools import LRUCache
from fastapi import Depends, Request

from models.data.catalogue import get_dataset
from models.findings import FindingJson
from models.networks.layer import Layer
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec

MAX_DESCRIBED = 64


@dataclass(frozen=True, slots=True)
class Accepted:
    """A valid spec with its layers, warnings and size."""

    spec: ExperimentSpec
    layers: list[Layer]
    warnings: list[FindingJson]
    summary: dict[str, Any]
    """Parameters, operations and memory, from the network built on the meta device."""


class Inspector:
    """Validates specs, with a cache of the networks that it has built on the meta device."""

    def __init__(self) -> None:
        self._known: LRUCache[str, tuple[list[Any], list[Any], dict[str, Any]]] = LRUCache(MAX_DESCRIBED)
        self._lock = threading.Lock()

    def accept(self, document: Any) -> Accepted:
        """Parse and validate a body. Raises SpecError, which names the invalid fields."""
        spec = parse_spec(document)
        info = get_dataset(spec.dataset.name)
        digest = spec.digest()
        with self._lock:
            found = self._known.get(digest)
        if found is None:
            from service.catalogue.describe import describe_spec  # imports torch: late, so that the server starts fast

            layers, warnings, summary = describe_spec(spec, info)
            found = (list(layers), list(warnings), dict(summary))
            with self._lock:
                self._known[digest] = found
        return Accepted(spec, *found)


async def get_inspector(request: Request) -> Inspector:
    """Return the validator of specs."""
    inspector: Inspector = request.app.state.inspector
    return inspector


InspectorDep = Annotated[Inspector, Depends(get_inspector)]
