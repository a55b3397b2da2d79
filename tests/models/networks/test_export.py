"""Graphs without weights: what they declare, and that they compute what torch computes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from models.networks.build import build_network
from models.networks.export import AveragePool, export_graph
from models.networks.inputs import network_input
from models.networks.layers import head_of
from models.preprocessing import Preprocessing
from models.spec.parse import load_model
from models.spec.presets import model_presets
from models.torchvision_compat import torchvision  # noqa: F401  (timm imports it)

CLASSES = tuple("abcde")


def preprocessing(source: int, target: int, channels: int = 3) -> Preprocessing:
    """Of tiny images, made smaller or larger."""
    return Preprocessing(channels, source, target, (0.4,) * channels, (0.25,) * channels, CLASSES, False, True)


def seeded(model: Any, given: Preprocessing) -> nn.Module:
    """A network whose every tensor, running averages included, is its own."""
    torch.manual_seed(3)
    network = build_network(model, num_classes=5, in_channels=given.channels, size=given.input_size)
    with torch.no_grad():
        network.train()(torch.randn(8, given.channels, given.input_size, given.input_size))
    return network.eval()


@pytest.mark.parametrize(
    ("name", "source", "target", "mirror"),
    [
        ("baseline", 32, 32, "none"),
        ("three_blocks_batch_norm", 32, 32, "mirror"),
        ("fast_resnet", 48, 20, "none"),
        ("squeezenet1_0", 20, 48, "mirror"),
        ("efficientnet_b0", 32, 32, "none"),
        ("densenet121", 32, 32, "none"),
        ("shufflenet_v2_x1_0", 48, 32, "none"),
        ("regnet_y_400mf", 32, 32, "none"),
        ("googlenet", 32, 32, "none"),
        ("timm/test_vit", 160, 160, "none"),
        ("timm/test_vit_relpos", 160, 160, "mirror"),
    ],
)
def test_a_graph_with_weights_computes_what_torch_computes(name: str, source: int, target: int, mirror: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm", reason="timm is not installed (the extra epochal[timm])")
    model = load_model(model_presets().get(name, {"name": name}))
    given = preprocessing(source, target)
    network = seeded(model, given)
    graph = export_graph(model, given, mirror)
    weights = {key: tensor for key, tensor in network.state_dict().items() if tensor.is_floating_point()}
    declared = onnx.load_model_from_string(graph).graph.initializer
    without = {one.name: tuple(one.dims) for one in declared if one.data_location == onnx.TensorProto.EXTERNAL}
    assert without == {key: tuple(tensor.shape) for key, tensor in weights.items()}
    assert len(graph) < sum(tensor.nbytes for tensor in weights.values())

    options = onnxruntime.SessionOptions()
    options.add_external_initializers(
        list(weights), [onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy()) for tensor in weights.values()]
    )
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    images = torch.randint(0, 256, (3, 3, source, source), dtype=torch.uint8)
    logits, features = session.run(None, {"images": images.numpy()})

    seen: list[torch.Tensor] = []
    head_of(network).register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    inputs = network_input(images, given)
    with torch.inference_mode():
        expected = network(inputs)
        if mirror == "mirror":
            expected = (expected + network(inputs.flip(3))) / 2
    assert np.abs(logits - expected.numpy()).max() < 1e-5 * max(1, float(expected.abs().max()))
    pooled = torch.stack([part.mean(dim=(2, 3)) if part.ndim == 4 else part for part in seen]).mean(dim=0)
    assert np.abs(features - pooled.numpy()).max() < 1e-5 * max(1, float(pooled.abs().max()))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 10])
def test_an_average_pool_of_any_input_is_torchs(rows: int) -> None:
    inputs = torch.rand(2, 3, rows, rows + 1)
    assert torch.allclose(AveragePool(7, 7)(inputs), nn.AdaptiveAvgPool2d(7)(inputs), atol=1e-6)
