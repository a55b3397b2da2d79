"""Comparison of two experiments' stability: a figure each, and which curves are more stable."""

from pydantic import Field
from sqlalchemy.orm import Session

from models.curves.stability import Stability, compare_stability, measure_stability
from models.data.uploaded import find_dataset
from models.errors import SpecError
from models.settings import Settings
from models.spec.parse import load_spec
from models.store import experiments, history
from models.store.tables import Experiment
from service.curves.read import get_compared
from service.http.documents import API, Document
from service.http.prefix import with_prefix


class StabilityFigures(Document):
    """One experiment's stability. `models.curves.stability` defines each figure."""

    score: float = Field(description="From 0 to 1; 1 is a curve without fluctuation that keeps its best value.")
    wobble: float | None = Field(description="From epoch to epoch; 1 halves the score. null: it ended non-finite.")
    wobble_accuracy: float | None = Field(description="Standard deviation of the validation accuracy.")
    wobble_loss: float | None = Field(description="The same of the loss, as a part of it.")
    kept: float = Field(description="Part of the best gain over chance that was left at the end.")
    doubt: float = Field(description="Standard error of the score.")


class StabilityDocument(Document):
    """Comparison of two experiments' stability."""

    experiment: int
    compared_with: int
    stability: tuple[StabilityFigures | None, StabilityFigures | None] = Field(
        description="Of both; null with fewer than four epochs."
    )
    difference: float | None = Field(description="The second score less the first.")
    confidence: float | None = Field(description="How sure it is that the higher one is higher.")
    more_stable: int | None = Field(description="Its id; null where the difference may be chance, or is below 0.02.")
    sentence: str = Field(description="The same in words.")
    links: dict[str, str]


def compare(session: Session, settings: Settings, experiment_id: int, other_id: int) -> StabilityDocument:
    """Compare the stability of two experiments over the epochs that both have."""
    row, other = experiments.get(session, experiment_id), get_compared(session, other_id)
    first, second = (_measure(session, settings, one) for one in (row, other))
    found = compare_stability(first, second, (f"experiment {row.id}", f"experiment {other.id}"))
    winner = found["more_stable"]
    return StabilityDocument(
        experiment=row.id,
        compared_with=other.id,
        stability=(_figures(first), _figures(second)),
        more_stable=None if winner is None else (row.id, other.id)[winner],
        links={"curves": with_prefix(f"{API}/experiments/{row.id}/curves.png?compare={other.id}")},
        difference=found["difference"],
        confidence=found["confidence"],
        sentence=found["sentence"],
    )


def _measure(session: Session, settings: Settings, row: Experiment) -> Stability | None:
    return measure_stability(history.read(session, row.id), _num_classes(row, settings))


def _num_classes(row: Experiment, settings: Settings) -> int:
    """The number of an experiment's classes, also once its uploaded dataset was deleted."""
    try:
        return find_dataset(load_spec(row.spec).dataset, settings).info.num_classes
    except SpecError:
        outputs = [layer["output_shape"][0] for layer in row.layers or [] if layer["parameters"]]
        if not outputs:
            raise
        return outputs[-1]


def _figures(stability: Stability | None) -> StabilityFigures | None:
    return None if stability is None else StabilityFigures(**stability.as_json())
