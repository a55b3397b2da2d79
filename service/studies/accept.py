"""Validation of the specs that a study's runs have."""

from collections.abc import Sequence

from models.errors import SpecError
from models.spec.experiment import ExperimentSpec
from service.catalogue.accepted import Accepted
from service.catalogue.inspector import Inspector, refuse_start


def accept_specs(inspector: Inspector, specs: Sequence[ExperimentSpec]) -> list[Accepted | SpecError]:
    """Validate specs whose experiments a worker creates; a SpecError in the place of each that is refused."""
    return [_startable(found) for found in inspector.accept_all(specs)]


def _startable(found: Accepted | SpecError) -> Accepted | SpecError:
    if isinstance(found, Accepted):
        try:
            refuse_start(found.spec, "of a study, whose experiments a worker creates")
        except SpecError as error:
            return error
    return found
