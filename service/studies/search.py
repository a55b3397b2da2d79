"""Searches as studies: checks a search's space at submission, and reads its results for JSON, pictures and reports."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from models.errors import FieldError, SpecError
from models.spec.rows import Parsed, Row
from models.spec.search import SearchSpec, in_words, num_trials, space_of
from models.spec.trials import located, network_key, networks_of, title_of
from models.store.search_state import SearchState
from models.store.studies import NewRow
from models.store.study_search import read_trials, state_of
from models.store.study_snapshot import StudySnapshot
from models.studies.results import RowResult
from models.studies.search import Ending
from models.studies.search_results import SearchResult
from service.catalogue.inspector import Inspector
from service.studies.accept import accept_specs
from service.studies.documents import (
    BestTrialDocument,
    ImportanceDocument,
    SearchDocument,
    SearchPlanDocument,
)
from service.studies.images import images_of


def accept_space(inspector: Inspector, parsed: Parsed) -> tuple[list[NewRow], list[FieldError]]:
    """Check the networks of a search's space. Returns each as a row that is not run, and the errors."""
    found: list[NewRow] = []
    entries: list[FieldError] = []
    points = list(networks_of(parsed.points))
    for point, accepted in zip(points, accept_specs(inspector, [point.spec for point in points]), strict=True):
        if isinstance(accepted, SpecError):
            entries += [located(entry, point.params) for entry in accepted.errors]
        else:
            row = Row("trial", title_of(point.params), "", accepted.spec, None)
            found.append(NewRow(row, accepted.layers, accepted.warnings, images_of(accepted.spec, accepted.info)))
    return found, entries


def new_search(networks: Sequence[NewRow]) -> SearchState:
    """The data from which a worker makes trials: see models.store.study_search."""
    spec = networks[0].row.spec
    return {
        "dataset": spec.dataset.fingerprint,
        "images": networks[0].images,
        "networks": [{"key": network_key(new.row.spec), "layers": list(new.layers)} for new in networks],
    }


def plan_of(search: SearchSpec) -> SearchPlanDocument:
    """Describe a search that was not started."""
    return SearchPlanDocument(
        sampler=search.sampler.value,
        pruner=search.pruner.value,
        seed=search.seed,
        trials=num_trials(search),
        space={field: in_words(dimension) for field, dimension in space_of(search).items()},
    )


def read_search(session: Session, snapshot: StudySnapshot) -> SearchResult | None:
    """Read the progress and results of a search; None for a study that is not a search."""
    search = snapshot.spec.search
    if search is None:
        return None
    known = state_of(snapshot)
    return SearchResult(
        spec=search,
        trials=read_trials(session, snapshot),
        num_trials=num_trials(search),
        importances=known.get("importances"),
        stopped=known.get("stopped"),
    )


def describe_search(search: SearchResult | None, rows: Sequence[RowResult]) -> SearchDocument | None:
    """Build the document of a search; None for a study that is not a search."""
    if search is None:
        return None
    best = search.best
    row = None if best is None else rows[best.number]
    importances = search.importances
    return SearchDocument(
        **plan_of(search.spec).model_dump(),
        drawn=len(search.trials),
        ended=search.num_ended,
        pruned=sum(trial.ending is Ending.PRUNED for trial in search.trials),
        failed=sum(trial.ending is Ending.FAILED for trial in search.trials),
        diverged=sum(trial.diverged for trial in search.trials),
        stopped=search.stopped,
        best=None
        if best is None or row is None or best.value is None
        else BestTrialDocument(
            key=row.key,
            number=best.number + 1,
            params=dict(best.params),
            val_accuracy=best.value,
            epoch=min(epoch for epoch, value in best.values.items() if value == best.value),
            experiment_id=row.runs[0].experiment_id,
        ),
        best_spec=None if row is None else row.spec.as_json(),
        importance=None
        if importances is None
        else [ImportanceDocument(field=field, importance=value) for field, value in importances.items()],
    )
