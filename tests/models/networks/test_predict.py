"""What a network says of images, and of their mirror images."""

import torch
from torch import nn

from models.networks.predict import predict


def test_the_mirror_average_is_symmetric() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    pixels = torch.randn(2, 3, 2, 2)
    mirrored = predict(network, pixels.flip(3), "mirror")
    assert torch.allclose(predict(network, pixels, "mirror"), mirrored, atol=1e-6)
    assert not torch.allclose(predict(network, pixels, "none"), mirrored)
