"""ImageNet weights of torchvision's other networks: files with old names, and transformers at another input size."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from models.files import sha256_of
from models.networks import pretrained
from models.networks.build import build_network
from models.networks.pretrained import weights_path
from models.spec.model import ZooName, ZooSpec
from models.torchvision_compat import torchvision

DenseNet = torchvision.models.DenseNet
VisionTransformer = torchvision.models.VisionTransformer
interpolate_embeddings = torchvision.models.vision_transformer.interpolate_embeddings
PATCH = 16


def small_transformer(image_size: int = 224, num_classes: int = 1000, **_: Any) -> nn.Module:
    """vit_b_16 with one narrow layer, and the names of its parameters."""
    return VisionTransformer(image_size, PATCH, 1, 2, 8, 16, num_classes=num_classes)


@pytest.mark.parametrize("size", [32, 64, 256, 224])
def test_a_transformer_takes_its_weights_to_another_size_as_torchvision_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(torchvision.models, "vit_b_16", small_transformer)
    torch.manual_seed(0)
    original = {key: torch.randn_like(tensor) for key, tensor in small_transformer().state_dict().items()}
    path = weights_path(ZooName.VIT_B_16, tmp_path)
    path.parent.mkdir(parents=True)
    save_file(original, path)
    spec = ZooSpec(name=ZooName.VIT_B_16, pretrained=True, input_size=size)
    network = build_network(spec, num_classes=3, in_channels=3, size=size, cache_dir=tmp_path)
    wanted = interpolate_embeddings(size, PATCH, dict(original), interpolation_mode="bicubic")  # type: ignore[arg-type]
    found = network.state_dict()
    assert found["encoder.pos_embedding"].shape == (1, 1 + (size // PATCH) ** 2, 8)
    for key, tensor in found.items():
        if key.startswith("heads."):
            assert len(tensor) == 3
        else:
            torch.testing.assert_close(tensor, wanted[key], msg=key)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 3)


def test_the_file_of_a_densenet_has_the_names_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(DenseNet, growth_rate=2, block_config=(1, 2, 1, 1), num_init_features=4, bn_size=1)
    monkeypatch.setattr(torchvision.models, "densenet121", lambda weights=None, **options: small(**options))
    torch.manual_seed(0)
    original = small(num_classes=1000).state_dict()

    def of_its_time(key: str) -> str:
        for kind in ("norm", "conv"):
            for number in "12":
                key = key.replace(f".{kind}{number}.", f".{kind}.{number}.") if "denselayer" in key else key
        return key

    old = {of_its_time(key): tensor for key, tensor in original.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    folder = weights_path(ZooName.DENSENET121, tmp_path).parent
    folder.mkdir(parents=True)
    torch.save(old, folder / "file.pth")
    name = f"densenet121-{sha256_of(folder / 'file.pth')[:8]}.pth"
    (folder / "file.pth").rename(folder / name)  # put there by hand, as the error for a machine without network says
    monkeypatch.setattr(pretrained, "_url", lambda _: f"https://download.pytorch.org/models/{name}")
    spec = ZooSpec(name=ZooName.DENSENET121, pretrained=True)
    network = build_network(spec, num_classes=5, in_channels=3, size=32, cache_dir=tmp_path)
    found = network.state_dict()
    assert found.keys() == original.keys()
    for key, tensor in found.items():
        if key.startswith("classifier."):
            assert len(tensor) == 5
        else:
            torch.testing.assert_close(tensor, original[key], msg=key)
    assert math.isfinite(network.eval()(torch.rand(1, 3, 32, 32)).sum().item())
