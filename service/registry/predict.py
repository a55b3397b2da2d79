"""Predictions by a model's name: its version, and the prediction with that experiment's weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import Conflict
from models.store import Store, registry
from service.http.uploads import Upload
from service.predictions.predict import PredictionQueue, PredictionsDocument, predict
from service.predictions.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Asked:
    """A version of a model, with the experiment that has its weights."""

    name: str
    version: int
    experiment_id: int
    weights: str
    """best or last."""


def find_version(store: Store, name: str, version: int | None = None) -> Asked:
    """The version that a name serves, or another one by its number.

    Raises NotFound without such a name or version, Conflict for a version that was withdrawn.
    """
    with store.reading() as session:
        found = registry.current(session, name) if version is None else registry.get_version(session, name, version)
        if found.experiment_id is None:  # a database from elsewhere: a version that is served keeps its experiment
            raise Conflict(f"version {found.version} of model '{name}' has lost its experiment", fix="PUT another one")
        return Asked(name, found.version, found.experiment_id, found.weights.value)


async def predict_by_name(
    predictor: Predictor, queue: PredictionQueue, caller: str, asked: Asked, images: Sequence[Upload], top_k: int
) -> PredictionsDocument:
    """Predict with a version of a model. Raises what `predict` raises; a Conflict names the model and the way back."""
    try:
        document = await predict(predictor, queue, caller, asked.experiment_id, asked.weights, images, top_k)
    except Conflict as error:
        raise Conflict(
            f"version {asked.version} of model '{asked.name}': {error.detail}",
            fix=f"POST /api/v1/models/{asked.name}/rollback goes back to the version before it; PUT makes another",
        ) from error
    return document.model_copy(update={"model": asked.name, "version": asked.version})
