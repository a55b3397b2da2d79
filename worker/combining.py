"""Scores several runs as one classifier: by the mean of their probabilities (an ensemble), or of their weights.

An ensemble averages probabilities (Lakshminarayanan et al. 2017, arXiv 1612.01474); weights are averaged as in
stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407), with batch normalisation's statistics recomputed.
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.data.uploaded import open_local
from models.errors import CorruptFile
from models.evaluation.outputs import read_outputs
from models.evaluation.probabilities import softmax
from models.files import inside, verify
from models.measurements import CombinedQuestion, CombinedResult
from models.plain import JsonObject
from models.settings import Settings
from models.spec.parse import load_spec
from models.spec.study import Combine
from worker.explain import load_network
from worker.training.batches.loader import Split, plain_batches
from worker.training.build import Data, build_data
from worker.training.loop import evaluate
from worker.training.outputs import SplitOutputs
from worker.training.tuning import Tuning, choose_tuning

BATCH_NORM_IMAGES = 10_000
"""At most about this many training images, evenly spread, from which batch normalisation's statistics are computed."""
BATCH = 250

Bools = npt.NDArray[np.bool_]


def combine_runs(body: JsonObject, question: CombinedQuestion, settings: Settings) -> CombinedResult:
    """Score the mean of several runs on the validation images. Raises CorruptFile if a file is gone or damaged."""
    files = []
    for stored in question["files"]:
        path = inside(settings.experiments_dir, stored["path"])
        verify(path, stored["sha256"])
        files.append(path)
    if Combine(question["combine"]) is Combine.ENSEMBLE:
        return _result(score_ensemble(files), 0)
    return _score_average(body, files, question["files"][0]["sha256"], settings)


def _result(right: Bools, batch_norm_images: int) -> CombinedResult:
    return {
        "accuracy": float(right.mean()),
        "num_images": len(right),
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
        "batch_norm_images": batch_norm_images,
    }


def score_ensemble(files: Sequence[Path]) -> Bools:
    """Whether the runs' mean probabilities are right, by image: (N,). Raises CorruptFile if files do not match."""
    first = read_outputs(files[0])
    total = softmax(first.logits)
    for path in files[1:]:
        other = read_outputs(path)
        same = other.about.class_names == first.about.class_names and np.array_equal(other.positions, first.positions)
        if not same or not np.array_equal(other.labels, first.labels):
            raise CorruptFile("the runs' logits are of different images or classes")
        total += softmax(other.logits)
    return np.asarray(total.argmax(axis=1) == first.labels)


def _score_average(body: JsonObject, files: Sequence[Path], sha256: str, settings: Settings) -> CombinedResult:
    spec = load_spec(body)
    dataset = open_local(spec.dataset, settings)
    tuning = choose_tuning(spec, dataset, settings.device, cuda_graphs=False)
    with tuning.applied():
        data = build_data(spec, dataset, tuning)
        network, _, _ = load_network(files[0], sha256, settings.cache_dir)
        network.load_state_dict(mean_of_weights(files, network))
        network.to(tuning.device)
        refreshed = refresh_batch_norm(network, data, tuning)
        outputs = SplitOutputs("validation", len(data.validation), len(data.preprocessing.class_names))
        batches = plain_batches(data.validation, data.input_format, tuning.eval_batch)
        evaluate(network, batches, spec.test_time_augmentation, lambda _: None, outputs)
    logits, labels = torch.cat(outputs.logits).float().numpy(), torch.cat(outputs.labels).numpy()
    return _result(np.asarray(logits.argmax(axis=1) == labels), refreshed)


def mean_of_weights(files: Sequence[Path], network: nn.Module) -> dict[str, Tensor]:
    """Average weights files, in 64 bits; integers are the first file's. Raises CorruptFile for other tensors."""
    first = load_file(files[0])
    total = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in first.items()}
    for path in files[1:]:
        other = load_file(path)
        if {name: tensor.shape for name, tensor in other.items()} != {name: t.shape for name, t in first.items()}:
            raise CorruptFile(f"{path.name} is of another network than {files[0].name}")
        for name, tensor in total.items():
            if tensor.is_floating_point():
                tensor += other[name]
    own = network.state_dict()
    return {
        name: (tensor / len(files)).to(own[name].dtype) if tensor.is_floating_point() else tensor
        for name, tensor in total.items()
    }


@torch.no_grad()
def refresh_batch_norm(network: nn.Module, data: Data, tuning: Tuning) -> int:
    """Recompute batch normalisation's statistics as means over training images. Returns the number of images."""
    layers = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    layers = [module for module in layers if module.track_running_stats]
    if not layers:
        return 0
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a mean over all batches, and not a moving one
        layer.train()
    count = 0
    step = max(1, len(data.train) // BATCH_NORM_IMAGES)
    some = Split(data.train.images, data.train.labels, data.train.indices[::step])
    for batch in plain_batches(some, data.input_format, min(BATCH, len(some))):
        if len(batch) > 1:
            network(batch.images)
            count += len(batch)
    network.eval()
    return count
