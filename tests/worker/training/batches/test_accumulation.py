"""Accumulated batches are one large batch, whatever images weigh, and batches that weigh nothing change nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from models.errors import SpecError
from models.spec.experiment import ExperimentSpec
from tests.worker.training.tiny import PLAIN, images, run, spec
from worker.training.batches.accumulation import micro_batches
from worker.training.build import Data, build_batches, build_data, build_fresh_network, build_state
from worker.training.diagnosis.lr_test import learning_rate_test
from worker.training.engine import train
from worker.training.loop import train_epoch
from worker.training.sink import MemorySink
from worker.training.tuning import choose_tuning

CIFAR_RARE = [0.0] * 9 + [1.0]
"""Trucks alone weigh something: most small batches have none."""
SOME = [0.0, 0.5, 1.0, 2.0, 3.0, 0.0, 0.25, 1.5, 4.0, 0.0]


def plain_loop(wanted: ExperimentSpec, epochs: int) -> tuple[nn.Module, Data]:
    """torch's own: one large batch a step, a mean by torch's cross_entropy, no step where that mean is 0 / 0."""
    tuning = choose_tuning(wanted, images(), "cpu")
    data = build_data(wanted, images(), tuning)
    batches = build_batches(wanted, data, tuning)
    network = build_fresh_network(wanted, data, None).train()
    weights = torch.tensor(wanted.class_weights) if isinstance(wanted.class_weights, tuple) else None
    optimizer = torch.optim.SGD(network.parameters(), lr=wanted.optimizer.lr, momentum=0.9)
    for epoch in range(1, epochs + 1):
        parts = list(batches.iterate(epoch, data.input_format.size))
        for first in range(0, len(parts), wanted.accumulate_batches):
            group = parts[first : first + wanted.accumulate_batches]
            inputs, labels = (torch.cat([getattr(part, name) for part in group]) for name in ("images", "labels"))
            if weights is not None and float(weights[labels].sum()) == 0:
                continue
            loss = F.cross_entropy(network(inputs), labels, weight=weights, label_smoothing=wanted.label_smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if wanted.clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), wanted.clip_grad_norm)
            optimizer.step()
    return network, data


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": SOME},
        {"class_weights": SOME, "label_smoothing": 0.2},
        {"class_weights": CIFAR_RARE},
        {"class_weights": CIFAR_RARE, "label_smoothing": 0.1, "clip_grad_norm": 0.5},
        {"label_smoothing": 0.1},
        {},
    ],
    ids=["weights", "weights-smoothed", "rare", "rare-smoothed-clipped", "smoothed", "plain"],
)
@pytest.mark.parametrize(("batch_size", "accumulate"), [(16, 4), (3, 16), (32, 1)])
def test_accumulated_batches_train_as_one_large_batch_does(
    changes: dict[str, Any], batch_size: int, accumulate: int, tmp_path: Path
) -> None:
    """160 training images: the last group is a ragged one."""
    wanted = {"model": PLAIN, "epochs": 2, "batch_size": batch_size, "accumulate_batches": accumulate, **changes}
    outcome, _ = run(tmp_path, **wanted)
    assert outcome.status == "completed"
    expected, _ = plain_loop(spec(**wanted), 2)
    found = load_file(tmp_path / "weights-last.safetensors")
    for name, tensor in expected.state_dict().items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("extra", [{}, {"ema_decay": 0.5}, {"precision": "bf16"}, {"optimizer": {"name": "adamw"}}])
def test_batches_whose_classes_weigh_nothing_diverge_from_nothing(extra: dict[str, Any], tmp_path: Path) -> None:
    """Images in 34 are two batches, of which one may have no image that weighs anything."""
    changes = {"class_weights": CIFAR_RARE, "batch_size": 4, "epochs": 2, **extra}
    outcome, sink = run(tmp_path, **changes)
    assert outcome.status == "completed"
    for metrics in sink.epochs:
        assert math.isfinite(metrics.train_loss + metrics.val_loss)
        assert metrics.grad_norm is not None
        assert math.isfinite(metrics.grad_norm)


def test_the_reported_losses_are_those_of_every_image_whatever_it_weighs(tmp_path: Path) -> None:
    """Training and validation share a scale: at a rate of almost 0 the loss is that of the first weights."""
    slow = {"optimizer": {"name": "sgd", "lr": 1e-12}, "model": PLAIN, "epochs": 1, "batch_size": 4}
    _, weighted = run(tmp_path / "weighted", class_weights=CIFAR_RARE, **slow)
    _, plain = run(tmp_path / "plain", **slow)
    assert weighted.epochs[0].train_loss == pytest.approx(plain.epochs[0].train_loss)
    assert weighted.epochs[0].val_loss == pytest.approx(plain.epochs[0].val_loss)


def test_a_step_that_weighs_nothing_leaves_weights_momentum_and_decay_alone() -> None:
    wanted = spec(
        class_weights=CIFAR_RARE, model=PLAIN, batch_size=4, optimizer={"name": "sgd", "lr": 0.1, "weight_decay": 0.1}
    )
    tuning = choose_tuning(wanted, images(), "cpu")
    data = build_data(wanted, images(), tuning)
    batches = build_batches(wanted, data, tuning)
    state = build_state(wanted, data, batches, tuning, None)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    nothing = [part for part in micro_batches(batches, state.criterion, 1, 16, 0, 1) if part.step_weight == 0]
    assert len(nothing) > 5
    train_epoch(state, nothing, lambda: None)
    assert state.step == len(nothing)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.network.state_dict().items())
    assert not state.optimizer.state


def test_weights_that_leave_no_training_image_are_refused_by_name(tmp_path: Path) -> None:
    labels = set(images(num=12).train_labels.tolist())
    absent = [0.0 if label in labels else 1.0 for label in range(10)]
    with pytest.raises(SpecError, match="0 for every class that the"):
        train(spec(class_weights=absent), images(num=12), MemorySink(), tmp_path, device="cpu")


def test_a_learning_rate_test_passes_over_batches_that_weigh_nothing() -> None:
    found = learning_rate_test(
        spec(class_weights=CIFAR_RARE, batch_size=4, model=PLAIN), images(), steps=30, device="cpu", seconds=0.5
    )
    assert all(point["loss"] is not None for point in found["points"][:5])


def test_a_run_with_batches_that_weigh_nothing_is_resumed_to_the_bit(tmp_path: Path) -> None:
    changes = {"class_weights": CIFAR_RARE, "batch_size": 4, "epochs": 2, "accumulate_batches": 2, "ema_decay": 0.9}
    run(tmp_path / "whole", **changes)
    first = MemorySink()
    asked = iter(range(10_000))
    train(
        spec(**changes),
        images(),
        first,
        tmp_path / "first",
        device="cpu",
        should_stop=lambda: "shutdown" if next(asked) == 27 else None,
    )
    train(spec(**changes), images(), MemorySink(), tmp_path / "second", device="cpu", checkpoints=first.checkpoints())
    whole, again = (load_file(tmp_path / name / "weights-last.safetensors") for name in ("whole", "second"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
