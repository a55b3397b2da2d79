"""Computes explanations of predictions and feature maps of layers, requested as measurements like pre-flights.

Grad-CAM: Selvaraju et al. 2017 (arXiv 1610.02391). Integrated gradients: Sundararajan et al. 2017 (arXiv 1703.01365).
The second is captum's, whose Grad-CAM takes feature maps with the channels first alone.
"""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from models.errors import CorruptFile, InvalidRequest
from models.files import inside, verify
from models.measurements import ExplanationRefused, ExplanationResult, Question
from models.networks.build import build_network
from models.networks.inputs import network_input, resize
from models.networks.layers import head_name
from models.preprocessing import Preprocessing
from models.settings import Settings
from models.spec.parse import load_model

STEPS = 32
"""Points between the mean colour and the image at which gradients are taken."""
STEP_BYTES = 64 * 2**20
"""Limit on the bytes of inputs that are run as one batch."""
SMALLEST_SIDE = 2
"""The smallest side of a feature map that Grad-CAM uses: a single pixel has no spatial information."""
MAX_TOKENS_BEFORE = 8
"""Tokens that belong to no patch: one for the class, and up to seven registers."""
MAX_SIDE = 64
MAX_MAPS = 256
"""A layer's outputs are sent as the first so many maps, averaged over blocks of pixels to at most this side."""

Attribute = Callable[[nn.Module, Tensor, int], Tensor]
"""Network, normalised images (1, C, H, H) and a class's number to a map (H, H)."""


def explain(question: Question, settings: Settings) -> ExplanationResult | ExplanationRefused:
    """Answer one request. Raises CorruptFile if the weights are gone or damaged."""
    try:
        return _explain(question, settings)
    except InvalidRequest as error:
        return {"refused": error.detail, "fix": error.fix}


def _explain(question: Question, settings: Settings) -> ExplanationResult:
    network, seen, mirrored = load_network(
        inside(settings.experiments_dir, question["weights"]), question["sha256"], settings.cache_dir
    )
    side = seen.source_size
    pixels = np.frombuffer(base64.b64decode(question["pixels"]), np.uint8).reshape(1, seen.channels, side, side)
    images = network_input(torch.from_numpy(pixels.copy()), seen, size=side)
    whole = FromSource(network, seen).eval()
    if "layer" in question:
        maps = feature_maps(whole, images, question["layer"])
        return {**_packed(shrunk(maps).float()), "full_shape": list(maps.shape)}
    attribute = METHODS[question["method"]]
    found = attribute(whole, images, question["target"])
    if mirrored:
        found = (found + attribute(whole, images.flip(3), question["target"]).flip(1)) / 2
    return _packed(found.float())


class FromSource(nn.Module):
    """Wraps a network to take normalised images of the size that they are decoded to, and resizes them for it."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.size, self.antialias = preprocessing.input_size, preprocessing.antialias

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of normalised images (N, C, source_size, source_size)."""
        return self.network(resize(images, self.size, antialias=self.antialias))  # type: ignore[no-any-return]


def load_network(path: Path, sha256: str, cache_dir: Path) -> tuple[nn.Module, Preprocessing, bool]:
    """Load the network of a weights file, its preprocessing, and whether it averages over mirror images.

    Its activations do not work in place, since what a hook sees must stay as it is.
    """
    verify(path, sha256)
    content = path.read_bytes()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"]["epochal"])
        seen, model = Preprocessing.from_json(about["preprocessing"]), load_model(about["model"])
        if hasattr(model, "pretrained"):
            model = model.model_copy(update={"pretrained": False})  # the weights are in the file
        network = build_network(
            model,
            num_classes=len(seen.class_names),
            in_channels=seen.channels,
            size=seen.input_size,
            cache_dir=cache_dir,
        )
        network.load_state_dict(load(content))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CorruptFile(f"{path.name} does not fit its network") from error
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return network.eval(), seen, about.get("test_time_augmentation") == "mirror"


def grad_cam(network: nn.Module, images: Tensor, target: int) -> Tensor:
    """Grad-CAM: where the last feature map supports the class, enlarged to the image: (H, H), at least 0."""
    maps, slopes = last_feature_map(network, images, target)
    found = (slopes.mean(dim=(1, 2), keepdim=True) * maps).sum(dim=0).relu()
    enlarged = functional.interpolate(found[None, None], images.shape[2:], mode="bilinear", align_corners=False)
    return enlarged[0, 0]


