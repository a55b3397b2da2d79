"""Calibration, and whether the score of unknown images tells images of no known class from those of the test split.

    python -m benchmarks.calibration                       baseline on all of CIFAR-10, ten epochs
    python -m benchmarks.calibration --model fast_resnet --epochs 2 --train-images 6000 --images 2000 --json

Trains as a worker does, then scores the test split of CIFAR-10 and as many images each of Fashion-MNIST (enlarged to 32
pixels, gray in all channels), of noise of several kinds, and of CIFAR-10's with their pixels shuffled. AUROC is how
often one of these has a higher score than one of CIFAR-10: 0.5 is guessing. `pixels and energy` is the score of
predictions (models/evaluation/unknown.py); the others are for comparison (benchmarks/unknown_scores.py). `called
unknown` is the part above the threshold, which was set so that 5% of the validation images are.
"""

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from worker.training.threads import limit_spinning

limit_spinning()  # before torch is imported, as the worker does

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from benchmarks.unknown_scores import feature_scores
from models.curves.metrics import EpochMetrics
from models.data.dataset import ImageDataset, load_dataset
from models.data.splits import split_indices
from models.evaluation.calibration import KEPT, energy, expected_calibration_error
from models.evaluation.outputs import Outputs, read_outputs
from models.evaluation.probabilities import softmax
from models.evaluation.roc import roc_curve
from models.evaluation.unknown import fit_unknown_score, image_statistics
from models.networks.build import build_network
from models.networks.export import Exported
from models.networks.inputs import preprocessing_for
from models.networks.layers import head_of
from models.settings import get_settings
from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec
from worker.training.engine import train
from worker.training.sink import MemorySink

NUM_IMAGES = 10_000
BATCH = 500


class _Progress(MemorySink):
    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        super().append_epoch(metrics, class_accuracy)
        say(f"  epoch {metrics.epoch}: val accuracy {metrics.val_accuracy:.4f}, {metrics.seconds:.1f} s")


