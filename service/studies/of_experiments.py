"""Routes that show what studies have measured of single experiments."""

from fastapi import APIRouter

from models.errors import NotFound
from models.store import experiments, study_additions
from service.http.dependencies import StoreDep
from service.http.errors import problems
from service.http.routing import Id, StrictRoute
from service.studies.additions import robustness_document, robustness_of
from service.studies.documents import RobustnessDocument

router = APIRouter(prefix="/experiments", tags=["studies"], route_class=StrictRoute)


@router.get("/{experiment_id}/robustness", responses=problems(401, 404))
def get_experiment_robustness(experiment_id: Id, store: StoreDep) -> RobustnessDocument:
    """Read an experiment's accuracy on corrupted validation images, as the newest study that asked for it has it."""
    with store.reading() as session:
        experiments.get(session, experiment_id)
        addition = study_additions.newest_robustness(session, experiment_id)
        if addition is None:
            raise NotFound(
                f"experiment {experiment_id} was not scored on corrupted images",
                fix="a study whose only row has its spec shares its run and has it scored: POST /api/v1/studies "
                '{"base": its spec, "variants": [{"key": "it"}], "robustness": true}',
            )
        return robustness_document(robustness_of(session, addition))