def integrated_gradients(network: nn.Module, images: Tensor, target: int) -> Tensor:
    """Integrated gradients: each pixel's part of the class's logit, with the mean colour as baseline: (H, H)."""
    from captum.attr import IntegratedGradients

    at_once = max(1, STEP_BYTES // (images.nbytes * 64))
    found = IntegratedGradients(network).attribute(
        images, torch.zeros_like(images), target, n_steps=STEPS, internal_batch_size=at_once
    )
    summed: Tensor = found.detach()[0].sum(dim=0)
    return summed


METHODS: dict[str, Attribute] = {"grad_cam": grad_cam, "integrated_gradients": integrated_gradients}


def last_feature_map(network: nn.Module, images: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The last outputs before the head that the class's logit depends on, place by place, and its gradient by them.

    Both are (C, H, H) with H of at least 2, whatever the form that the network has them in (see `as_maps`). The head of
    a vision transformer sees the class's token alone, on which the patches' tokens have no effect after the last
    attention, so these are the patches' tokens before it. Raises InvalidRequest where there are none.
    """
    head = network.get_submodule(head_name(network))
    outputs: list[Tensor] = []
    reached = False

    def before_head(module: nn.Module, inputs: Any) -> None:
        nonlocal reached
        reached = True

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if reached or isinstance(module, nn.AdaptiveAvgPool2d):  # which may enlarge a single pixel
            return
        first = first_tensor(output)
        maps = as_maps(first)
        if first is not None and maps is not None and maps.shape[1] == maps.shape[2] >= SMALLEST_SIDE:
            outputs.append(first)

    hooks = [head.register_forward_pre_hook(before_head)]
    hooks += [module.register_forward_hook(record) for module in network.modules() if module is not network]
    try:
        logit = network(images.detach().requires_grad_())[0, target]
    finally:
        for hook in hooks:
            hook.remove()
    if not outputs:
        raise InvalidRequest("the network has no feature map of more than one pixel", fix="use method=occlusion")
    slopes = torch.autograd.grad(logit, outputs, allow_unused=True, materialize_grads=True)
    for output, slope in zip(reversed(outputs), reversed(slopes), strict=True):
        maps, by_place = as_maps(output), as_maps(slope)
        if maps is not None and by_place is not None and by_place.any():
            return maps, by_place
    nothing = torch.zeros(1, SMALLEST_SIDE, SMALLEST_SIDE)
    return nothing, nothing


@torch.no_grad()
def feature_maps(network: FromSource, images: Tensor, layer: str) -> Tensor:
    """A layer's outputs for one image: (C, H, W), or (C, 1, 1) for a layer without spatial dimensions.

    Raises InvalidRequest where they have no such form.
    """
    try:
        module = network.network.get_submodule(layer)
    except AttributeError:
        raise InvalidRequest(f"the network has no layer '{layer[:100]}'", fix="GET .../layers lists them") from None
    seen: list[Tensor | None] = []
    hook = module.register_forward_hook(lambda _, __, output: seen.append(as_maps(output)))
    try:
        network(images)
    finally:
        hook.remove()
    if not seen or seen[0] is None:
        raise InvalidRequest(f"the outputs of layer '{layer[:100]}' are no maps", fix="choose another layer")
    return seen[0]


def as_maps(output: Any) -> Tensor | None:
    """A copy of a layer's outputs for one image as (C, H, W); None where they have no such form.

    Images are square, so of three dimensions the two that are alike are rows and columns: some networks (ConvNeXt,
    Swin) have the channels last. Attention works on tokens (N, C): one a patch, after up to MAX_TOKENS_BEFORE others.
    """
    first = first_tensor(output)
    if first is None or first.ndim not in (2, 3, 4) or len(first) != 1:
        return None
    values = first.detach()[0].clone()
    if values.ndim == 1:
        return values[:, None, None]
    if values.ndim == 3:
        rows, columns, channels = values.shape
        return values.movedim(2, 0) if rows == columns != channels else values
    side = math.isqrt(len(values))
    if len(values) - side**2 > MAX_TOKENS_BEFORE:
        return None
    return values[-(side**2) :].T.reshape(-1, side, side)


def first_tensor(output: Any) -> Tensor | None:
    """A module's output, of which attention gives its weights too; None if it is no tensor."""
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, Tensor) else None


def shrunk(maps: Tensor) -> Tensor:
    """The first maps of (C, H, W), averaged over blocks of pixels if they are too large to be drawn."""
    some = maps[:MAX_MAPS]
    block = -(-max(some.shape[1:]) // MAX_SIDE)
    return some if block == 1 else functional.avg_pool2d(some, block, ceil_mode=True, count_include_pad=False)


def _packed(values: Tensor) -> ExplanationResult:
    array = values.contiguous().numpy()
    return {"shape": list(array.shape), "values": base64.b64encode(array.tobytes()).decode()}
