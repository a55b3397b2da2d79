"""Finds and checks another experiment's weights, for specs that start from them (model.init_from)."""

from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from models import files
from models.errors import CorruptFile, FieldError, NotFound, SpecError
from models.networks.weights_header import read_header
from models.spec.model import InitFromSpec
from models.store import Store, artifacts, experiments
from models.store.artifacts import ArtifactRecord
from models.store.states import ArtifactKind
from service.catalogue.accepted import Accepted
from service.catalogue.inspector import Inspector

FIELD = "model.init_from"


def find_start(
    accepted: Accepted, wanted: InitFromSpec, inspector: Inspector, store: Store, experiments_dir: Path
) -> tuple[Accepted, ArtifactRecord]:
    """The weights that a spec starts from (`wanted`, its model.init_from), and the spec with their digest.

    Raises SpecError where there is no such experiment, where it has no such weights, and where they do not fit.
    """
    record = _find(store, wanted)
    try:
        path = record.file(experiments_dir)
        files.verify(path, record.sha256)
        inspector.check_start(accepted, read_header(path))
    except CorruptFile as error:
        text = f"the weights of experiment {wanted.experiment} cannot be read: {error.detail}"
        _refuse({"field": FIELD, "message": text})
    model = accepted.spec.model.model_copy(update={"init_from": wanted.model_copy(update={"sha256": record.sha256})})
    return replace(accepted, spec=accepted.spec.model_copy(update={"model": model})), record


def _find(store: Store, wanted: InitFromSpec) -> ArtifactRecord:
    kind = ArtifactKind(f"weights-{wanted.weights}")
    with store.reading() as session:
        try:
            experiments.get(session, wanted.experiment)
        except NotFound:
            text = f"there is no experiment {wanted.experiment}"
            _refuse({"field": f"{FIELD}.experiment", "message": text, "value": wanted.experiment})
        record = artifacts.newest(session, wanted.experiment, kind)
    if record is None:
        text = f"experiment {wanted.experiment} has no {wanted.weights} weights yet"
        _refuse(
            {"field": f"{FIELD}.weights", "message": text, "value": wanted.weights},
            fix="wait until an epoch of it has ended",
        )
    if wanted.sha256 not in (None, record.sha256):
        text = f"the {wanted.weights} weights of experiment {wanted.experiment} have another digest"
        _refuse(
            {"field": f"{FIELD}.sha256", "message": text, "value": wanted.sha256, "nearest": record.sha256},
            fix="leave sha256 out to start from the present ones; an experiment that has been stored keeps its own",
        )
    return record


def _refuse(entry: FieldError, *, fix: str = "GET /api/v1/experiments lists them") -> NoReturn:
    raise SpecError([entry], fix=fix)
