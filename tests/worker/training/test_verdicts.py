"""Verdicts come often enough to be read live, and cost a run at most a hundredth of its time."""

from typing import Any

import pytest

from models.spec.parse import parse_spec
from tests.models.verdict.histories import make_history
from worker.training import verdicts as verdicts_module
from worker.training.history import RunHistory
from worker.training.sink import MemorySink
from worker.training.verdicts import Verdicts

SPEC = parse_spec({"model": "baseline"})


class Run:
    """A run whose epochs and verdicts take as long as is said; remembers after which epochs there was a verdict."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epoch_seconds: float, verdict_seconds: float) -> None:
        self.now = 0.0
        self.judged: list[int] = []
        self.asked_for_kernels = 0
        self.epoch_seconds = epoch_seconds
        self.verdict_seconds = verdict_seconds
        monkeypatch.setattr(verdicts_module, "judge", self.judge)
        self.history = RunHistory()
        self.verdicts = Verdicts(SPEC, 10, self.history, MemorySink(), lambda: self.now)

    def judge(self, history: list[Any], **_: Any) -> dict[str, Any]:
        """In the verdict's place: takes its time, in proportion to the history."""
        self.judged.append(len(history))
        self.now += self.verdict_seconds * len(history)
        return {}

    def kernels(self) -> dict[int, Any]:
        self.asked_for_kernels += 1
        return {}

    def train(self, num_epochs: int) -> None:
        for metrics in make_history(val_loss=[1.0] * num_epochs):
            self.now += self.epoch_seconds
            self.history.epochs.append(metrics)
            self.verdicts.judge_if_due(self.kernels)


def test_all_verdicts_together_grow_with_the_number_of_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    for num_epochs in (1_000, 10_000):
        run = Run(monkeypatch, epoch_seconds=5.0, verdict_seconds=0.0)
        run.train(num_epochs)
        assert run.judged[:20] == list(range(1, 21)), "the first are given after every epoch"
        assert sum(run.judged) <= 22 * num_epochs
        assert run.judged[-1] > 0.95 * num_epochs - 1
        assert run.asked_for_kernels == len(run.judged), "what no verdict reads is not put together"


def test_verdicts_of_short_epochs_take_a_hundredth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(monkeypatch, epoch_seconds=0.01, verdict_seconds=1e-4)
    run.train(5_000)
    spent = run.verdict_seconds * sum(run.judged)
    assert spent - run.verdict_seconds * run.judged[-1] <= 0.01 * run.now
    assert len(run.judged) >= 10
