"""One step of gradient descent with torchvision's networks of many kinds, at small inputs, in colour and gray."""

import pytest
import torch
from torch.nn import functional as F

from models.networks.build import build_network
from models.networks.torchvision_table import ARCHITECTURES
from models.spec.model import ZooName, ZooSpec


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        (ZooName.SHUFFLENET_V2_X0_5, 3),
        (ZooName.MNASNET0_5, 3),
        (ZooName.REGNET_Y_400MF, 1),
        (ZooName.GOOGLENET, 3),
    ],
)
def test_a_step_reaches_every_weight_and_lowers_the_loss(name: ZooName, channels: int) -> None:
    torch.manual_seed(0)
    size = max(32, next(one.minimum_size for one in ARCHITECTURES if one.name == name))
    network = build_network(ZooSpec(name=name), num_classes=3, in_channels=channels, size=size)
    images, labels = torch.rand(4, channels, size, size), torch.tensor([0, 1, 2, 0])
    before = F.cross_entropy(network(images), labels)
    before.backward()
    assert [key for key, weight in network.named_parameters() if weight.grad is None] == []
    with torch.no_grad():
        for weight in network.parameters():
            weight -= 1e-3 * weight.grad / (weight.grad.norm() + 1e-6)
        after = F.cross_entropy(network(images), labels)
    assert after < before
