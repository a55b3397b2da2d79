"""Training that starts from another experiment's weights (model.init_from): whether they fit, and loading them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.data.info import DatasetInfo
from models.errors import SpecError
from models.networks.build import build_network
from models.networks.inputs import preprocessing_for
from models.networks.layers import head_name
from models.networks.weights_header import WeightsHeader, read_header
from models.spec.experiment import ExperimentSpec


@dataclass(frozen=True)
class StartingWeights:
    """Weights of another experiment, and the classes that its head tells apart."""

    tensors: dict[str, Tensor]
    class_names: tuple[str, ...]


def read_weights(path: Path) -> StartingWeights:
    """Read a weights file. Raises CorruptFile."""
    return StartingWeights(load_file(path), read_header(path).class_names)


def check_start(spec: ExperimentSpec, info: DatasetInfo, header: WeightsHeader) -> None:
    """Raise SpecError, which names the layer, where the weights do not fit the spec's network.

    The head may differ where the classes do: it is initialised anew then.
    """
    seen = preprocessing_for(spec, info)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = build_network(
            spec.model, num_classes=info.num_classes, in_channels=seen.channels, size=seen.input_size
        )
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    taken = names_to_take(network, header.class_names, info.class_names, own)
    theirs = spec.model.init_from.experiment if spec.model.init_from else 0
    for name in taken:
        if name not in header.shapes:
            _refuse(f"the network has a layer {name} that the one of experiment {theirs} does not have", header)
        if header.shapes[name] != own[name]:
            shapes = f"{list(header.shapes[name])} in experiment {theirs} and {list(own[name])} here"
            _refuse(f"{name} is of the shape {shapes}", header)
    if missing := next((name for name in header.shapes if name not in own), None):
        _refuse(f"the network of experiment {theirs} has a layer {missing} that this one does not have", header)


def names_to_take(network: nn.Module, theirs: Sequence[str], own: Sequence[str], names: Mapping[str, Any]) -> list[str]:
    """The tensors that are taken over: all, or all but the head's where the classes differ."""
    head = f"{head_name(network)}."
    return [name for name in names if tuple(theirs) == tuple(own) or not name.startswith(head)]


def start_from(network: nn.Module, weights: StartingWeights, class_names: Sequence[str]) -> None:
    """Load the weights into a network whose head was initialised already. Raises SpecError where they do not fit."""
    own = network.state_dict()
    taken = names_to_take(network, weights.class_names, class_names, own)
    chosen = {name: weights.tensors[name] for name in taken if name in weights.tensors}
    if wrong := next((name for name in taken if name not in chosen or chosen[name].shape != own[name].shape), None):
        raise SpecError([{"field": "model.init_from", "message": f"the weights do not fit the layer {wrong}"}])
    network.load_state_dict(chosen, strict=False)


def _refuse(message: str, header: WeightsHeader) -> NoReturn:
    model = json.dumps({key: value for key, value in header.model.items() if value is not None})
    raise SpecError(
        [{"field": "model.init_from", "message": message}], fix=f"take that experiment's network: {model[:600]}"
    )
