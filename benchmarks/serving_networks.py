"""The networks and images of benchmarks.serving, for the lab, its rivals and the ceiling alike."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from models.data.catalogue import get_dataset
from models.networks.build import build_network
from models.networks.inputs import preprocessing_for
from models.preprocessing import Preprocessing, WeightsDescription
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec

CASES: dict[str, tuple[Any, str]] = {
    "baseline": ("baseline", "png"),
    "three_blocks_batch_norm": ("three_blocks_batch_norm", "png"),
    "squeezenet1_1 at 224": ({"name": "squeezenet1_1", "input_size": 224}, "jpeg"),
}
"""By name: a spec's model, and the kind of image that it is asked for."""
KINDS = {"png": (32, 32), "jpeg": (640, 480)}
"""Kinds of images, and their sizes."""


def spec_of(case: str) -> ExperimentSpec:
    """The spec of a case."""
    return parse_spec({"model": CASES[case][0]})


def preprocessing_of(case: str) -> Preprocessing:
    """What its network takes an image for."""
    return preprocessing_for(spec_of(case), get_dataset("cifar10"))


def build(case: str) -> nn.Module:
    """Its network with random weights, ready to predict."""
    torch.manual_seed(0)
    wanted = preprocessing_of(case)
    network = build_network(spec_of(case).model, num_classes=10, in_channels=wanted.channels, size=wanted.input_size)
    return network.eval()


def described(case: str) -> WeightsDescription:
    """What a weights file says of its network."""
    model = spec_of(case).model.model_dump(mode="json")
    return {"model": model, "preprocessing": preprocessing_of(case).to_json(), "epoch": 1}


def weights_of(case: str, metadata: dict[str, str] | None = None) -> bytes:
    """The content of its weights file."""
    return save(dict(build(case).state_dict()), metadata)


def pictures() -> dict[str, bytes]:
    """An image of each kind."""
    random = np.random.default_rng(0)
    return {kind: picture(kind, random) for kind in KINDS}


def picture(kind: str, random: np.random.Generator) -> bytes:
    """A PNG of 32 x 32 or a JPEG of 640 x 480, of smooth noise, which compresses as photos do."""
    small = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
    out = io.BytesIO()
    small.resize(KINDS[kind], Image.Resampling.BICUBIC).save(out, kind.upper())
    return out.getvalue()
