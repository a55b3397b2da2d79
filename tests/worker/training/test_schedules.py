"""Each schedule against torch's scheduler of that name."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from models.spec.experiment import ExperimentSpec
from models.spec.kinds import PARTS
from models.spec.parse import parse_spec
from models.spec.training import WarmupSpec
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
            lambda sgd: lr_scheduler.CosineAnnealingLR(sgd, STEPS * EPOCHS, 0.01),
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
    assert ours.lr_at(STEPS * EPOCHS) == pytest.approx(0)


@pytest.mark.parametrize("wanted", [{}, {"warmup_epochs": 2}, {"warmup_epochs": EPOCHS}])
def test_the_last_step_of_a_cosine_trains(wanted: dict[str, Any]) -> None:
    rates = [schedule(name="cosine", **wanted).lr_at(step) for step in range(STEPS * EPOCHS)]
    assert 0 < rates[-1] < LR
    assert rates[-1] < rates[-2] or wanted.get("warmup_epochs") == EPOCHS


def test_the_last_step_of_a_first_versions_cosine_is_at_the_bottom() -> None:
    ours = schedule(name="cosine", eta_min=0.01)
    ours.last_step_at_bottom = True
    sgd = optimizer()
    expected = by_step(lr_scheduler.CosineAnnealingLR(sgd, STEPS * EPOCHS - 1, 0.01), sgd, an_epoch=False)
    assert [ours.lr_at(step) for step in range(STEPS * EPOCHS)] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_every_group_keeps_its_share_of_the_rate() -> None:
    ours = of_groups([0.04, 0.4], 0, name="exponential", gamma=0.5)
    assert applied(ours, 2 * STEPS) == pytest.approx([0.01, 0.1])


@pytest.mark.parametrize("name", PARTS["lr_scheduler"])
def test_every_schedule_that_a_spec_can_name_gives_a_rate_in_a_single_step_too(name: str) -> None:
    wanted = {"name": name, **({"milestones": [1]} if name == "multistep" else {})}
    spec = parse_spec({"model": "baseline", "epochs": 1, "lr_scheduler": wanted})
    for last_step_at_bottom in (False, True):
        ours = Schedule(spec.lr_scheduler, optimizer(), steps_per_epoch=1, epochs=1, base_lr=LR)
        ours.last_step_at_bottom = last_step_at_bottom
        assert 0 < ours.lr_at(0) <= LR


@pytest.mark.parametrize("name", PARTS["lr_scheduler"])
def test_every_schedule_says_whether_its_rates_depend_on_the_number_of_epochs(name: str) -> None:
    wanted = {"name": name, **({"milestones": [1]} if name == "multistep" else {})}
    spec = parse_spec({"model": "baseline", "lr_scheduler": wanted}).lr_scheduler
    short, long = (
        Schedule(spec, optimizer(), steps_per_epoch=STEPS, epochs=epochs, base_lr=LR) for epochs in (EPOCHS, 2 * EPOCHS)
    )
    same = [short.lr_at(step) for step in range(STEPS * EPOCHS)] == [long.lr_at(step) for step in range(STEPS * EPOCHS)]
    assert spec.spans_training is not same


class TriangleSpec(WarmupSpec):
    """A schedule that a spec could name, and that nobody has wired up."""

    name: Literal["triangle"] = "triangle"


def test_a_schedule_that_is_not_wired_up_is_an_error_and_not_a_constant_rate() -> None:
    unknown: Any = TriangleSpec()
    ours = Schedule(unknown, optimizer(), steps_per_epoch=STEPS, epochs=EPOCHS, base_lr=LR)
    with pytest.raises(AssertionError, match="triangle"):
        ours.apply(0)


def test_a_lowered_rate_stays_lowered_after_a_resume() -> None:
    ours = schedule(name="plateau", patience=0)
    ours.times_lowered = 1
    ours.end_epoch(1.0)
    ours.end_epoch(1.0)
    again = schedule(name="plateau", patience=0)
    again.load_state_dict(ours.state_dict())
    assert again.lr_at(5) == ours.lr_at(5) == pytest.approx(LR * 0.01)


rates = st.floats(1e-4, 10)
bounds = st.one_of(st.just(0.0), st.floats(1e-6, 20))


def of_groups(lrs: list[float], times_lowered: int, **wanted: Any) -> Schedule:
    """A schedule of groups with rates of their own, the head's last, after divergences have lowered them."""
    sgd = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "base_lr": lr} for lr in lrs])
    spec = parse_spec({"model": "baseline", "epochs": EPOCHS, "lr_scheduler": wanted})
    return Schedule(
        spec.lr_scheduler,
        sgd,
        steps_per_epoch=STEPS,
        epochs=EPOCHS,
        base_lr=lrs[-1],
        times_lowered=times_lowered,
    )


