"""Validation of submitted specs: fields, dataset, and the network, built on the meta device in another process."""

import threading
from dataclasses import replace
from typing import Annotated, Any

from cachetools import LRUCache
from fastapi import Depends, Request

from models.data.uploaded import find_dataset, pinned
from models.errors import Conflict, NotFound, SpecError
from models.networks.dataset_findings import dataset_warnings
from models.networks.weights_header import WeightsHeader
from models.settings import Settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from models.store import Store, datasets
from models.store.states import DatasetStatus
from service.catalogue.accepted import Accepted
from service.catalogue.describing import Describing

MAX_DESCRIBED = 64


class Inspector:
    """Validates specs, with a cache of the networks that were built on the meta device."""

    def __init__(self, settings: Settings, store: Store, describing: Describing) -> None:
        self._settings = settings
        self._store = store
        self._describing = describing
        self._known: LRUCache[str, Accepted] = LRUCache(MAX_DESCRIBED)
        self._lock = threading.Lock()

    def accept(self, document: Any) -> Accepted:
        """Parse and validate a body; of an uploaded dataset the spec names the version by its fingerprint from then on.

        Raises SpecError, which names the invalid fields, and Conflict for a dataset that is still being imported.
        """
        spec = parse_spec(document)
        try:
            found_dataset = find_dataset(spec.dataset, self._settings)
        except SpecError as error:
            if error.errors[0]["field"] == "dataset.name":
                self._check_import(spec.dataset.name)
            raise
        spec = pinned(spec, found_dataset)
        digest = spec.digest()
        with self._lock:
            found = self._known.get(digest)
        if found is None:
            found = self._describing.ask("describe_spec", spec, found_dataset.info)
            with self._lock:
                self._known[digest] = found
        # the digest leaves out name and tags, and a check of the images may have ended since
        return replace(found, spec=spec, warnings=[*found.warnings, *dataset_warnings(found_dataset)])

    def _check_import(self, name: str) -> None:
        """Raise Conflict for a dataset that cannot be trained on yet, or whose import has failed."""
        try:
            with self._store.reading() as session:
                newest = datasets.get_version(session, name)
        except NotFound:
            return
        address = f"GET /api/v1/datasets/{name}"
        if newest.status is DatasetStatus.IMPORTING:
            raise Conflict(f"dataset {name} is still being imported", fix=f"{address} says how far it is")
        if newest.status is DatasetStatus.FAILED:
            detail = newest.reason["detail"] if newest.reason else "see the worker's log"
            raise Conflict(f"dataset {name} could not be imported: {detail}", fix="upload it again, corrected")
        raise Conflict(
            f"the files of dataset {name} are not in the data directory of this lab",
            fix="copy the folder datasets of the lab that they were uploaded to, or upload them again",
        )

    def check_start(self, accepted: Accepted, header: WeightsHeader) -> None:
        """Raise SpecError, which names the layer, where the weights that a spec starts from do not fit its network."""
        self._describing.ask("check_start", accepted.spec, accepted.info, header)


def refuse_start(spec: ExperimentSpec, of: str) -> None:
    """Raise SpecError for a spec that starts from another experiment's weights, where that is not possible."""
    if spec.model.init_from is not None:
        message = f"cannot be in a spec {of}; leave it out"
        raise SpecError([{"field": "model.init_from", "message": message}])


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
