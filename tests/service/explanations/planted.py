"""Images whose class stands in one corner, and a network that was trained on them."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from models.networks.inputs import network_input
from tests.service.lab_of_one import settings_in
from tests.service.predictions.pictures import encode
from tests.service.predictions.trained import Lab, Trained
from tests.stores import new_store

SIDE, CORNER = 32, 8
LOOKED_AT = np.s_[: CORNER + 4, : CORNER + 4]
"""The corner, with what a window or a pixel of the last feature map reaches beyond it: 14% of the image."""
RED = np.array([220, 30, 30], np.uint8)
MODEL = {
    "name": "cnn",
    "blocks": [
        {"convs": [{"channels": 8, "padding": 1, "batch_norm": True}], "pool": 2},
        {"convs": [{"channels": 8, "padding": 1}], "pool": 2},
    ],
    "head": {"hidden": [16]},
}


def images(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey noise (N, 3, 32, 32), of class 0 with a red corner at the upper left, of class 1 without."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pixels = rng.integers(100, 156, (count, 3, SIDE, SIDE)).astype(np.uint8)
    pixels[labels == 0, :, :CORNER, :CORNER] = RED[:, None, None]
    return pixels, labels


def train(lab: Lab, trained: Trained, steps: int = 40) -> None:
    """Train the network on them, and store its weights."""
    torch.manual_seed(0)
    network, optimizer = (
        trained.network.train(),
        torch.optim.AdamW(trained.network.parameters(), 1e-2, weight_decay=0.5),
    )
    for step in range(steps):
        pixels, labels = images(32, seed=step)
        loss = functional.cross_entropy(
            network(network_input(torch.from_numpy(pixels), trained.preprocessing)), torch.from_numpy(labels)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    lab.save(trained)


def planted_lab(folder: Path) -> tuple[Lab, Trained, Trained]:
    """A lab with a network that looks at the corner, and one with random weights."""
    settings = settings_in(folder)
    store = new_store(settings)
    lab = Lab(store, settings)
    trained = lab.train(MODEL)
    train(lab, trained)
    return lab, trained, lab.train(MODEL, seed=9)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """A file of (3, H, W)."""
    return encode(Image.fromarray(pixels.transpose(1, 2, 0)), "PNG")


def share_in_corner(values: NDArray[np.float64]) -> float:
    """How much of what speaks for the class lies where the class is."""
    positive = np.maximum(values, 0)
    return float(positive[LOOKED_AT].sum() / positive.sum())


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Spearman's, of absolute values; 0 where one of the maps is the same everywhere."""
    ranks = [np.abs(values).ravel().argsort().argsort().astype(float) for values in (first, second)]
    if min(np.ptp(first), np.ptp(second)) == 0:
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
