"""A divergence is explained: what stopped being finite first, in which layer, and a rate that works."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from models.verdict.divergence import Divergence
from worker.training.batches.batch import Batch, MicroBatch
from worker.training.batches.loader import Split
from worker.training.criterion import Criterion
from worker.training.diagnosis import divergence, working_rate
from worker.training.diagnosis.divergence import explain as explain_with
from worker.training.diagnosis.replay import MicroBatchLoss, NonFinite, Training, find_non_finite


def batches(count: int = 12, size: int = 16) -> list[MicroBatch]:
    """Images of two classes that a small network tells apart: bright above or bright below."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for _ in range(count):
        targets = torch.randint(0, 2, (size,), generator=generator)
        images = 0.3 * torch.randn(size, 1, 8, 8, generator=generator)
        images[targets == 0, :, :4] += 1
        images[targets == 1, :, 4:] += 1
        parts.append(MicroBatch(Batch(images, targets), weight=size, step_weight=size))
    return parts


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 2)
    )


def spec_at(lr: float, **more: object) -> ExperimentSpec:
    return parse_spec({"model": "baseline", "batch_size": 16, "optimizer": {"name": "sgd", "lr": lr}, **more})


def plain(outputs: Tensor, micro_batch: MicroBatch) -> Tensor:
    """The criterion of steps of one batch."""
    return F.cross_entropy(outputs, micro_batch.batch.labels)


def explain(*given: Any, criterion: MicroBatchLoss = plain, **options: Any) -> Divergence:
    return explain_with(*given, criterion=criterion, **options)


def non_finite_in(
    build: Callable[[], nn.Module], state: dict[str, Tensor] | None, spec: ExperimentSpec, lr: float
) -> NonFinite | None:
    training = Training(build, spec, 1, plain)
    return find_non_finite(training, state, [[part] for part in batches()], lr)


class Exploding(nn.Module):
    """Squares its input until it overflows: not finite whatever the learning rate."""

    def forward(self, images: Tensor) -> Tensor:
        return images.exp().pow(60).pow(60)


class SquareRoot(nn.Module):
    """Finite at zero, with a gradient that is not."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * (images > 0)).sqrt()


def test_the_first_layer_whose_output_is_not_finite_is_named() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Exploding(), nn.Flatten(), nn.Linear(144, 2))

    found = non_finite_in(build, None, spec_at(0.01), 0.01)
    assert found is not None
    assert (found.what, found.layer, found.layer_type) == ("loss", "2", "Exploding")


def test_the_first_layer_of_the_backward_pass_whose_gradient_is_not_finite_is_named() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), SquareRoot(), nn.Flatten(), nn.Linear(144, 2))

    found = non_finite_in(build, None, spec_at(0.01), 0.01)
    assert found is not None
    assert (found.what, found.layer) == ("gradient", "0")


def test_a_weight_that_is_not_finite_before_the_step_is_named() -> None:
    state = small().state_dict()
    state["3.bias"][2] = math.inf
    found = non_finite_in(small, state, spec_at(0.01), 0.01)
    assert found is not None
    assert (found.what, found.layer, found.layer_type) == ("weight", "3", "Linear")


def test_training_goes_on_from_the_given_weights_until_it_breaks() -> None:
    found = non_finite_in(small, small().state_dict(), spec_at(100.0), 1e9)
    assert found is not None
    assert found.layer is not None


@pytest.mark.usefixtures("no_rates_tried")
def test_a_replay_that_stays_finite_names_no_layer_and_keeps_what_the_guard_saw() -> None:
    assert non_finite_in(small, None, spec_at(0.001), 0.001) is None
    found = explain(small, None, batches(), 3, 1, [1.0, 2.0], spec_at(0.001), what="gradient")
    assert (found.what, found.layer) == ("gradient", None)


@pytest.mark.parametrize("lr", [30.0, 100.0])
def test_the_suggested_rate_trains_where_the_given_one_did_not(lr: float) -> None:
    found = explain(small, None, batches(size=64), 5, 2, [1.0, 50.0, math.inf], spec_at(lr))
    assert found.suggested_lr is not None
    assert found.suggested_lr <= lr / 3
    assert (found.epoch, found.step, found.lr) == (2, 5, lr)
    before, after = (float(word.rstrip(".")) for word in found.why.split(" from ")[-1].split(" to "))
    assert after < 0.98 * before
    losses = train(small, found.suggested_lr)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]


def train(build: Callable[[], nn.Module], lr: float) -> list[float]:
    network = build()
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    losses = []
    for part in batches(40):
        loss = nn.functional.cross_entropy(network(part.batch.images), part.batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_network_that_no_rate_can_train_gets_no_suggestion() -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), Exploding(), nn.Flatten(), nn.Linear(144, 2))

    found = explain(build, None, batches(), 1, 1, [], spec_at(0.1))
    assert found.suggested_lr is None
    assert "not the learning rate" in found.why


def test_no_batches_are_borne() -> None:
    found = explain(small, None, [], 1, 1, [math.nan], spec_at(0.01))
    assert found.suggested_lr is None
    assert found.layer is None


def test_the_network_it_is_given_is_not_changed() -> None:
    state = {name: tensor.clone() for name, tensor in small().state_dict().items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    explain(small, state, batches(4, size=64), 1, 1, [], spec_at(100.0))
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_its_json_has_null_for_norms_that_are_not_finite() -> None:
    found = Divergence(1, 2, "loss", None, None, (1.0, math.inf, math.nan), 0.1, None, "")
    body = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert body["grad_norms"] == [1.0, None, None]
    assert body["lowered_to"] is None


def test_clipping_and_other_optimizers_are_those_of_the_spec() -> None:
    adam = parse_spec({"model": "baseline", "optimizer": {"name": "adam", "lr": 50.0}, "clip_grad_norm": 1.0})
    found = explain(small, None, batches(size=64), 1, 1, [], adam)
    assert found.suggested_lr is not None
    assert found.suggested_lr < 5


def test_a_norm_that_overflows_while_every_number_is_finite_is_the_gradients() -> None:
    class Steep(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images * 1e-20 + (images - images.detach()) * 1e22

    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), Steep(), nn.Flatten(), nn.Linear(144, 2))

    found = non_finite_in(build, None, spec_at(0.01), 0.01)
    assert found is not None
    assert (found.what, found.layer, found.step) == ("gradient", "0", 0)


@pytest.mark.usefixtures("no_rates_tried")
def test_what_breaks_in_a_later_step_of_the_replay_is_not_told_as_what_the_guard_saw() -> None:
    found = explain(small, small().state_dict(), batches(), 5, 2, [], spec_at(100.0), what="gradient", lr=1e5)
    assert found.what == "gradient"
    assert found.what_happened.startswith("the gradient stopped being finite at step 5 of epoch 2")


def test_a_rate_at_which_nothing_is_learned_is_not_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets that the images do not tell: every loss is finite at a small rate, and stays where it is."""
    monkeypatch.setattr(working_rate, "MOST_PROOF_STEPS", working_rate.PROOF_STEPS)
    generator = torch.Generator().manual_seed(1)
    noise = [
        MicroBatch(Batch(torch.zeros(16, 1, 8, 8), torch.randint(0, 2, (16,), generator=generator)), 16, 16)
        for _ in range(64)
    ]
    found = explain(small, None, noise, 1, 1, [math.inf], spec_at(100.0))
    assert found.suggested_lr is None
    assert "the loss did not fall" in found.why or "not the learning rate" in found.why


