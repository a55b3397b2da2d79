"""Validation of submitted specs: fields, dataset, and the network, built on the meta device in another process."""

import threading
from dataclasses import replace
from typing import Annotated, Any

from cachetools import LRUCache
from fastapi import Depends, Request

from models.data.catalogue import get_dataset
from models.spec.parse import parse_spec
from service.catalogue.accepted import Accepted
from service.catalogue.describing import Describing

MAX_DESCRIBED = 64


class Inspector:
    """Validates specs, with a cache of the networks that were built on the meta device."""

    def __init__(self, describing: Describing) -> None:
        self._describing = describing
        self._known: LRUCache[str, Accepted] = LRUCache(MAX_DESCRIBED)
        self._lock = threading.Lock()

    def accept(self, document: Any) -> Accepted:
        """Parse and validate a body. Raises SpecError, which names the invalid fields."""
        spec = parse_spec(document)
        info = get_dataset(spec.dataset.name)
        digest = spec.digest()
        with self._lock:
            found = self._known.get(digest)
        if found is None:
            found = self._describing.ask("describe_spec", spec, info)
            with self._lock:
                self._known[digest] = found
        return replace(found, spec=spec)  # the digest leaves out name and tags


async def get_describing(request: Request) -> Describing:
    """Return the process that describes networks."""
    describing: Describing = request.app.state.describing
    return describing


async def get_inspector(request: Request) -> Inspector:
    """Return the validator of specs."""
    inspector: Inspector = request.app.state.inspector
    return inspector


DescribingDep = Annotated[Describing, Depends(get_describing)]
InspectorDep = Annotated[Inspector, Depends(get_inspector)]