def measure(
    model: Any, epochs: int, seed: int, train_images: int | None = None, count: int = NUM_IMAGES
) -> dict[str, Any]:
    """Train, calibrate, and score what the network was not trained on: at most `count` images of each kind."""
    dataset = load_dataset("cifar10", get_settings())
    part = {"evaluate_test": True, "train_limit": train_images}
    spec = parse_spec({"model": model, "epochs": epochs, "seed": seed, "dataset": part})
    network, validation, test = _train(spec, dataset)
    fitted = validation.about.calibration
    assert fitted is not None
    exported = Exported(network, preprocessing_for(spec, dataset.info), "none").eval()

    def look(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits, and the features before the head."""
        with torch.inference_mode():
            parts = [exported(part) for part in torch.split(torch.from_numpy(images), BATCH)]
        logits, features = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
        return logits, features

    foreign = strangers(seed, count)
    looked = {name: look(images) for name, images in foreign.items()}
    _, held_out = split_indices(dataset.train_labels, spec.dataset, stratified=True)
    head = head_of(network)
    weight = head.weight.detach().flatten(1).double().numpy()
    bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().double().numpy()
    fit = look(dataset.train_images[held_out])
    scores = feature_scores(*fit, dataset.train_labels[held_out], weight, bias)
    tested = dataset.test_images[:count]
    known = look(tested)
    assert fitted.unknown is not None
    served = fitted.unknown

    def score(images: NDArray[np.uint8], logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return served.score(statistics_of(images), energy(logits))

    own = score(tested, known[0])
    pixels = fit_unknown_score(statistics_of(dataset.train_images[held_out]), np.zeros(len(held_out)), KEPT)

    def score_pixels(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return pixels.score(statistics_of(images), np.zeros(len(images)))

    by_served = {name: score(images, looked[name][0]) for name, images in foreign.items()}
    return {
        "model": model,
        "epochs": epochs,
        "test_accuracy": float((test.logits.argmax(1) == test.labels).mean()),
        "temperature": fitted.temperature,
        "ece": {"validation": _ece(validation, fitted.temperature), "test": _ece(test, fitted.temperature)},
        "called_unknown": {
            name: float((values > served.threshold).mean()) for name, values in {"test": own, **by_served}.items()
        },
        "auroc": {
            "pixels and energy": {name: auroc(own, values) for name, values in by_served.items()},
            "pixels": {name: auroc(score_pixels(tested), score_pixels(images)) for name, images in foreign.items()},
            **{
                score: {name: auroc(function(*known), function(*both)) for name, both in looked.items()}
                for score, function in scores.items()
            },
        },
    }


def _train(spec: ExperimentSpec, dataset: ImageDataset) -> tuple[nn.Module, Outputs, Outputs]:
    """The network with its best weights, and its outputs on the validation and test splits."""
    with tempfile.TemporaryDirectory() as folder:
        train(spec, dataset, _Progress(), Path(folder), cache_dir=get_settings().cache_dir)
        validation = read_outputs(Path(folder) / "outputs-validation.safetensors")
        test = read_outputs(Path(folder) / "outputs-test.safetensors")
        weights = load_file(Path(folder) / "weights-best.safetensors")
    seen = preprocessing_for(spec, dataset.info)
    network = build_network(spec.model, num_classes=10, in_channels=3, size=seen.input_size).eval()
    network.load_state_dict(weights)
    return network, validation, test


def _ece(outputs: Outputs, temperature: float) -> dict[str, float]:
    """The expected calibration error of logits as they are, and divided by the temperature."""
    return {
        "before": expected_calibration_error(softmax(outputs.logits), outputs.labels),
        "after": expected_calibration_error(softmax(outputs.logits, temperature), outputs.labels),
    }


def statistics_of(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Statistics of images, some at a time."""
    return np.concatenate([image_statistics(part) for part in np.array_split(images, -(-len(images) // BATCH))])


def auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """How often a score of `unknown` is above one of `known`."""
    scores = np.concatenate((known, unknown))
    curve = roc_curve(scores, np.arange(len(scores)) >= len(known))
    assert curve is not None
    return curve.area


def strangers(seed: int, count: int) -> dict[str, NDArray[np.uint8]]:
    """Images uint8 (N, 3, 32, 32) of no class of CIFAR-10."""
    rng = np.random.default_rng(seed)
    shape = (count, 3, 32, 32)
    clothes = load_dataset("fashion-mnist", get_settings()).test_images[:count, 0]
    large = [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BILINEAR)) for one in clothes]
    shuffled = load_dataset("cifar10", get_settings()).test_images[:count].reshape(-1, 3, 32 * 32)
    return {
        "fashion-mnist": np.stack(large)[:, None].repeat(3, axis=1),
        "uniform noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "normal noise": np.clip(255 * rng.normal(0.5, 1.0, shape), 0, 255).astype(np.uint8),
        "smooth noise": _smooth_noise(rng, len(large)),
        "shuffled pixels": shuffled[:, :, rng.permutation(32 * 32)].reshape(-1, 3, 32, 32),
    }


def _smooth_noise(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    cells = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BICUBIC)) for one in cells]
    return np.ascontiguousarray(np.stack(large).transpose(0, 3, 1, 2))


def report(found: dict[str, Any]) -> None:
    """Print it as a table."""
    say(f"{found['model']}, {found['epochs']} epochs: {found['test_accuracy']:.1%} of the test split right")
    for name, ece in found["ece"].items():
        say(f"expected calibration error, {name}: {ece['before']:.2%} before, {ece['after']:.2%} after")
    say(f"temperature {found['temperature']:.3f}")
    say("called unknown: " + ", ".join(f"{name} {part:.1%}" for name, part in found["called_unknown"].items()))
    for score, areas in found["auroc"].items():
        say(f"AUROC by {score}: " + ", ".join(f"{name} {area:.3f}" for name, area in areas.items()))


def say(text: str) -> None:
    """Print to stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="baseline", help="a name, or a model as JSON")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-images", type=int, help="train on so many only")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="of each kind that is scored")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = json.loads(options.model) if options.model.startswith("{") else options.model
    found = measure(model, options.epochs, options.seed, options.train_images, options.images)
    report(found)
    if options.json:
        print(json.dumps({"machine": platform.platform(), **found}))


if __name__ == "__main__":
    main()
