"""torchvision's networks with random weights: what is served and what is exported, against PyTorch, without a lab.

    python -m benchmarks.parity_untrained vgg19_bn vit_l_32          one after the other, each in a process of its own
    python -m benchmarks.parity_untrained --above 128 --images 4     all with more than so many million parameters

For networks that are too large to be trained by benchmarks.parity in passing. The images are noise of the size at which
a network begins to be useful (models/networks/torchvision_table.py). The head's weights are drawn so that logits spread
by LOGIT_SPREAD: with fresh ones all classes are about equally probable, and no difference would show.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from benchmarks.parity import softmax
from models.errors import Conflict
from models.networks.build import build_network
from models.networks.export import export_graph
from models.networks.inputs import network_input
from models.networks.layers import head_of
from models.networks.torchvision_table import ARCHITECTURES
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from models.spec.parse import load_model
from service.export.self_contained import self_contained
from service.predictions.session import compute_logits, start_session
from service.predictions.weights import Weights

CLASSES = tuple("abcdefghij")
LOGIT_SPREAD = 3.0
SIZES = {one.name: one.useful_size for one in ARCHITECTURES}
MILLION = 1_000_000


def compare(name: str, num_images: int) -> dict[str, Any]:
    """Export one network and run it in three ways on the same images."""
    torch.manual_seed(0)
    size = SIZES[name]
    given = Preprocessing(3, size, size, IMAGENET_MEAN, IMAGENET_STD, CLASSES, False, True)
    model = load_model({"name": name})
    images = torch.randint(0, 256, (num_images, 3, size, size), dtype=torch.uint8)
    network, expected = _random_network(model, given, images)
    num_parameters = sum(one.numel() for one in network.parameters())
    data = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    del network
    graph = export_graph(model, given, "none")
    pixels = list(images.numpy())
    found = {"network": name, "parameters": num_parameters, "size": size, "images": num_images}
    found["mean_confidence"] = float(expected.max(1).mean())
    found |= _differences("served", expected, softmax(np.stack(compute_logits(start_session(graph, data), pixels))))
    weights = Weights(1, "best", 1, "0" * 64, model, given)
    try:
        file = b"".join(self_contained(graph, weights, data))
    except Conflict as error:
        return {**found, "not_exported": error.detail}
    del data
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    del file
    rows = [session.run(["logits"], {"images": image[None]})[0][0] for image in pixels]
    found |= _differences("exported", expected, softmax(np.stack(rows)))
    return found


def _random_network(model: Any, given: Preprocessing, images: torch.Tensor) -> tuple[nn.Module, NDArray[np.float64]]:
    """A network, and the probabilities (N, classes) that PyTorch computes for images (N, 3, size, size)."""
    network = build_network(model, num_classes=len(CLASSES), in_channels=3, size=given.input_size)
    inputs = network_input(images, given)
    with torch.inference_mode():
        network.train()(inputs)  # batch normalisation gets averages
        network.eval()
        head = head_of(network)
        nn.init.normal_(head.weight, std=head.weight[0].numel() ** -0.5)  # ViT's is all zeros
        head.weight.mul_(LOGIT_SPREAD / network(inputs).std())
        return network, softmax(network(inputs).numpy())


def _differences(kind: str, expected: NDArray[np.float64], found: NDArray[np.float64]) -> dict[str, Any]:
    return {
        f"{kind}_labels_unlike_pytorch": int((expected.argmax(1) != found.argmax(1)).sum()),
        f"{kind}_largest_difference": float(np.abs(expected - found).max()),
    }


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("networks", nargs="*", choices=[*SIZES], metavar="NETWORK")
    parser.add_argument("--above", type=float, default=128, help="Million parameters, where none is named.")
    parser.add_argument("--images", type=int, default=4)
    options = parser.parse_args()
    large = sorted((one.num_parameters, one.name) for one in ARCHITECTURES)
    names = options.networks or [name for count, name in large if count > options.above * MILLION]
    if len(names) == 1:
        torch.set_num_threads(1)
        began = time.monotonic()
        found = compare(names[0], options.images)
        found["seconds"] = round(time.monotonic() - began, 1)
        found["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1)
        print(json.dumps(found), flush=True)
        return
    for name in names:
        command = [sys.executable, "-m", "benchmarks.parity_untrained", name, "--images", str(options.images)]
        if (code := subprocess.run(command, check=False).returncode) != 0:
            print(json.dumps({"network": name, "exit_code": code}), flush=True)


if __name__ == "__main__":
    main()
