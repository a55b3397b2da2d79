"""Recorded steps, with a recording on a CPU that computes the step again: all but the CUDA graph itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.settings import Settings
from tests.worker.training.tiny import figures, images, run, spec
from worker.training import build, engine, graphs, tuning
from worker.training.engine import train
from worker.training.graphs import GraphedSteps, can_be_recorded
from worker.training.guard import DeferredFiniteGuard
from worker.training.precision import MixedPrecision, Precision
from worker.training.sink import MemorySink
from worker.training.state import TrainingState
from worker.training.step import optimizer_step
from worker.training.tuning import choose_tuning

CPU = torch.device("cpu")


def recorded_on_cpu(compute: Callable[[], None]) -> Callable[[], None]:
    """As on a GPU: a few steps that will be put back, then the step itself, which is not computed there."""
    for _ in range(3):
        compute()
    return compute


@pytest.fixture
def graphed(monkeypatch: pytest.MonkeyPatch) -> list[GraphedSteps]:
    """Runs record their steps and look for divergence later, as on a GPU."""
    made: list[GraphedSteps] = []

    def make(state: Any) -> GraphedSteps:
        made.append(GraphedSteps(state, record_graph=recorded_on_cpu))
        return made[-1]

    tune = engine.choose_tuning
    monkeypatch.setattr(engine, "choose_tuning", lambda *given, **_: replace(tune(*given), graphs=True))
    monkeypatch.setattr(build, "GraphedSteps", make)
    monkeypatch.setattr(
        build, "build_finite_guard", lambda optimizer, device, scaled: DeferredFiniteGuard(optimizer, device)
    )
    return made


CHANGES: list[dict[str, Any]] = [
    {"lr_scheduler": {"name": "cosine"}, "clip_grad_norm": 1.0},
    {"optimizer": {"name": "adamw", "lr": 0.01}, "ema_decay": 0.9, "fine_tuning": {"freeze_backbone_epochs": 1}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["sgd", "adamw"])
def test_recorded_steps_give_the_same_run(tmp_path: Path, graphed: list[GraphedSteps], changes: dict[str, Any]) -> None:
    """160 images make five batches of 32: there is one kind of batch, and another while the body is frozen."""
    _, recorded = run(tmp_path / "recorded", **changes)
    assert graphed[0].failure is None
    assert len(graphed[0].recordings) == (2 if "fine_tuning" in changes else 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "can_be_recorded", lambda *_: False)
        _, plain = run(tmp_path / "plain", **changes)
    assert len(graphed) == 1
    for ours, theirs in zip(figures(recorded.epochs), figures(plain.epochs), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)  # rates are 32-bit numbers on the device


def test_a_smaller_last_batch_is_recorded_by_itself(tmp_path: Path, graphed: list[GraphedSteps]) -> None:
    run(tmp_path, batch_size=50)
    assert sorted(shape[0] for shape, _ in graphed[0].recordings) == [10, 50]


def test_a_resumed_run_records_anew_and_goes_on_the_same(tmp_path: Path, graphed: list[GraphedSteps]) -> None:
    changes = CHANGES[0]
    _, whole = run(tmp_path / "whole", **changes)
    first, second = MemorySink(), MemorySink()
    steps = iter(range(1000))
    train(
        spec(**changes),
        images(),
        first,
        tmp_path / "first",
        device="cpu",
        should_stop=lambda: "shutdown" if next(steps) == 7 else None,
    )
    train(spec(**changes), images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert figures(first.epochs + second.epochs) == figures(whole.epochs)


def test_what_cannot_be_recorded_is_computed(
    tmp_path: Path, graphed: list[GraphedSteps], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(compute: Callable[[], None]) -> Callable[[], None]:
        compute()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr("tests.worker.training.test_graphs.recorded_on_cpu", refuse)
    _, refused = run(tmp_path / "refused")
    assert graphed[0].failure == "operation not permitted when stream is capturing"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "can_be_recorded", lambda *_: False)
        _, plain = run(tmp_path / "plain")
    assert figures(refused.epochs) == figures(plain.epochs)


@pytest.mark.usefixtures("no_rates_tried")
def test_a_divergence_in_recorded_steps_is_found(tmp_path: Path, graphed: list[GraphedSteps]) -> None:
    outcome, sink = run(tmp_path, optimizer={"name": "sgd", "lr": 100.0}, batch_size=8)
    assert outcome.status == "diverged"
    assert graphed[0].recordings
    assert sink.verdicts


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"accumulate_batches": 2}, False),
        ({"augmentation": {"mixup_alpha": 0.2}}, False),
        ({"optimizer": "rmsprop"}, False),
    ],
)
def test_steps_that_python_decides_anew_are_not_recorded(changes: dict[str, Any], possible: bool) -> None:
    assert can_be_recorded(spec(**changes), MixedPrecision(Precision.FP32, CPU)) is possible


@pytest.mark.gpu
@pytest.mark.parametrize("changes", CHANGES, ids=["sgd", "adamw"])
def test_steps_recorded_on_a_gpu_give_the_same_run(tmp_path: Path, gpu: torch.device, changes: dict[str, Any]) -> None:
    found = []
    for cuda_graphs in (False, True):
        sink = MemorySink()
        train(spec(**changes), images(), sink, tmp_path / str(cuda_graphs), device=str(gpu), cuda_graphs=cuda_graphs)
        assert sink.environments[-1]["cuda_graphs"] == ("recorded" if cuda_graphs else None)
        found.append(figures(sink.epochs))
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_steps_that_a_gpu_cannot_record_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reading(state: TrainingState, loss: torch.Tensor) -> torch.Tensor:
        loss.item()  # waits for the device, which no recording may
        return optimizer_step(state, loss)

    monkeypatch.setattr(graphs, "optimizer_step", reading)
    found = []
    for cuda_graphs in (False, True):
        sink = MemorySink()
        outcome = train(spec(), images(), sink, tmp_path / str(cuda_graphs), device="cuda", cuda_graphs=cuda_graphs)
        assert outcome.status == "completed"
        found.append(figures(sink.epochs))
    assert "captur" in sink.environments[-1]["cuda_graphs"]
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.gpu
@pytest.mark.usefixtures("gpu")
def test_steps_are_recorded_while_a_thread_prepares_the_next_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "DEVICE_SHARE", 0.0)  # no image may stay on the device
    monkeypatch.setattr(tuning, "GPU_CHUNK", 40 * 16**2)
    sink = MemorySink()
    train(spec(), images(), sink, tmp_path, device="cuda", cuda_graphs=True)
    assert sink.environments[-1]["cuda_graphs"] == "recorded"
    assert sink.environments[-1]["tuning"]["prefetch"]


@pytest.mark.gpu
def test_a_divergence_in_steps_recorded_on_a_gpu_is_found(tmp_path: Path, gpu: torch.device) -> None:
    sink = MemorySink()
    wanted = spec(optimizer={"name": "sgd", "lr": 100.0}, batch_size=8)
    outcome = train(wanted, images(), sink, tmp_path, device=str(gpu), cuda_graphs=True)
    assert outcome.status == "diverged"


def test_a_worker_records_steps_unless_told_otherwise_and_on_a_gpu_only() -> None:
    assert Settings().cuda_graphs
    assert not choose_tuning(spec(), images(), "cpu", cuda_graphs=True).graphs