def applied(ours: Schedule, step: int) -> list[float]:
    """The rates of the groups at a step."""
    ours.apply(step)
    return [group["lr"] for group in ours.optimizer.param_groups]


@settings(deadline=None, max_examples=60)
@given(lrs=st.lists(rates, min_size=1, max_size=3), times_lowered=st.sampled_from([0, 1, 3]), eta_min=bounds)
def test_every_groups_cosine_is_torchs_and_ends_at_the_same_rate(
    lrs: list[float], times_lowered: int, eta_min: float
) -> None:
    scale = 0.1**times_lowered
    ours = of_groups(lrs, times_lowered, name="cosine", eta_min=eta_min)
    for place, lr in enumerate(lrs):
        sgd = optimizer(lr * scale)
        lowest = min(eta_min, lr * scale)  # torch would raise a rate that is below the bottom
        expected = by_step(lr_scheduler.CosineAnnealingLR(sgd, STEPS * EPOCHS, lowest), sgd, an_epoch=False)
        found = [applied(ours, step)[place] for step in range(STEPS * EPOCHS)]
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-12)
        assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(found))


@settings(deadline=None, max_examples=150)
@given(
    lrs=st.lists(rates, min_size=1, max_size=3),
    times_lowered=st.sampled_from([0, 1, 3]),
    min_lr=bounds,
    factor=st.floats(0.01, 0.9),
    patience=st.integers(0, 2),
    losses=st.lists(st.one_of(st.floats(0.1, 3), st.just(math.nan)), min_size=1, max_size=30),
)
def test_every_groups_plateau_is_torchs(
    lrs: list[float], times_lowered: int, min_lr: float, factor: float, patience: int, losses: list[float]
) -> None:
    scale = 0.1**times_lowered
    ours = of_groups(lrs, times_lowered, name="plateau", factor=factor, patience=patience, min_lr=min_lr)
    sgd = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr * scale} for lr in lrs])
    theirs = lr_scheduler.ReduceLROnPlateau(sgd, factor=factor, patience=patience, min_lr=min_lr, eps=0)
    for epoch, loss in enumerate(losses, 1):
        before = applied(ours, epoch * STEPS)
        theirs.step(loss)
        lowered = ours.end_epoch(loss)
        found = applied(ours, epoch * STEPS)
        assert found == pytest.approx([group["lr"] for group in sgd.param_groups], rel=1e-9)
        assert lowered == (found != before)


@settings(deadline=None, max_examples=150)
@given(
    lrs=st.lists(rates, min_size=1, max_size=3),
    min_lr=bounds,
    warmup=st.sampled_from([0.0, 0.5, 3.0]),
    events=st.lists(st.sampled_from(["worse", "diverged", "resumed"]), min_size=1, max_size=25),
)
def test_nothing_that_happens_raises_a_rate_again(
    lrs: list[float], min_lr: float, warmup: float, events: list[str]
) -> None:
    """Divergence lowers a rate below min_lr, and no later reduction lifts it back."""
    wanted: dict[str, Any] = {"name": "plateau", "patience": 0, "min_lr": min_lr, "warmup_epochs": warmup}
    ours = of_groups(lrs, 0, **wanted)
    after_warmup = 4 * STEPS
    ours.end_epoch(1.0)
    for event in events:
        before = applied(ours, after_warmup)
        if event == "worse":
            ours.end_epoch(2.0)
        elif event == "diverged":
            ours.times_lowered += 1
        else:
            saved = ours.state_dict()
            ours = of_groups(lrs, 0, **wanted)
            ours.load_state_dict(saved)
        found = applied(ours, after_warmup)
        assert all(now <= then for now, then in zip(found, before, strict=True))
        if event == "worse":
            assert all(now >= min(then, min_lr) * (1 - 1e-9) for now, then in zip(found, before, strict=True))
        assert ours.lr_at(after_warmup) == pytest.approx(found[-1])
