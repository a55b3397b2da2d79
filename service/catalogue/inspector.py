"""Validation of submitted specs: fields, dataset, and the network, built on the meta device in another process."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from cachetools import LRUCache
from fastapi import Depends, Request

from models.data.info import DatasetInfo
from models.data.uploaded import FoundDataset, find_dataset, pinned
from models.errors import Conflict, NotFound, SpecError
from models.networks.dataset_findings import dataset_warnings
from models.networks.weights_header import WeightsHeader
from models.settings import Settings
from models.spec.data import DatasetSpec
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
        (found,) = self.accept_all([parse_spec(document)])
        if isinstance(found, SpecError):
            raise found
        return found

    def accept_all(self, specs: Sequence[ExperimentSpec]) -> list[Accepted | SpecError]:
        """Validate parsed specs as `accept` does; a SpecError in the place of each that is refused.

        Specs that differ in name and tags alone are described once. Raises Conflict for a dataset that is still being
        imported.
        """
        found_datasets = {spec.dataset: self._find(spec.dataset) for spec in specs}
        prepared: list[tuple[ExperimentSpec, FoundDataset, str] | SpecError] = []
        for spec in specs:
            found = found_datasets[spec.dataset]
            if isinstance(found, SpecError):
                prepared.append(found)
            else:
                named = pinned(spec, found)
                prepared.append((named, found, named.digest()))
        valid = [each for each in prepared if not isinstance(each, SpecError)]
        described = self._describe({digest: (spec, found.info) for spec, found, digest in valid})
        return [each if isinstance(each, SpecError) else _accepted(*each, described) for each in prepared]

    def _describe(self, specs: dict[str, tuple[ExperimentSpec, DatasetInfo]]) -> dict[str, Accepted | SpecError]:
        """Descriptions of specs by their digests, those that are not known asked for together."""
        with self._lock:
            described: dict[str, Accepted | SpecError] = {
                digest: self._known[digest] for digest in specs if digest in self._known
            }
        unknown = [digest for digest in specs if digest not in described]
        answers = self._describing.ask_all("describe_spec", [specs[digest] for digest in unknown])
        described.update(zip(unknown, answers, strict=True))
        with self._lock:
            for digest, answer in zip(unknown, answers, strict=True):
                if isinstance(answer, Accepted):
                    self._known[digest] = answer
        return described

    def _find(self, dataset: DatasetSpec) -> FoundDataset | SpecError:
        """The dataset of a spec, or why there is none. Raises Conflict for one that is still being imported."""
        try:
            return find_dataset(dataset, self._settings)
        except SpecError as error:
            if error.errors[0]["field"] == "dataset.name":
                self._check_import(dataset.name)
            return error

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


def _accepted(
    spec: ExperimentSpec, found: FoundDataset, digest: str, described: dict[str, Accepted | SpecError]
) -> Accepted | SpecError:
    answer = described[digest]
    if isinstance(answer, SpecError):
        return answer
    # the digest leaves out name and tags, and a check of the images may have ended since
    return replace(answer, spec=spec, warnings=[*answer.warnings, *dataset_warnings(found)])


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
