"""Exports a network as an ONNX graph without weights: one file a run, usable with all weights of that run.

    python -m models.networks.export < DESCRIPTION > GRAPH        what a weights file says of itself, as JSON

The graph takes uint8 images as they are decoded and does the rest: normalisation, resizing, mirror averaging. Each
initializer is declared with its name in the network's state dict, its shape, and no data: a weights file (safetensors)
supplies all of them by these names.

torch's older exporter is used, which traces: 0.3 s for the network that torch.export takes 8 s for (`baseline`, one
core of an AMD EPYC), every epoch of which is shorter. docs/decisions/predictions.md has more.
"""

import io
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from models.networks.build import build_network
from models.networks.inputs import network_input
from models.networks.layers import head_name
from models.networks.predict import predict
from models.preprocessing import Preprocessing, WeightsDescription
from models.spec.model import NetworkSpec
from models.spec.parse import load_model

IMAGES, LOGITS, FEATURES = "images", "logits", "features"
"""Names of the graph's input and outputs."""
BATCH = "batch"
"""Name of the first dimension of each."""
OPSET = 20
"""The first with Gelu."""
WEIGHTS_FILE = "weights.safetensors"
"""The file that the graph names for its initializers. It is never read: a program that runs the graph supplies them."""
NETWORK = "network."
NORM_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""The buffers of batch normalisation."""
ANTIALIASED = "aten::_upsample_bilinear2d_aa"


class Exported(nn.Module):
    """uint8 images (N, channels, source_size, source_size) to logits (N, classes) and features (N, F).

    Features are what the head is given, averaged over the image where that is a feature map. With mirror averaging both
    outputs are the mean over an image and its mirror image.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, test_time_augmentation: str) -> None:
        super().__init__()
        self.network = network
        self._preprocessing = preprocessing
        self._test_time_augmentation = test_time_augmentation
        self._seen: list[Tensor] = []
        network.get_submodule(head_name(network)).register_forward_pre_hook(self._see)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features."""
        self._seen.clear()
        logits = predict(self.network, network_input(images, self._preprocessing), self._test_time_augmentation)
        num_classes = len(self._preprocessing.class_names)
        if logits.shape[1] > num_classes:  # a head that was kept from ImageNet has outputs that stand for no class
            logits = logits[:, :num_classes]
        features = [seen.mean(dim=(2, 3)) if seen.ndim == 4 else seen for seen in self._seen]
        return logits, features[0] if len(features) == 1 else (features[0] + features[1]) / 2

    def _see(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._seen.append(inputs[0])


class AveragePool(nn.Module):
    """nn.AdaptiveAvgPool2d as two matrix products, which ONNX has for every size of input; for tracing only."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, C, H, W) as (N, C, height, width)."""
        rows, columns = (int(side) for side in inputs.shape[2:])
        return torch.matmul(torch.matmul(_averages(self.height, rows), inputs), _averages(self.width, columns).T)


def _averages(num_outputs: int, num_inputs: int) -> Tensor:
    """(num_outputs, num_inputs): row i averages the inputs from floor(i n / m) up to ceil((i + 1) n / m)."""
    matrix = torch.zeros(num_outputs, num_inputs)
    for row in range(num_outputs):
        start, end = row * num_inputs // num_outputs, -(-(row + 1) * num_inputs // num_outputs)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


@lru_cache(maxsize=16)
def export_graph(model: NetworkSpec, preprocessing: Preprocessing, test_time_augmentation: str) -> bytes:
    """The graph of a network as its weights file describes it: a serialised ModelProto.

    The network is built for the export only. Its weights are never written to, so they take no memory.
    """
    build = partial(
        build_network,
        num_classes=len(preprocessing.class_names),
        in_channels=preprocessing.channels,
        size=preprocessing.input_size,
    )
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = build(model)
    if _has_constants(network):
        with torch.random.fork_rng(devices=[]):
            fresh = {"pretrained": False} if model.starts_pretrained else {}
            network = build(model.model_copy(update=fresh))
    else:
        network = network.to_empty(device="cpu")
    network.eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
            network.set_submodule(name, AveragePool(*module.output_size))  # type: ignore[misc]
    traced = _trace(Exported(network, preprocessing, test_time_augmentation).eval(), preprocessing)
    constants = dict(network.named_buffers())
    graph: bytes = _with_declared_weights(traced, network.state_dict(), constants).SerializeToString()
    return graph


