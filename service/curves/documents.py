"""JSON documents of curves."""

from collections.abc import Iterable

from pydantic import Field
from pydantic_core import to_json

from models.curves.metrics import EpochMetrics, Summaries
from service.experiments.documents import Best
from service.http.documents import Document


class Epoch(Document):
    """The metrics of one epoch; null stands for what was not finite or not measured."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    lr: float | None
    grad_norm: float | None
    seconds: float | None
    images_per_second: float | None
    peak_memory_mb: float | None


class MetricsDocument(Document):
    """The curves of an experiment."""

    experiment_id: int
    epochs: list[Epoch]
    best: dict[str, Best]


def metrics_json(experiment_id: int, history: Iterable[EpochMetrics], summaries: Summaries) -> bytes:
    """Serialise curves as a MetricsDocument, without building an object per epoch."""
    epochs = [metrics.as_json() for metrics in history]
    return to_json({"experiment_id": experiment_id, "epochs": epochs, "best": summaries["best"]})


class ClassAccuracies(Document):
    """The validation accuracy of each class in one epoch; null for a class without images."""

    epoch: int
    accuracy: list[float | None] | None = Field(description="In the order of the classes; null where not measured.")


class ClassMetricsDocument(Document):
    """Validation accuracies of the classes, by epoch."""

    experiment_id: int
    classes: list[str]
    epochs: list[ClassAccuracies]
