"""What a run leaves behind for others to use: best and last weights, and the first layer's kernels of every epoch."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from models.networks.layers import first_convolution
from worker.training.files import atomic
from worker.training.sink import ArtifactKind, MetricSink

KERNELS_MB = 4.0
"""Size of the kernels' file from which it is no longer written after every epoch."""

Which = Literal["best", "last"]


class Recorder:
    """Writes the files and hands them to the sink.

    `about` is what the weights need to be used: the network's spec and the preprocessing. It is in every weights file.
    """

    def __init__(self, folder: Path, sink: MetricSink, about: dict[str, Any]) -> None:
        self.folder = folder
        self.sink = sink
        self.about = about
        self.kernels: list[Tensor] = []

    def save_weights(self, which: Which, network: nn.Module, epoch: int) -> None:
        """Write the network's weights as `best` or `last`."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        content = save(tensors, {"epochal": json.dumps({**self.about, "epoch": epoch}, sort_keys=True)})
        kind: ArtifactKind = "weights-best" if which == "best" else "weights-last"
        self._write(kind, self.folder / f"weights-{which}.safetensors", content)

    def load_weights(self, which: Which) -> dict[str, Tensor]:
        """Read back what `save_weights` wrote last."""
        return load((self.folder / f"weights-{which}.safetensors").read_bytes())

    def carry_over(self, earlier: Path, best_epoch: int) -> None:
        """Take an earlier attempt's best weights into this one's folder, if they are of the epoch that is the best.

        They are of a later one when the attempt died between an epoch's weights and its checkpoint; the epoch is
        trained again then, and its weights written anew.
        """
        path = earlier / "weights-best.safetensors"
        if earlier == self.folder or not path.is_file():
            return
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        if json.loads(header["__metadata__"]["epochal"])["epoch"] == best_epoch:
            self._write("weights-best", self.folder / path.name, content)

    def add_kernels(self, network: nn.Module, *, last: bool) -> None:
        """Keep the first layer's kernels after an epoch and write those of all epochs, row 0 for epoch 1.

        A file that has become large is written every few epochs only, and after the last.
        """
        layer, convolution = first_convolution(network)
        self.kernels.append(convolution.weight.detach().float().cpu().clone(memory_format=torch.contiguous_format))
        megabytes = len(self.kernels) * self.kernels[0].nbytes / 2**20
        if last or len(self.kernels) % (1 + int(megabytes / KERNELS_MB)) == 0:
            content = save({"kernels": torch.stack(self.kernels)}, {"layer": layer})
            self._write("kernels", self.folder / "kernels.safetensors", content)

    def _write(self, kind: ArtifactKind, path: Path, content: bytes) -> None:
        with atomic(path) as file:
            file.write(content)
        self.sink.save(kind, 0, path)
