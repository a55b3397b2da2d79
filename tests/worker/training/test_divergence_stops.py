"""A loss, gradient or weight that stops being finite is caught at once and leaves usable weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.verdict.divergence import Divergence
from tests.worker.training.tiny import NETWORK, PLAIN, figures, images, no_rates_tried, run, spec
from worker.training import engine as engine_module
from worker.training.engine import train
from worker.training.guard import READ_EVERY, DeferredFiniteGuard, Diverged, FiniteGuard
from worker.training.sink import MemorySink, Outcome
from worker.training.step import clip_grad_norm

DECAY = {"name": "sgd", "momentum": 0.0, "weight_decay": 10.0}
"""A step multiplies every weight by 1 - 10 * lr, whatever the images are: at 100 by -999, at 1 by -9, at 0.1 by 0."""

HOPELESS: dict[str, Any] = {"optimizer": {**DECAY, "lr": 100.0}, "model": PLAIN, "epochs": 4, "batch_size": 8}
"""Diverges within the first epoch."""

LOWERED: dict[str, Any] = {**HOPELESS, "on_divergence": "lower_lr", "optimizer": {**DECAY, "lr": 1.0}}
"""Diverges until its rate was lowered to 0.1."""


@pytest.fixture(scope="module")
def lowered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, MemorySink]:
    """A whole run that lowered its rate."""
    with no_rates_tried():
        return run(tmp_path_factory.mktemp("lowered"), **LOWERED)


def all_finite(path: Path) -> bool:
    return all(torch.isfinite(tensor).all() for tensor in load_file(path).values())


def test_a_diverged_run_stops_within_the_step_and_keeps_finite_weights(tmp_path: Path) -> None:
    outcome, sink = run(tmp_path, **HOPELESS)
    assert outcome.status == "diverged"
    assert outcome.reason is not None
    assert "epoch 1" in outcome.reason
    assert all_finite(tmp_path / "weights-last.safetensors")
    assert len(sink.epochs) == 1
    assert math.isnan(sink.epochs[0].train_loss)
    [found] = [finding for finding in sink.verdicts[-1].findings if finding.code == "divergence"]
    happened = outcome.reason.split(";")[0]
    assert found.sentence.startswith(f"Training diverged: {happened}."), "reason and verdict name the same thing"


@pytest.mark.usefixtures("no_rates_tried")
def test_a_divergence_of_batch_norm_leaves_finite_running_statistics(tmp_path: Path) -> None:
    body = {"name": "cnn", "blocks": [{"convs": [{"channels": 4, "batch_norm": True}]}], "head": {"hidden": [16, 16]}}
    outcome, _ = run(tmp_path, **{**HOPELESS, "model": body, "epochs": 50})
    assert outcome.status == "diverged"
    assert all_finite(tmp_path / "weights-last.safetensors")


def test_a_run_that_lowers_its_rate_goes_on_from_the_last_checkpoint(lowered: tuple[Outcome, MemorySink]) -> None:
    outcome, sink = lowered
    assert outcome.status == "completed"
    notices = [data for code, _, data in sink.notices if code == "lr-lowered"]
    assert 1 <= len(notices) <= 3
    rate = 0.1 ** len(notices)
    assert notices[-1]["lr"] == pytest.approx(rate)
    assert [metrics.epoch for metrics in sink.epochs] == [1, 2, 3, 4]
    assert sink.epochs[-1].lr == pytest.approx(rate)
    assert all(math.isfinite(metrics.train_loss) for metrics in sink.epochs)
    assert "lr-lowered" in [finding.code for finding in sink.verdicts[-1].findings]


@pytest.mark.usefixtures("no_rates_tried")
def test_a_run_that_lowered_its_rate_is_resumed_with_it(tmp_path: Path, lowered: tuple[Outcome, MemorySink]) -> None:
    _, whole = lowered
    first = MemorySink()
    train(
        spec(**LOWERED),
        images(),
        first,
        tmp_path / "first",
        device="cpu",
        should_stop=lambda: "shutdown" if len(first.epochs) == 2 else None,
    )
    second = MemorySink()
    train(spec(**LOWERED), images(), second, tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    assert figures(first.epochs + second.epochs) == figures(whole.epochs)


def test_lowering_is_tried_three_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(*_: Any, **__: Any) -> None:
        raise Diverged(1, 0, "loss")

    def explained(diverged: Diverged, *_: Any, lowered_to: float | None) -> Divergence:
        return Divergence(diverged.epoch, diverged.step + 1, diverged.what, None, None, (), 100.0, None, "", lowered_to)

    monkeypatch.setattr(engine_module, "train_epoch", always)
    monkeypatch.setattr(engine_module, "explain_divergence", explained)  # four explanations take a minute
    outcome, sink = run(tmp_path, **{**HOPELESS, "on_divergence": "lower_lr"})
    assert outcome.status == "diverged"
    assert [code for code, _, _ in sink.notices] == ["lr-lowered"] * 3


@pytest.mark.parametrize(("what", "loss", "norm"), [("loss", math.inf, 1.0), ("gradient", 1.0, math.nan)])
def test_the_guard_names_what_was_not_finite(what: str, loss: float, norm: float) -> None:
    guard = FiniteGuard(watch_gradient=True)
    guard.begin(3, 6)
    guard.check(torch.tensor(1.0), torch.tensor(1.0))
    guard.end_step(torch.tensor(1.0))
    with pytest.raises(Diverged) as caught:
        guard.check(torch.tensor(loss), torch.tensor(norm))
    assert (caught.value.epoch, caught.value.step, caught.value.what) == (3, 7, what)
    assert [float(value) for value in guard.grad_norms] == pytest.approx([1.0, norm], nan_ok=True)


def test_overflow_that_loss_scaling_deals_with_is_no_divergence() -> None:
    FiniteGuard(watch_gradient=False).check(torch.tensor(1.0), torch.tensor(math.inf))


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("guilty", [0, 1, 7, 8, 9, 16, 30])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_guard_that_reads_later_learns_in_time_and_the_weights_stay(
    guilty: int, name: str, device: str, request: pytest.FixtureRequest
) -> None:
    """What runs on a GPU, with the same optimizers on a CPU: fused ones leave out a step when they are told so."""
    place = torch.device("cpu") if device == "cpu" else request.getfixturevalue("gpu")
    parameter = nn.Parameter(torch.ones(4, device=place))
    classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = classes[name]([parameter], lr=0.1, fused=True)
    guard = DeferredFiniteGuard(optimizer, place)
    before: dict[int, torch.Tensor] = {}

    def train_on(first: int) -> None:
        guard.begin(2, first)
        for step in range(first, first + 60):
            before[step] = parameter.detach().clone()
            parameter.grad = torch.full((4,), math.nan if step == first + guilty else 1.0, device=place)
            norm = clip_grad_norm([parameter], None)
            guard.check(norm * 2, norm)
            optimizer.step()
            guard.end_step(norm)

    with pytest.raises(Diverged) as caught:
        train_on(100)
    assert (caught.value.epoch, caught.value.step, caught.value.what) == (2, 100 + guilty, "loss")
    assert max(before) - (100 + guilty) <= 2 * READ_EVERY < 20
    assert torch.equal(parameter, before[100 + guilty])


def test_a_guard_that_reads_later_reads_at_the_end_of_the_epoch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, fused=True)
    guard = DeferredFiniteGuard(optimizer, torch.device("cpu"))
    guard.begin(1, 0)
    guard.check(torch.tensor(1.0), torch.tensor(1.0))
    guard.end_step(torch.tensor(1.0))
    guard.wait()
    guard.check(torch.tensor(1.0), torch.tensor(math.inf))
    with pytest.raises(Diverged) as caught:
        guard.wait()
    assert (caught.value.step, caught.value.what) == (1, "gradient")


@pytest.mark.parametrize("largest", [None, 0.5, 100.0])
def test_the_gradient_norm_is_torchs(largest: float | None) -> None:
    ours = [nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(2))]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    for one, two in zip(ours[:2], theirs[:2], strict=True):  # the third has no gradient
        one.grad = torch.randn_like(one)
        two.grad = one.grad.clone()
    norm = clip_grad_norm(ours, largest)
    expected = nn.utils.clip_grad_norm_(theirs, largest or math.inf)
    assert norm == pytest.approx(float(expected))
    for one, two in zip(ours[:2], theirs[:2], strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.allclose(one.grad, two.grad, atol=1e-6)


@pytest.mark.usefixtures("no_rates_tried")
def test_a_spoilt_weight_is_replaced_by_the_last_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a weight overflow although its gradient was finite, the run ends with the last checkpoint's weights."""
    calls = 0
    real = engine_module.train_epoch

    def poison(state: Any, *rest: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            with torch.no_grad():
                next(state.network.parameters()).fill_(math.inf)
        real(state, *rest)

    monkeypatch.setattr(engine_module, "train_epoch", poison)
    outcome, _ = run(tmp_path, model=NETWORK)
    assert outcome.status == "diverged"
    last = load_file(tmp_path / "weights-last.safetensors")
    saved = torch.load(tmp_path / "checkpoint-00002-0000000.pt", weights_only=True)["state"]["network"]
    assert all(torch.equal(last[name], saved[name]) for name in last)
    assert all_finite(tmp_path / "weights-best.safetensors")
