"""The networks, the faults and the trainings made of them. No network of one part is in the other."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from models.data.dataset import ImageDataset
from models.data.splits import split_indices
from models.findings import FindingCode
from models.networks.build import build_network
from models.networks.inputs import preprocessing_for
from models.networks.layers import head_name, head_of
from models.preprocessing import Preprocessing
from models.spec.experiment import ExperimentSpec
from worker.training.batches.loader import EpochBatches

NUM_TRAIN, NUM_VAL, EPOCHS = 2000, 600, 8
NOISY_LABELS = 0.3
DEAD_BIAS = -20.0

Body = dict[str, Any]


def conv(channels: int, **more: Any) -> Body:
    """A convolution of 3x3 that keeps the image's size."""
    return {"channels": channels, "padding": 1, **more}


SMALL_BATCH_NORM: Body = {
    "name": "cnn",
    "blocks": [{"convs": [conv(16, stride=2, batch_norm=True)]}, {"convs": [conv(32, batch_norm=True)]}],
    "head": {"hidden": [64]},
}
FOUR_LAYERS: Body = {
    "name": "cnn",
    "blocks": [{"convs": [conv(12, stride=2), conv(16)]}, {"convs": [conv(24), conv(32)]}],
    "head": {"hidden": [48]},
}
NO_HIDDEN: Body = {
    "name": "cnn",
    "blocks": [{"convs": [conv(24, stride=2)]}, {"convs": [conv(48)], "pool": 4}],
    "head": {},
}
DEEP_BATCH_NORM: Body = {
    "name": "cnn",
    "blocks": [
        {"convs": [conv(16, stride=2, batch_norm=True), conv(16, batch_norm=True)]},
        {"convs": [conv(32, batch_norm=True)] * 2},
    ],
    "head": {"hidden": [32], "dropout": [0.2, 0.0]},
}
DEVELOPMENT: dict[str, Any] = {"baseline": "baseline", "small_bn": SMALL_BATCH_NORM, "four_layers": FOUR_LAYERS}
HELD_OUT: dict[str, Any] = {"narrow": "narrow", "no_hidden": NO_HIDDEN, "deep_bn": DEEP_BATCH_NORM}


@dataclass(frozen=True)
class Part:
    """Which trainings are made."""

    networks: Mapping[str, Any]
    datasets: tuple[str, ...]
    seed: int
    faults: tuple[str, ...] = ()
    """Names of the faults; all of them if empty."""


PARTS: dict[str, Part] = {
    "development": Part(DEVELOPMENT, ("cifar10",), 0),
    "held-out": Part(HELD_OUT, ("cifar10", "fashion-mnist"), 100),
    "labels": Part(HELD_OUT, ("cifar10", "fashion-mnist"), 200, ("healthy", "healthy-cosine", "label-noise")),
}
"""One dataset is held out whole. `labels` has seeds of its own for one rule that was changed with the held-out part in
view: which images are trained on, which labels are wrong, and the initial weights are others."""


@dataclass(frozen=True)
class Case:
    """One training: a fault, a network, a dataset and a seed."""

    fault: "Fault"
    network: str
    dataset: str
    seed: int
    variant: int
    """Which of a fault's forms it has: they change from network to network."""

    @property
    def name(self) -> str:
        """What its file is called."""
        return f"{self.fault.name}.{self.network}.{self.dataset}.{self.seed}"


@dataclass(frozen=True)
class Fault:
    """One kind of fault: changes of a healthy spec, of the dataset, of the network, or of what is around it."""

    name: str
    code: FindingCode | None = None
    """The finding that names it; None for a healthy training."""
    spec: Callable[[Body, int], Body] | None = None
    dataset: Callable[[ImageDataset, ExperimentSpec, int], ImageDataset] | None = None
    network: Callable[[nn.Module, int], nn.Module] | None = None
    sorted_classes: bool = False
    raw_inputs: bool = False


def _changed(*variants: Body) -> Callable[[Body, int], Body]:
    return lambda body, variant: {**body, **variants[variant % len(variants)]}