@pytest.mark.parametrize(
    ("changes", "accumulate"),
    [
        ({"class_weights": [0.0, 3.0]}, 1),
        ({"class_weights": [1.0, 9.0], "label_smoothing": 0.3}, 3),
        ({"augmentation": {"mixup_alpha": 0.4}}, 3),
        ({"label_smoothing": 0.3}, 1),
    ],
    ids=["weights", "weights-smoothed-accumulated", "mixed-accumulated", "smoothed"],
)
def test_trials_have_the_objective_of_the_run(
    changes: dict[str, object], accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss that a trial starts from is that of one large batch a step, by torch's own cross-entropy."""
    monkeypatch.setattr(working_rate, "SWEEP_SECONDS", 0.5)
    spec = spec_at(100.0, **changes)
    labels = torch.tensor([0, 1])
    criterion = Criterion(spec, Split(torch.zeros(2, 1, 8, 8), labels, torch.arange(2)), 2, torch.device("cpu"))
    parts: list[MicroBatch] = []
    expected: list[float] = []
    network, shown = small(), batches(60)
    for first in range(0, 60, accumulate):
        group = [part.batch for part in shown[first : first + accumulate]]
        if spec.augmentation.mixup_alpha:
            group = [Batch(batch.images, batch.labels, batch.labels.flip(0), 0.3) for batch in group]
        weighed = [criterion.weights_of(batch.labels, (0, len(batch)))[0] for batch in group]
        parts += [
            MicroBatch(batch, weight, sum(weighed), number == accumulate)
            for number, (batch, weight) in enumerate(zip(group, weighed, strict=True), 1)
        ]
        outputs = network(torch.cat([batch.images for batch in group]))
        first_labels = torch.cat([batch.labels for batch in group])

        def loss(targets: Tensor, of: Tensor = outputs) -> float:
            return F.cross_entropy(of, targets, criterion.class_weights, label_smoothing=spec.label_smoothing).item()

        if spec.augmentation.mixup_alpha:
            others = torch.cat([batch.labels.flip(0) for batch in group])
            expected.append(0.3 * loss(first_labels) + 0.7 * loss(others))
        else:
            expected.append(loss(first_labels))
    found = explain(small, None, parts, 1, 1, [math.inf], spec, criterion=criterion.micro_batch_loss)
    assert found.suggested_lr is not None
    before = float(found.why.split(" from ")[-1].split(" to ")[0])
    assert before == pytest.approx(sum(expected[:20]) / 20, rel=0.006)


@pytest.mark.usefixtures("no_rates_tried")
def test_what_is_frozen_in_the_epoch_is_frozen_in_the_replay() -> None:
    """The gradient that is not finite is the body's, which has none while it is frozen."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), SquareRoot(), nn.Flatten(), nn.Linear(144, 2))

    spec = spec_at(0.01, fine_tuning={"freeze_backbone_epochs": 1})
    frozen = explain(build, None, batches(), 1, 1, [], spec, what="loss")
    assert frozen.layer is None
    unfrozen = explain(build, None, batches(), 1, 2, [], spec, what="gradient")
    assert (unfrozen.what, unfrozen.layer) == ("gradient", "0")


def test_of_a_step_of_many_large_batches_some_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of the sixteen batches fit into memory: they weigh as a whole step."""
    monkeypatch.setattr(divergence, "MOST_BYTES", int(3.5 * batches()[0].batch.images.nbytes))
    huge = [MicroBatch(part.batch, 16, 16 * 16, number == 16) for number, part in enumerate(batches(16), 1)]
    seen: list[tuple[float, float]] = []

    def criterion(outputs: Tensor, part: MicroBatch) -> Tensor:
        seen.append((part.weight, part.step_weight))
        return outputs.sum() * math.inf

    explain(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), None, huge, 1, 1, [], spec_at(0.01), criterion=criterion
    )
    assert set(seen) == {(16, 3 * 16)}
