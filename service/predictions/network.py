"""A network with trained weights, on the CPU, that is fed batches of one fixed size.

An image's probabilities must not depend on who else is in its batch. On one shape of input and one thread a network
computes each image in the same way wherever it stands in the batch and whatever stands beside it; on another shape the
libraries below may add the same numbers in another order. So every batch has the network's own fixed size, filled up
with zeros: answers are equal to the bit, alone or in company. Small networks take 32 images at once, where that is many
times faster than one by one; large ones fewer, so that filling up costs little.
"""

from collections.abc import Sequence

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from models.errors import CorruptFile
from models.networks.build import build_network
from models.networks.inputs import network_input
from models.networks.inspection import inspect_network
from models.networks.predict import predict
from service.predictions.weights import Weights

LARGEST_BATCH = 32
BATCH_MACS = 1_000_000_000
"""Multiplications in a batch that is mostly filling: about 30 ms of one core."""


def load_network(weights: Weights, data: bytes) -> nn.Module:
    """The network that a weights file is of, ready to predict. Raises CorruptFile if its tensors are of another one."""
    preprocessing = weights.preprocessing
    with torch.device("meta"):  # built without memory of its own, then given the stored tensors
        network = build_network(
            weights.model,
            num_classes=len(preprocessing.class_names),
            in_channels=preprocessing.channels,
            size=preprocessing.input_size,
        )
    try:
        network.load_state_dict(safetensors.torch.load(data), assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise CorruptFile(
            f"the {weights.which} weights of experiment {weights.experiment_id} do not fit its network"
        ) from error
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    return network.float().requires_grad_(False).eval()


def probabilities(
    network: nn.Module, weights: Weights, images: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.float64]]:
    """Probabilities of the classes for each image (channels, source_size, source_size)."""
    preprocessing = weights.preprocessing
    inspection = inspect_network(
        weights.model,
        num_classes=len(preprocessing.class_names),
        in_channels=preprocessing.channels,
        size=preprocessing.input_size,
    )
    batch_size = fixed_batch_size(inspection.macs)
    answers: list[NDArray[np.float64]] = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        batch = np.zeros((batch_size, *part[0].shape), dtype=np.uint8)
        batch[: len(part)] = np.stack(part)
        with torch.inference_mode():
            inputs = network_input(torch.from_numpy(batch), preprocessing)
            logits = predict(network, inputs, weights.test_time_augmentation)[: len(part)]
            answers.extend(torch.softmax(logits.double(), dim=1).numpy())
    return answers


def fixed_batch_size(macs_per_image: int) -> int:
    """How many images a network of this cost takes at once: a power of two, the same on every machine."""
    size = LARGEST_BATCH
    while size > 1 and size * macs_per_image > BATCH_MACS:
        size //= 2
    return size