def _scaled_lr(factor: float) -> Callable[[Body, int], Body]:
    def change(body: Body, variant: int) -> Body:
        return {**body, "optimizer": {**body["optimizer"], "lr": body["optimizer"]["lr"] * factor}}

    return change


def _tiny(body: Body, variant: int) -> Body:
    dataset = {**body["dataset"], "train_limit": (150, 100, 250)[variant % 3], "val_limit": 500}
    return {**body, "dataset": dataset, "batch_size": 16, "epochs": 40}


def _deep(body: Body, variant: int) -> Body:
    """14 to 18 convolutions without normalisation, from torch's own initial weights, in place of the network."""
    width = 8 + 2 * (variant % 4)
    rest = [conv(width)] * (6 + variant % 3)
    blocks = [{"convs": [conv(width, stride=2), *rest]}, {"convs": [conv(width), *rest]}]
    return {**body, "model": {"name": "cnn", "blocks": blocks, "head": {"hidden": [32]}}}


def _shuffled_labels(dataset: ImageDataset, spec: ExperimentSpec, variant: int) -> ImageDataset:
    rng = np.random.default_rng(spec.seed + variant)
    labels = dataset.train_labels.copy()
    chosen = rng.permutation(len(labels))[: int(NOISY_LABELS * len(labels))]
    labels[chosen] = labels[rng.permutation(chosen)]
    return replace(dataset, train_labels=labels)


def _contaminated(dataset: ImageDataset, spec: ExperimentSpec, variant: int) -> ImageDataset:
    """Every validation image, every second or every fifth is one of the training images."""
    train, _ = split_indices(dataset.train_labels, spec.dataset)
    _, val = split_indices(dataset.train_labels, spec.dataset.model_copy(update={"val_limit": None}))
    some = val[:: (1, 2, 5)[variant % 3]]  # of the whole split: which of it are validated on depends on labels
    copied = np.resize(train, len(some))
    images, labels = dataset.train_images.copy(), dataset.train_labels.copy()
    images[some], labels[some] = images[copied], labels[copied]
    return replace(dataset, train_images=images, train_labels=labels)


def _raw(preprocessing: Preprocessing) -> Preprocessing:
    """Pixels from 0 to 255, as they are."""
    channels = preprocessing.channels
    return replace(preprocessing, mean=(0.0,) * channels, std=(1 / 255,) * channels)


