"""Class probabilities of images by classifiers on their features, for each image by one that did not see it.

A classifier that was trained on an image may have memorised its wrong label; so images are divided into folds, and
those of a fold are judged by classifiers that were trained on the others. Both classifiers take a bounded time for an
image, whatever their number: see NETWORK_IMAGES.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.data.health.parallel import in_parallel, one_thread

if TYPE_CHECKING:
    from torch import nn

NUM_FOLDS = 4
CHUNK = 4096
RIDGES = (0.03, 0.1, 0.3)
"""Ridge penalties that are tried, relative to the number of images."""
SHARPNESSES = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Factors that are tried to turn the classifier's scores, which are near 0 and 1, into logits."""
HIDDEN, NETWORK_BATCH, NETWORK_RATE, NETWORK_DECAY = 256, 256, 4e-3, 0.01
"""Hidden units, batch size, highest learning rate and weight decay of the small network on features."""
NETWORK_EPOCHS, LEAST_STEPS, NETWORK_IMAGES = 10, 100, 256_000
"""The network sees the others' features so many times, in so many steps at least, and no more images than the last."""
INPUT_DROPOUT, HIDDEN_DROPOUT = 0.2, 0.5
STEPS_A_REPORT = 20
LINEAR_SHARE = 0.1
"""The part of the time that the linear classifier takes of both."""

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
ReportShare = Callable[[float], None]
"""report(share), called with the part that is done, from 0 to 1."""


def probabilities(
    values: Floats,
    labels: Labels,
    num_classes: int,
    groups: Labels | None = None,
    progress: ReportShare = lambda share: None,
) -> Floats:
    """Probabilities (N, num_classes) of images with the features (N, D): the means of both classifiers.

    A linear classifier and a small network are wrong about different images. Images of a group are in one fold, so
    that a copy is never in the training part.
    """
    folds = _folds(len(labels), groups)
    linear = by_ridge(values, labels, num_classes, folds, lambda share: progress(LINEAR_SHARE * share))
    network = by_network(
        values, labels, num_classes, folds, lambda share: progress(LINEAR_SHARE + (1 - LINEAR_SHARE) * share)
    )
    linear += network
    linear /= 2
    return linear


def _folds(count: int, groups: Labels | None) -> Labels:
    """The fold of each image."""
    units = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(np.random.PCG64(0).random_raw(int(units.max()) + 1), kind="stable")
    fold = np.empty(len(order), dtype=np.int64)
    fold[order] = np.arange(len(order)) % NUM_FOLDS
    found: Labels = fold[units]
    return found


def _sides(folds: Labels) -> list[tuple[Labels, Labels]]:
    """For each fold its images and the others, where there are both."""
    sides = [(np.flatnonzero(folds == number), np.flatnonzero(folds != number)) for number in range(NUM_FOLDS)]
    return [(own, others) for own, others in sides if len(own) and len(others)]


# Ridge regression on one-hot labels


