"""Averaged weights follow the network and are swapped in and out."""

import torch
from torch import nn

from worker.training.averaging import AveragedWeights


def test_averaged_weights_follow_and_are_put_back() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    averaged = AveragedWeights(network, 0.5)
    expected = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for step in range(1, 20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1.0)
        averaged.update()
        decay = min(0.5, (1 + step) / (10 + step))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    own = network[0].weight.clone()
    with averaged.in_place():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                assert torch.allclose(tensor, expected[name], atol=1e-5)
    assert torch.equal(network[0].weight, own)
