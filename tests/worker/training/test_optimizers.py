"""Optimizers, groups and freezing."""

from typing import Any

import pytest
import torch
from torch import nn

from models.networks.build import build_network
from models.networks.layers import head_of
from models.spec.parse import parse_spec
from tests.worker.training.tiny import NETWORK
from worker.training.optimizers import DirectSGD, Freezing, build_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(parse_spec({"model": NETWORK}).model, num_classes=10, in_channels=3, size=16)


def optimizer(net: nn.Module, implementation: str = "fused", **changes: Any) -> torch.optim.Optimizer:
    spec = parse_spec({"model": NETWORK, **changes})
    return build_optimizer(spec.optimizer, net, head_of(net), spec.fine_tuning, implementation=implementation)


SPECS = [
    ({"name": "sgd", "lr": 0.1, "momentum": 0.8, "weight_decay": 0.01}, torch.optim.SGD),
    ({"name": "sgd", "lr": 0.1, "momentum": 0.8, "nesterov": True}, torch.optim.SGD),
    ({"name": "adam", "lr": 0.01, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.01}, torch.optim.Adam),
    ({"name": "adamw", "lr": 0.01, "weight_decay": 0.1}, torch.optim.AdamW),
    ({"name": "rmsprop", "lr": 0.01, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.01}, torch.optim.RMSprop),
]


@pytest.mark.parametrize("implementation", ["direct", "fused", "foreach", "forloop"])
@pytest.mark.parametrize(("spec", "theirs"), SPECS, ids=["sgd", "nesterov", "adam", "adamw", "rmsprop"])
def test_a_step_is_torchs(spec: dict[str, Any], theirs: Any, implementation: str) -> None:
    ours_network, their_network = network(), network()
    ours = optimizer(ours_network, implementation, optimizer=spec)
    plain = theirs(their_network.parameters(), **{key: value for key, value in spec.items() if key != "name"})
    for step in range(3):
        for parameter, other in zip(ours_network.parameters(), their_network.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            other.grad = parameter.grad.clone()
        ours.step()
        plain.step()
    for parameter, other in zip(ours_network.parameters(), their_network.parameters(), strict=True):
        assert torch.allclose(parameter, other, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "sgd", "lr": 0.1},
        {"name": "sgd", "lr": 0.1, "momentum": 0},
        {"name": "sgd", "lr": 0.1, "nesterov": True, "weight_decay": 0.01},
    ],
    ids=["momentum", "plain", "nesterov"],
)
def test_direct_steps_are_fused_ones_to_the_bit(spec: dict[str, Any]) -> None:
    """With the body frozen for two steps, and its state saved and loaded half way."""
    nets = [network(), network()]
    frozen = {"freeze_backbone_epochs": 1}
    ours, theirs = (
        optimizer(net, kind, optimizer=spec, fine_tuning=frozen)
        for net, kind in zip(nets, ("direct", "fused"), strict=True)
    )
    assert type(ours) is DirectSGD
    for step in range(6):
        for net in nets:
            random = torch.Generator().manual_seed(step)
            for parameter in net.parameters() if step >= 2 else head_of(net).parameters():
                parameter.grad = torch.randn(parameter.shape, generator=random)
        if step == 4:
            ours.load_state_dict(ours.state_dict())
        for one in (ours, theirs):
            one.step()
            one.zero_grad()
    for parameter, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(parameter, other)
        assert parameter.grad is None


def test_direct_steps_are_left_out_where_found_inf_says_so() -> None:
    net = network()
    ours = optimizer(net, "direct", optimizer={"name": "sgd", "lr": 0.1})
    for step, skip in enumerate((0.0, 0.0, 1.0)):
        ours.found_inf = torch.tensor(skip)  # type: ignore[attr-defined]
        before = [parameter.detach().clone() for parameter in net.parameters()]
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        ours.step()
        changed = [not torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True)]
        assert changed == [not skip] * len(changed), step


def test_body_and_head_have_rates_of_their_own() -> None:
    net = network()
    groups = optimizer(net, optimizer={"name": "sgd", "lr": 0.1}, fine_tuning={"backbone_lr_factor": 0.1}).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.1])
    assert {id(parameter) for parameter in groups[1]["params"]} == {id(p) for p in head_of(net).parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_a_body_with_no_rate_is_left_out() -> None:
    net = network()
    (group,) = optimizer(net, fine_tuning={"backbone_lr_factor": 0.0}).param_groups
    assert len(group["params"]) == 2


def freezing(net: nn.Module, **wanted: Any) -> Freezing:
    return Freezing(net, head_of(net), parse_spec({"model": NETWORK, "fine_tuning": wanted}).fine_tuning)


def test_a_frozen_body_gets_no_gradient_and_keeps_its_statistics() -> None:
    net = network()
    frozen = freezing(net, freeze_backbone_epochs=1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    frozen.set_training_mode(1)
    net(torch.randn(8, 3, 16, 16)).sum().backward()
    assert {name for name, parameter in net.named_parameters() if parameter.grad is not None} == {
        "classifier.4.weight",
        "classifier.4.bias",
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    frozen.set_training_mode(2)
    net(torch.randn(8, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert not torch.equal(net.state_dict()["features.1.running_mean"], before["features.1.running_mean"])


def test_what_a_network_fixes_itself_stays_fixed() -> None:
    spec = parse_spec({"model": {"name": "fast_resnet", "widths": [4, 8, 8]}})
    net = build_network(spec.model, num_classes=10, in_channels=3, size=16)
    fixed = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert fixed
    Freezing(net, head_of(net), spec.fine_tuning).set_training_mode(1)
    assert {name for name, parameter in net.named_parameters() if not parameter.requires_grad} == fixed
    trained = {id(p) for group in optimizer(net).param_groups for p in group["params"]}
    assert not trained & {id(parameter) for name, parameter in net.named_parameters() if name in fixed}