class Products:
    """Sums over images from which a ridge regression is solved; they take no more memory for more images."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        self.inputs = np.zeros((num_features + 1, num_features + 1), dtype=np.float32)
        self.targets = np.zeros((num_features + 1, num_classes), dtype=np.float32)
        self.count = 0

    def add(self, values: Floats, labels: Labels, rows: Labels) -> None:
        """Add the images with these row numbers."""
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            inputs = _with_one(values[part])
            self.inputs += inputs.T @ inputs
            self.targets += inputs.T @ np.eye(self.targets.shape[1], dtype=np.float32)[labels[part]]
        self.count += len(rows)

    def solve(self, ridge: float) -> Floats:
        """Weights (D + 1, num_classes), the intercept last; `ridge` is the penalty relative to the number of images.

        In closed form. Logistic regression found as many wrong labels, and needs several passes over the features.
        """
        penalised = self.inputs.astype(np.float64)
        penalised[np.diag_indices(len(penalised))] += ridge * self.count
        weights: Floats = np.linalg.solve(penalised, self.targets).astype(np.float32)
        return weights


def total(parts: Sequence[Products]) -> Products:
    """The products of all images of several."""
    whole = Products(len(parts[0].inputs) - 1, parts[0].targets.shape[1])
    for part in parts:
        whole.inputs += part.inputs
        whole.targets += part.targets
        whole.count += part.count
    return whole


def scores(weights: Floats, values: Floats, rows: Labels) -> Floats:
    """Scores (len(rows), num_classes) of the images with these row numbers, by the weights that `solve` returned."""
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return np.concatenate([_with_one(values[part]) @ weights for part in parts])


def by_ridge(values: Floats, labels: Labels, num_classes: int, folds: Labels, progress: ReportShare) -> Floats:
    """Probabilities by ridge regression. Penalty and sharpness are those with the highest likelihood of the labels."""
    sides = _sides(folds)
    found = {ridge: np.zeros((len(labels), num_classes), dtype=np.float32) for ridge in RIDGES}

    def products(number: int) -> Products:
        own = Products(values.shape[1], num_classes)
        own.add(values, labels, sides[number][0])
        return own

    def judge(number: int) -> None:
        own = sides[number][0]
        others = total([part for place, part in enumerate(parts) if place != number])
        for ridge in RIDGES:
            found[ridge][own] = scores(others.solve(ridge), values, own)

    parts = list[Products]()
    for part in in_parallel(products, range(len(sides))):
        parts.append(part)
        progress(len(parts) / (2 * len(sides)))
    for done, _ in enumerate(in_parallel(judge, range(len(sides))), len(sides) + 1):
        progress(done / (2 * len(sides)))
    ways = [(ridge, sharpness) for ridge in RIDGES for sharpness in SHARPNESSES]
    ridge, sharpness = min(ways, key=lambda way: _loss(way[1] * found[way[0]], labels))
    return _softmax(sharpness * found[ridge])


def _with_one(values: Floats) -> Floats:
    return np.concatenate([values, np.ones((len(values), 1), dtype=np.float32)], axis=1)


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: Floats = powers / powers.sum(axis=1, keepdims=True)
    return found


def _loss(logits: Floats, labels: Labels) -> float:
    return float(-np.log(np.maximum(_softmax(logits)[np.arange(len(labels)), labels], 1e-9)).mean())


# A small network


def by_network(values: Floats, labels: Labels, num_classes: int, folds: Labels, progress: ReportShare) -> Floats:
    """Probabilities by a network with one hidden layer and dropout. The same on every call and for any threads."""
    sides = _sides(folds)
    found = np.full((len(labels), num_classes), 1 / num_classes, dtype=np.float32)
    plans = [_num_steps(len(others)) for _, others in sides]
    lock, done = threading.Lock(), 0

    def report(steps: int) -> None:
        nonlocal done
        with lock:
            done += steps
            progress(done / sum(plans))

    def judge(number: int) -> None:
        own, others = sides[number]
        found[own] = _train(values, labels, num_classes, others, plans[number], number, report)(own)

    with one_thread():
        for _ in in_parallel(judge, range(len(sides))):
            pass
    return found


def _num_steps(num_images: int) -> int:
    batch = min(NETWORK_BATCH, num_images)
    return max(LEAST_STEPS, min(NETWORK_EPOCHS * num_images, NETWORK_IMAGES) // batch)


def _train(
    values: Floats,
    labels: Labels,
    num_classes: int,
    rows: Labels,
    steps: int,
    seed: int,
    report: Callable[[int], None],
) -> Callable[[Labels], Floats]:
    """Train a network on these rows. Returns a function that gives probabilities for row numbers.

    Random numbers are NumPy's: its generators are of this call alone, and draw a mask for dropout in a tenth of the
    time that torch's dropout takes.
    """
    import torch
    from torch.nn import functional as F

    random = np.random.default_rng(seed)
    inputs, targets = torch.from_numpy(values), torch.from_numpy(labels)

    def dropout(values: torch.Tensor, probability: float) -> torch.Tensor:
        kept = random.integers(0, 256, tuple(values.shape), dtype=np.uint8) >= round(256 * probability)
        return values * torch.from_numpy(kept) / (1 - probability)

    first, last = _layer(values.shape[1], HIDDEN, random), _layer(HIDDEN, num_classes, random)
    optimizer = torch.optim.AdamW(
        [*first.parameters(), *last.parameters()], lr=NETWORK_RATE, weight_decay=NETWORK_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, NETWORK_RATE, total_steps=steps)
    batch = min(NETWORK_BATCH, len(rows))
    order = rows[:0]
    for step in range(1, steps + 1):
        if len(order) < batch:
            order = random.permutation(rows)
        chosen, order = torch.from_numpy(order[:batch]), order[batch:]
        hidden = F.relu(first(dropout(inputs[chosen], INPUT_DROPOUT)))
        loss = F.cross_entropy(last(dropout(hidden, HIDDEN_DROPOUT)), targets[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % STEPS_A_REPORT == 0 or step == steps:
            report(step % STEPS_A_REPORT or STEPS_A_REPORT)

    def predict(own: Labels) -> Floats:
        parts = [own[start : start + CHUNK] for start in range(0, len(own), CHUNK)]
        with torch.inference_mode():
            outputs = [last(F.relu(first(inputs[torch.from_numpy(part)]))).softmax(1) for part in parts]
            return np.asarray(torch.cat(outputs).numpy(), np.float32)

    return predict


def _layer(num_inputs: int, num_outputs: int, random: np.random.Generator) -> "nn.Linear":
    """A linear layer with torch's usual initial distribution, drawn from NumPy's generator."""
    import torch
    from torch import nn

    made: nn.Linear = nn.utils.skip_init(nn.Linear, num_inputs, num_outputs)  # type: ignore[no-untyped-call]
    bound = num_inputs**-0.5
    with torch.no_grad():
        for parameter in made.parameters():
            drawn = random.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(drawn))
    return made