def _dead(network: nn.Module, variant: int) -> nn.Module:
    """A strongly negative bias in the middle, the last or the first convolution, and in its normalisation."""
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    place = (len(layers) // 2, len(layers) - 1, 0)[variant % 3]
    chosen: list[nn.Conv2d | nn.BatchNorm2d] = [layers[place], *norms[place : place + 1]]
    with torch.no_grad():
        for module in chosen:
            assert module.bias is not None
            module.bias.fill_(DEAD_BIAS)
    return network


def _wrong_head(network: nn.Module, variant: int) -> nn.Module:
    """A last layer of 1,000, 100 or 21 outputs."""
    head = head_of(network)
    assert isinstance(head, nn.Linear)
    *path, last = head_name(network).split(".")
    setattr(network.get_submodule(".".join(path)), last, nn.Linear(head.in_features, (1000, 100, 21)[variant % 3]))
    return network


JITTER = {"brightness": 0.9, "contrast": 0.9, "saturation": 1.0, "hue": 0.5}
TURNED = {"rotation_degrees": 180, "random_erase": 1.0, "color_jitter": JITTER}
DESTROYED: tuple[Body, ...] = (
    {**TURNED, "hflip": 0.5, "vflip": 0.5, "cutout_pixels": 14},
    {"cutout_pixels": 40},
    {**TURNED, "shift_pixels": 20},
)
FROZEN: tuple[Body, ...] = ({"freeze_backbone_epochs": 10_000}, {"backbone_lr_factor": 0}, {"freeze": ["features.*"]})
SGD = {"name": "sgd", "lr": 0.01}

FAULTS = (
    Fault("healthy"),
    Fault("healthy-augmented", spec=_changed({"augmentation": {"hflip": 0.5, "shift_pixels": 2}})),
    Fault("healthy-adam", spec=_changed({"optimizer": {"name": "adam", "lr": 0.001}})),
    Fault("healthy-cosine", spec=_changed({"lr_scheduler": {"name": "cosine"}, "label_smoothing": 0.1})),
    Fault("lr-too-high", FindingCode.LR_TOO_HIGH, spec=_scaled_lr(100)),
    Fault("lr-too-low", FindingCode.LR_TOO_LOW, spec=_scaled_lr(1 / 1000)),
    Fault("not-shuffled", FindingCode.NOT_SHUFFLED, sorted_classes=True),
    Fault("label-noise", FindingCode.LABEL_NOISE, dataset=_shuffled_labels),
    Fault("contaminated-validation", FindingCode.CONTAMINATED_VALIDATION, dataset=_contaminated),
    Fault("inputs-not-normalised", FindingCode.INPUTS_NOT_NORMALISED, raw_inputs=True),
    Fault("dead-layer", FindingCode.DEAD_LAYER, network=_dead),
    Fault("vanishing-gradients", FindingCode.VANISHING_GRADIENTS, spec=_deep),
    Fault("wrong-head", FindingCode.WRONG_HEAD, network=_wrong_head),
    Fault(
        "destructive-augmentation",
        FindingCode.DESTRUCTIVE_AUGMENTATION,
        spec=_changed(*({"augmentation": one} for one in DESTROYED)),
    ),
    Fault("too-few-images", FindingCode.TOO_FEW_IMAGES, spec=_tiny),
    Fault(
        "momentum-too-high",
        FindingCode.MOMENTUM_TOO_HIGH,
        spec=_changed({"optimizer": {**SGD, "momentum": 0.995}}, {"optimizer": {**SGD, "momentum": 0.999}}),
    ),
    Fault("frozen-body", FindingCode.FROZEN_BODY, spec=_changed(*({"fine_tuning": one} for one in FROZEN))),
)


def cases(part: str) -> Iterator[Case]:
    """The trainings of a part: all faults of one network and dataset, then of another network and dataset."""
    wanted = PARTS[part]
    faults = [fault for fault in FAULTS if not wanted.faults or fault.name in wanted.faults]
    for turn in range(len(wanted.datasets)):
        for place, network in enumerate(wanted.networks):
            dataset = wanted.datasets[(turn + place) % len(wanted.datasets)]
            yield from (Case(fault, network, dataset, wanted.seed, turn + place) for fault in faults)


def body_of(case: Case) -> Body:
    """The spec of a case, as it is POSTed."""
    networks: Mapping[str, Any] = {**DEVELOPMENT, **HELD_OUT}
    images = {"split_seed": case.seed} if case.seed == PARTS["labels"].seed else {}
    body: Body = {
        "model": networks[case.network],
        "dataset": {"name": case.dataset, "train_limit": NUM_TRAIN, "val_limit": NUM_VAL, **images},
        "epochs": EPOCHS,
        "batch_size": 16,
        "optimizer": {**SGD, "momentum": 0.9},
        "seed": case.seed,
        "precision": "fp32",
    }
    return case.fault.spec(body, case.variant) if case.fault.spec else body


@contextmanager
def injected(case: Case) -> Iterator[None]:
    """Within this block, networks, preprocessing and the order of images have the fault that no spec can ask for."""
    fault, order = case.fault, EpochBatches.order
    with ExitStack() as stack:
        if fault.network is not None:
            change = fault.network

            def changed(*given: Any, **more: Any) -> nn.Module:
                return change(build_network(*given, **more), case.variant)

            stack.enter_context(patch("worker.training.build.build_network", changed))
        if fault.raw_inputs:
            stack.enter_context(
                patch("worker.training.build.preprocessing_for", lambda *given: _raw(preprocessing_for(*given)))
            )
        if fault.sorted_classes:

            def by_class(self: EpochBatches, epoch: int) -> torch.Tensor:
                found = order(self, epoch)
                return found[torch.argsort(self.split.labels[self.split.indices[found]], stable=True)]

            stack.enter_context(patch.object(EpochBatches, "order", by_class))
        yield
