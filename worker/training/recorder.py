"""What a run leaves behind for others to use: best and last weights, and the first layer's kernels of every epoch."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from models.networks.layers import first_convolution
from worker.training.files import atomic
from worker.training.sink import MetricSink


class Recorder:
    """Writes the files and hands them to the sink.

    `about` is what the weights need to be used: the network's spec and the preprocessing. It is in every weights file.
    """

    def __init__(self, folder: Path, sink: MetricSink, about: dict[str, Any]) -> None:
        self.folder = folder
        self.sink = sink
        self.about = about
        self.kernels: list[Tensor] = []

    def save_weights(self, which: str, network: nn.Module, epoch: int) -> Path:
        """Write the network's weights as `best` or `last`."""
        path = self.folder / f"weights-{which}.safetensors"
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        with atomic(path) as file:
            file.write(save(tensors, {"epochal": json.dumps({**self.about, "epoch": epoch}, sort_keys=True)}))
        self.sink.save("weights-best" if which == "best" else "weights-last", 0, path)
        return path

    def add_kernels(self, network: nn.Module) -> None:
        """Keep the first layer's kernels after an epoch and write those of all epochs, row 0 for epoch 1."""
        layer, convolution = first_convolution(network)
        self.kernels.append(convolution.weight.detach().float().cpu().clone(memory_format=torch.contiguous_format))
        path = self.folder / "kernels.safetensors"
        with atomic(path) as file:
            file.write(save({"kernels": torch.stack(self.kernels)}, {"layer": layer}))
        self.sink.save("kernels", 0, path)
