"""The lab report's training loop, as a user would write it today: the baseline of comparisons.

    python -m benchmarks.report_loop < names    reads names of cases, a line each, and prints images per second

It runs in a process of its own, so that nothing the engine does for its process helps or hinders it: memory, threads
and environment are what any script has.
"""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.cases import CASES, WARM_UP_BATCHES, Case
from models.data.dataset import ImageDataset, load_dataset
from models.data.splits import Indices, split_indices
from models.networks.build import build_network
from models.networks.cnn import Cnn
from models.networks.inputs import preprocessing_for
from models.settings import get_settings
from models.torchvision_compat import torchvision


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images one at a time through a PIL transform, as torchvision's datasets hand them out."""

    def __init__(self, dataset: ImageDataset, indices: Indices, transform: Callable[[Image.Image], Any]) -> None:
        self.images = dataset.train_images[indices].transpose(0, 2, 3, 1)
        self.labels = dataset.train_labels[indices]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def build_transform(case: Case, dataset: ImageDataset) -> Callable[[Image.Image], Any]:
    """The report's transform: resized, augmented, made a tensor, normalised."""
    transforms, spec = torchvision.transforms, case.spec
    seen = preprocessing_for(spec, dataset.info)
    steps: list[Any] = [] if seen.input_size == seen.source_size else [transforms.Resize(seen.input_size)]
    if spec.augmentation.rotation_degrees:
        steps += [
            transforms.RandomHorizontalFlip(spec.augmentation.hflip),
            transforms.RandomVerticalFlip(spec.augmentation.vflip),
            transforms.RandomRotation(spec.augmentation.rotation_degrees),
        ]
    steps += [transforms.ToTensor(), transforms.Normalize(seen.mean, seen.std)]
    transform: Callable[[Image.Image], Any] = transforms.Compose(steps)
    return transform


def as_written(network: nn.Module) -> nn.Module:
    """A CNN with its layers in the order in which people write them: the engine's pools before it applies ReLU."""
    if isinstance(network, Cnn):
        layers = list(network.features)
        for place, (one, following) in enumerate(itertools.pairwise(layers)):
            if isinstance(one, nn.MaxPool2d) and isinstance(following, nn.ReLU):
                layers[place : place + 2] = following, one
        network.features = nn.Sequential(*layers)
    return network


def train_as_reported(case: Case, dataset: ImageDataset) -> float:
    """Images per second of the loop, from the first batch after the warm-up to the last."""
    spec, seen = case.spec, preprocessing_for(case.spec, dataset.info)
    indices, _ = split_indices(dataset.train_labels, spec.dataset)
    warm_up = WARM_UP_BATCHES * spec.batch_size
    pictures = Pictures(dataset, indices[: case.report_images + warm_up], build_transform(case, dataset))
    loader = DataLoader(pictures, batch_size=spec.batch_size, shuffle=True, num_workers=2)
    network = as_written(
        build_network(spec.model, num_classes=dataset.info.num_classes, in_channels=seen.channels, size=seen.input_size)
    ).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    total_loss, correct, began = 0.0, 0, 0.0
    for number, (images, labels) in enumerate(loader):
        if number == WARM_UP_BATCHES:
            began = time.perf_counter()
        optimizer.zero_grad()
        outputs = network(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += (outputs.argmax(1) == labels).sum().item()
    return (len(pictures) - warm_up) / (time.perf_counter() - began)


@contextmanager
def in_own_process() -> Iterator[Callable[[Case], float]]:
    """A function that times the loop on a case, in a process with the environment that any script would have."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-m", "benchmarks.report_loop"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def run(case: Case) -> float:
            stdin.write(case.name + "\n")
            stdin.flush()
            return float(stdout.readline())

        yield run
        stdin.close()


def main() -> None:
    """Time the cases that are asked for, until there are no more."""
    dataset = load_dataset("cifar10", get_settings(), lambda label, done, total: None)
    for line in sys.stdin:
        print(train_as_reported(CASES[line.strip()], dataset), flush=True)


if __name__ == "__main__":
    main()
