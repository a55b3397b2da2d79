"""Each schedule against torch's scheduler of that name."""

import math
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.training.schedules import Schedule

STEPS, EPOCHS, LR = 7, 12, 0.4


def optimizer(lr: float = LR) -> torch.optim.Optimizer:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    sgd.param_groups[0]["base_lr"] = lr
    return sgd


def schedule(lr: float = LR, **wanted: Any) -> Schedule:
    spec: ExperimentSpec = parse_spec({"model": "baseline", "epochs": EPOCHS, "lr_scheduler": wanted})
    return Schedule(spec.lr_scheduler, optimizer(lr), steps_per_epoch=STEPS, epochs=EPOCHS, base_lr=lr)


def by_step(theirs: Any, sgd: torch.optim.Optimizer, *, an_epoch: bool) -> list[float]:
    """The rates of every step when torch's scheduler is stepped once an epoch, or once a step."""
    rates = []
    for number in range(STEPS * EPOCHS):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if not an_epoch or (number + 1) % STEPS == 0:
            theirs.step()
    return rates


@pytest.mark.parametrize(
    ("wanted", "build", "an_epoch"),
    [
        ({"name": "exponential", "gamma": 0.9}, lambda sgd: lr_scheduler.ExponentialLR(sgd, 0.9), True),
        ({"name": "step", "step_size": 3, "gamma": 0.5}, lambda sgd: lr_scheduler.StepLR(sgd, 3, 0.5), True),
        (
            {"name": "multistep", "milestones": [2, 5, 11], "gamma": 0.1},
            lambda sgd: lr_scheduler.MultiStepLR(sgd, [2, 5, 11], 0.1),
            True,
        ),
        (
            {"name": "cosine", "eta_min": 0.01},
            lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, STEPS * EPOCHS - 1, 0.01),
            False,
        ),
        (
            {"name": "one_cycle", "pct_start": 0.25, "div_factor": 10, "final_div_factor": 100},
            lambda sgd: lr_scheduler.OneCycleLR(
                sgd,
                LR,
                total_steps=STEPS * EPOCHS,
                pct_start=0.25,
                div_factor=10,
                final_div_factor=100,
                cycle_momentum=False,
            ),
            False,
        ),
        (
            {"name": "one_cycle", "anneal": "linear"},
            lambda sgd: lr_scheduler.OneCycleLR(
                sgd, LR, total_steps=STEPS * EPOCHS, anneal_strategy="linear", cycle_momentum=False
            ),
            False,
        ),
    ],
    ids=["exponential", "step", "multistep", "cosine", "one_cycle", "one_cycle-linear"],
)
def test_a_schedule_is_torchs(wanted: dict[str, Any], build: Any, an_epoch: bool) -> None:
    sgd = optimizer()
    expected = by_step(build(sgd), sgd, an_epoch=an_epoch)
    ours = schedule(**wanted)
    assert [ours.lr_at(step) for step in range(STEPS * EPOCHS)] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_plateau_is_torchs() -> None:
    losses = [2.0, 1.5, 1.5, 1.4999, 1.6, 1.4, 1.41, 1.42, 1.43, 1.44, 1.45, math.nan]
    sgd = optimizer()
    theirs = lr_scheduler.ReduceLROnPlateau(sgd, factor=0.3, patience=1, threshold=1e-2, min_lr=0.02)
    ours = schedule(name="plateau", factor=0.3, patience=1, threshold=1e-2, min_lr=0.02)
    for epoch, loss in enumerate(losses):
        before = sgd.param_groups[0]["lr"]
        theirs.step(loss)
        assert ours.end_epoch(loss) == (sgd.param_groups[0]["lr"] < before)
        assert ours.lr_at((epoch + 1) * STEPS) == pytest.approx(sgd.param_groups[0]["lr"])


@pytest.mark.parametrize("name", ["constant", "exponential", "cosine", "plateau", "step"])
def test_any_schedule_can_warm_up(name: str) -> None:
    ours = schedule(name=name, warmup_epochs=2, warmup_start_factor=0.1)
    without = schedule(name="constant" if name == "cosine" else name)
    rates = [ours.lr_at(step) for step in range(2 * STEPS + 1)]
    assert rates[0] == pytest.approx(0.1 * LR)
    assert rates == sorted(rates) or name == "exponential"
    assert rates[-1] == pytest.approx(without.lr_at(2 * STEPS))


def test_the_cosine_spans_what_the_warm_up_leaves() -> None:
    ours = schedule(name="cosine", warmup_epochs=2)
    assert ours.lr_at(2 * STEPS) == pytest.approx(LR)
    assert ours.lr_at(STEPS * EPOCHS - 1) == pytest.approx(0)


def test_every_group_keeps_its_share_of_the_rate() -> None:
    ours = schedule(name="exponential", gamma=0.5)
    ours.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.04, "base_lr": 0.04})
    ours.apply(2 * STEPS)
    assert [group["lr"] for group in ours.optimizer.param_groups] == pytest.approx([0.1, 0.01])


def test_one_step_in_all_is_enough() -> None:
    for name in ("constant", "exponential", "cosine", "one_cycle", "plateau"):
        spec = parse_spec({"model": "baseline", "epochs": 1, "lr_scheduler": name})
        ours = Schedule(spec.lr_scheduler, optimizer(), steps_per_epoch=1, epochs=1, base_lr=LR)
        assert 0 < ours.lr_at(0) <= LR


def test_a_lowered_rate_stays_lowered_after_a_resume() -> None:
    ours = schedule(name="plateau", patience=0)
    ours.scale = 0.1
    ours.end_epoch(1.0)
    ours.end_epoch(1.0)
    again = schedule(name="plateau", patience=0)
    again.load_state_dict(ours.state_dict())
    assert again.lr_at(5) == ours.lr_at(5) == pytest.approx(LR * 0.01)
