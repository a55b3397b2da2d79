"""Writes a run's files: weights of the best, the last and other epochs, their ONNX graph, logits, first kernels."""

import json
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from models.evaluation.outputs import Outputs
from models.files import sha256_of, write
from models.networks.epoch_budget import capacity, kept_epochs
from models.networks.export import export_described
from models.networks.layers import first_convolution
from models.notices import NoticeCode
from models.preprocessing import WeightsDescription
from worker.training.checkpoints import RESUME
from worker.training.kernels import LARGEST_HALF, KernelHistory
from worker.training.outputs import SplitOutputs
from worker.training.sink import ArtifactKind, MetricSink

KERNELS_MB = 4.0
"""Size of the kernels' file from which it is no longer written after every epoch."""

Which = Literal["best", "last"]


class Recorder:
    """Writes the files and hands them to the sink.

    `about` is what is needed to use the weights: the network's spec, the preprocessing, the test-time augmentation.
    It is in every weights file.
    """

    def __init__(self, folder: Path, sink: MetricSink, about: WeightsDescription, kernels: KernelHistory) -> None:
        self.folder = folder
        self.sink = sink
        self.about = about
        self.layer = ""
        self.kernels = kernels
        self.unwritten = False
        self._graph_tried = False
        self._kept_epochs: tuple[int, ...] | None = None

    def save_weights(self, which: Which, network: nn.Module, epoch: int) -> None:
        """Write the network's weights as `best` or `last`, and before the first of them their graph."""
        self._write_graph()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        content = save(tensors, {"epochal": json.dumps({**self.about, "epoch": epoch}, sort_keys=True)})
        kind: ArtifactKind = "weights-best" if which == "best" else "weights-last"
        self._write(kind, self.folder / f"weights-{which}.safetensors", content)

    def save_epoch(self, network: nn.Module, epoch: int) -> None:
        """Keep an epoch's weights for timelines, in 16 bits, and drop those of epochs that are no longer kept.

        Biases and the parameters and buffers of normalisation stay in 32 bits: they are small, and variances may exceed
        the range of 16-bit floats.
        """
        state = network.state_dict()
        if not (room := capacity(sum(tensor.nbytes for tensor in state.values()))):
            return
        tensors = {name: _halved(tensor.detach().cpu()) for name, tensor in state.items()}
        content = save(tensors, {"epochal": json.dumps({**self.about, "epoch": epoch}, sort_keys=True)})
        self._write("weights-epoch", self._epoch_file(epoch), content, epoch)
        kept = kept_epochs(epoch, room)
        before = self._kept_epochs
        if before is None or kept != (*before, epoch):  # the first time an earlier attempt may have left later epochs
            self.sink.retain("weights-epoch", kept)
        for gone in set(before or ()) - set(kept):
            self._epoch_file(gone).unlink(missing_ok=True)
        self._kept_epochs = kept

    def _epoch_file(self, epoch: int) -> Path:
        return self.folder / f"weights-epoch-{epoch:05d}.safetensors"

    def _write_graph(self) -> None:
        """Write the ONNX graph that all weights of this run belong to, once.

        A network that cannot be exported is trained all the same.
        """
        if self._graph_tried:
            return
        self._graph_tried = True
        try:
            content = export_described(self.about)
        except (RuntimeError, ValueError, TypeError) as error:  # what torch's exporter raises
            text = f"The network cannot be exported to ONNX, so it cannot make predictions: {str(error)[:200]}"
            self.sink.notice(NoticeCode.NOT_EXPORTED, text, {})
            return
        self._write("graph", self.folder / "graph.onnx", content)

    def load_weights(self, which: Which) -> tuple[dict[str, Tensor], int]:
        """Read the weights that `save_weights` wrote last, and their epoch."""
        content = (self.folder / f"weights-{which}.safetensors").read_bytes()
        return load(content), _epoch_of(content)

    def save_outputs(self, outputs: SplitOutputs, epoch: int) -> Outputs | None:
        """Write the best weights' logits on a split; those of the validation split with their calibration.

        Logits that are not all finite are not written, and None is returned.
        """
        found = outputs.collected(
            epoch, self.about["preprocessing"]["class_names"], sha256_of(self.folder / "weights-best.safetensors")
        )
        if found is None:
            return None
        kind: ArtifactKind = "outputs-validation" if found.about.split == "validation" else "outputs-test"
        self._write(kind, self.folder / f"{kind}.safetensors", found.to_bytes())
        return found

    def carry_over(self, earlier: Path, best_epoch: int) -> bool:
        """Copy an earlier attempt's best weights into this one's folder, if they are whole and of the best epoch.

        They are of a later one when the attempt ended between an epoch's weights and its checkpoint; the epoch is
        trained again then, and its weights are written again.
        """
        path = earlier / "weights-best.safetensors"
        content = path.read_bytes() if path.is_file() else None
        if content is None or not _is_of_epoch(content, best_epoch):
            return False
        if earlier != self.folder:
            self._write("weights-best", self.folder / path.name, content)
        return True

    def add_kernels(self, network: nn.Module, epoch: int, *, is_best: bool) -> None:
        """Add the first layer's kernels after an epoch and write those of all kept epochs.

        Once the file has become large it is written every few epochs only, and at the end.
        """
        self.layer, convolution = first_convolution(network)
        self.kernels.add(epoch, convolution.weight, is_best=is_best)
        self.unwritten = True
        megabytes = sum(kept.nbytes for kept in self.kernels.kernels.values()) / 2**20
        if epoch % (1 + int(megabytes / KERNELS_MB)) == 0:
            self.write_kernels()

    def write_kernels(self) -> None:
        """Write the kept kernels, unless they are already written."""
        if not self.unwritten:
            return
        content = save(self.kernels.tensors(), {"layer": self.layer})
        self._write("kernels", self.folder / "kernels.safetensors", content)
        self.unwritten = False

    def _write(self, kind: ArtifactKind, path: Path, content: bytes, epoch: int = 0) -> None:
        write(path, content, fix=RESUME)
        self.sink.save(kind, epoch, path)


def _halved(tensor: Tensor) -> Tensor:
    """A weight in 16 bits, within their range; anything with fewer than two dimensions as it is."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor.contiguous()
    return tensor.clamp(-LARGEST_HALF, LARGEST_HALF).half().contiguous()


def _is_of_epoch(weights: bytes, epoch: int) -> bool:
    """Whether a weights file is whole and of this epoch."""
    try:
        load(weights)
        return _epoch_of(weights) == epoch
    except (SafetensorError, ValueError, KeyError):
        return False


def _epoch_of(weights: bytes) -> int:
    """The epoch in a weights file's header, whose length is in its first eight bytes."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return int(json.loads(header["__metadata__"]["epochal"])["epoch"])