def _has_constants(network: nn.Module) -> bool:
    """Whether the network has tensors that are not weights, such as position indices and masks of transformers.

    They are written into the graph, so the network must be built with content, which takes memory.
    """
    return any(name.rpartition(".")[2] not in NORM_BUFFERS for name, _ in network.named_buffers())


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Make attention use separate operations: the fused one has no counterpart in ONNX."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _trace(exported: Exported, preprocessing: Preprocessing) -> onnx.ModelProto:
    """Trace the graph with the weights as inputs, so that none of them is read, merged with an equal one, or folded."""
    side = preprocessing.source_size
    images = torch.zeros(2, preprocessing.channels, side, side, dtype=torch.uint8)
    file = io.BytesIO()
    sides = {"source": preprocessing.source_size, "target": preprocessing.input_size}
    torch.onnx.utils.register_custom_op_symbolic(ANTIALIASED, partial(_antialiased_resize, **sides), OPSET)
    with torch.inference_mode(), warnings.catch_warnings(), _plain_attention():
        warnings.simplefilter("ignore")  # the exporter is deprecated and says so; shapes are constants here
        torch.onnx.export(
            exported,
            (images,),
            file,  # type: ignore[arg-type] # a path or a file
            dynamo=False,
            export_params=False,
            do_constant_folding=False,
            opset_version=OPSET,
            input_names=[IMAGES],
            output_names=[LOGITS, FEATURES],
            dynamic_axes={name: {0: BATCH} for name in (IMAGES, LOGITS, FEATURES)},
        )
    return onnx.load_model_from_string(file.getvalue())


def _antialiased_resize(graph: Any, images: Any, size: Any, *_: Any, source: int, target: int) -> Any:
    """aten::_upsample_bilinear2d_aa as two matrix products: torch's own weights, which onnxruntime's Resize misses.

    Their outputs differ by 2e-4, onnxruntime 1.32 against torch 2.13, 96 pixels made 32.
    """
    rows = functional.interpolate(torch.eye(source)[None, None], (target, source), mode="bilinear", antialias=True)
    down, across = (graph.op("Constant", value_t=matrix) for matrix in (rows[0, 0], rows[0, 0].T.contiguous()))
    return graph.op("MatMul", graph.op("MatMul", down, images), across)


def _with_declared_weights(
    model: onnx.ModelProto, weights: dict[str, Tensor], constants: dict[str, Tensor]
) -> onnx.ModelProto:
    """Declare the weights as initializers with a name, a shape and no data, where they were inputs.

    Other tensors (`constants` that weights files do not have, and integers) are written with their values.
    """
    graph = model.graph
    del graph.input[1:]
    used: set[str] = set()
    for node in graph.node:
        node.ClearField("doc_string")
        node.input[:] = [name.removeprefix(NETWORK) for name in node.input]
        used.update(node.input)
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            if name not in used:
                raise ValueError(f"the graph does not use {name}")
            declared = graph.initializer.add(
                name=name, data_type=TensorProto.FLOAT, dims=tensor.shape, data_location=TensorProto.EXTERNAL
            )
            declared.external_data.add(key="location", value=WEIGHTS_FILE)
    for name, tensor in constants.items():
        if name in used and not (name in weights and tensor.is_floating_point()):
            graph.initializer.append(numpy_helper.from_array(tensor.numpy(), name))
    return model


def export_described(about: WeightsDescription) -> bytes:
    """The graph of a network from the description in its weights file (see worker.training.recorder)."""
    preprocessing = Preprocessing.from_json(about["preprocessing"])
    return export_graph(load_model(about["model"]), preprocessing, str(about.get("test_time_augmentation", "none")))


if __name__ == "__main__":
    sys.stdout.buffer.write(export_described(json.load(sys.stdin)))
