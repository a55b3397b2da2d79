"""The best epoch, and when to stop."""

import math

import pytest

from models.curves.metrics import EpochMetrics
from models.spec.training import EarlyStoppingSpec
from worker.training.stopping import BestTracker, EarlyStopping


def epoch(number: int, loss: float, accuracy: float) -> EpochMetrics:
    return EpochMetrics(number, loss, accuracy, loss, accuracy, 0.1, 1.0, 1.0, 1.0, 1.0)


def stops(stopping: EarlyStopping, metrics: EpochMetrics) -> bool:
    stopping.update(metrics)
    return stopping.should_stop


def test_the_best_epoch_is_the_first_of_the_most_accurate() -> None:
    best = BestTracker()
    figures = [(1.0, 0.5), (0.9, 0.5), (0.95, 0.5), (2.0, 0.6), (math.nan, math.nan), (2.1, 0.6)]
    assert [best.update(epoch(n, *values)) for n, values in enumerate(figures, 1)] == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    assert best.epoch == 4


@pytest.mark.parametrize(
    ("monitor", "values", "stops_at"),
    [
        ("val_loss", [1.0, 0.9, 0.95, 0.91, 0.5], 4),
        ("val_loss", [1.0, 0.9, 0.95, 0.8, 0.85, 0.82], 6),
        ("val_accuracy", [0.1, 0.3, 0.2, 0.3, 0.9], 4),
        ("train_loss", [1.0, 0.9, 0.8, 0.7], None),
        ("val_loss", [1.0, math.nan, math.nan], 3),
    ],
)
def test_early_stopping_waits_out_its_patience(monitor: str, values: list[float], stops_at: int | None) -> None:
    stopping = EarlyStopping(EarlyStoppingSpec.model_validate_json(f'{{"monitor": "{monitor}", "patience": 2}}'))
    stopped = [number for number, value in enumerate(values, 1) if stops(stopping, epoch(number, value, value))]
    assert (stopped[0] if stopped else None) == stops_at


def test_small_gains_do_not_count_below_min_delta() -> None:
    stopping = EarlyStopping(EarlyStoppingSpec(patience=2, min_delta=0.1))
    assert [stops(stopping, epoch(n, 1.0 - 0.04 * n, 0.1)) for n in range(1, 4)] == [False, False, True]


def test_both_go_on_from_a_checkpoint_where_they_were() -> None:
    stopping, best = EarlyStopping(EarlyStoppingSpec(patience=2)), BestTracker()
    for number, loss in enumerate([1.0, 2.0], 1):
        assert not stops(stopping, epoch(number, loss, 1 / loss))
        best.update(epoch(number, loss, 1 / loss))
    again, best_again = EarlyStopping(EarlyStoppingSpec(patience=2)), BestTracker()
    again.load_state_dict(stopping.state_dict())
    best_again.load_state_dict(best.state_dict())
    assert stops(again, epoch(3, 2.0, 0.5))
    assert best_again == best == BestTracker(1, 1.0)
