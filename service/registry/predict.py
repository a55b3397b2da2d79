"""Predicts by a model's name: finds the version that it serves, and predicts with that experiment's weights."""

from collections.abc import Sequence
from dataclasses import dataclass

from anyio import to_thread
from cachetools import LRUCache
from fastapi import Request

from models.errors import Conflict
from models.store import Store, registry
from models.store.stamps import Stamps
from service.http.uploads import Upload
from service.predictions.predict import PredictionsDocument, predict_while_connected

MAX_KNOWN = 256


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
            raise Conflict(
                f"version {found.version} of model '{name}' belongs to a deleted experiment", fix="PUT another one"
            )
        return Asked(name, found.version, found.experiment_id, found.weights.value)


class Versions:
    """A cache of the versions that names serve, valid while the database does not change. For the event loop."""

    def __init__(self, store: Store, stamps: Stamps) -> None:
        self._store = store
        self._stamps = stamps
        self._known: LRUCache[tuple[str, int | None], tuple[int, Asked]] = LRUCache(MAX_KNOWN)

    async def find(self, name: str, version: int | None = None) -> Asked:
        """As `find_version`."""
        stamp = self._stamps.of_everything()
        known = self._known.get((name, version))
        if known is not None and known[0] == stamp:
            return known[1]
        asked = await to_thread.run_sync(find_version, self._store, name, version)
        if stamp is not None:
            self._known[name, version] = (stamp, asked)
        return asked


async def predict_by_name(
    request: Request, caller: str, asked: Asked, images: Sequence[Upload], top_k: int
) -> PredictionsDocument:
    """Predict with a version of a model while the client is connected.

    Raises what `predict` raises; a Conflict names the model and how to roll back.
    """
    try:
        document = await predict_while_connected(request, caller, asked.experiment_id, asked.weights, images, top_k)
    except Conflict as error:
        back = f"POST /api/v1/models/{asked.name}/rollback goes back to the version before it; PUT makes another"
        raise Conflict(
            f"version {asked.version} of model '{asked.name}': {error.detail}",
            fix=back if error.fix is None else f"{error.fix}; {back}",
        ) from error
    return document.model_copy(update={"model": asked.name, "version": asked.version})
