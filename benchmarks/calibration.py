"""Calibration, and whether the energy score tells images of no known class from those of the test split.

    python -m benchmarks.calibration                       baseline on all of CIFAR-10, ten epochs
    python -m benchmarks.calibration --model three_blocks_batch_norm --epochs 5 --json

Trains as a worker does, then scores the test split of CIFAR-10 and 10,000 images each of Fashion-MNIST (enlarged to
32 pixels, gray in all channels), of uniform noise and of normal noise. AUROC is how often one of these has a higher
score than one of CIFAR-10: 0.5 is guessing. `energy` is the score of predictions, `probability` one minus the highest
probability (Hendrycks and Gimpel 2017, arXiv 1610.02136), for comparison. `called unknown` is the part above the
threshold, which was set so that 5% of the validation images are.
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

from benchmarks.unknown_scores import feature_scores
from models.curves.metrics import EpochMetrics
from models.data.dataset import load_dataset
from models.data.splits import split_indices
from models.evaluation.calibration import energy, expected_calibration_error
from models.evaluation.outputs import read_outputs
from models.evaluation.probabilities import softmax
from models.evaluation.roc import roc_curve
from models.networks.build import build_network
from models.networks.export import Exported
from models.networks.inputs import preprocessing_for
from models.networks.layers import head_of
from models.settings import get_settings
from models.spec.parse import parse_spec
from worker.training.engine import train
from worker.training.sink import MemorySink

NUM_IMAGES = 10_000
BATCH = 500


class _Progress(MemorySink):
    def append_epoch(self, metrics: EpochMetrics, class_accuracy: list[float | None] | None = None) -> None:
        super().append_epoch(metrics, class_accuracy)
        say(f"  epoch {metrics.epoch}: val accuracy {metrics.val_accuracy:.4f}, {metrics.seconds:.1f} s")


def measure(model: str, epochs: int, seed: int) -> dict[str, Any]:
    """Train, calibrate, and score what the network was not trained on."""
    settings = get_settings()
    dataset = load_dataset("cifar10", settings)
    spec = parse_spec({"model": model, "epochs": epochs, "seed": seed, "dataset": {"evaluate_test": True}})
    with tempfile.TemporaryDirectory() as folder:
        train(spec, dataset, _Progress(), Path(folder), cache_dir=settings.cache_dir)
        validation = read_outputs(Path(folder) / "outputs-validation.safetensors")
        test = read_outputs(Path(folder) / "outputs-test.safetensors")
        weights = load_file(Path(folder) / "weights-best.safetensors")
    fitted = validation.about.calibration
    assert fitted is not None
    seen = preprocessing_for(spec, dataset.info)
    network = build_network(spec.model, num_classes=10, in_channels=3, size=seen.input_size).eval()
    network.load_state_dict(weights)

    exported = Exported(network, seen, "none").eval()

    def look(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Logits, and the features before the head."""
        with torch.inference_mode():
            parts = [exported(part) for part in torch.split(torch.from_numpy(images), BATCH)]
        logits, features = (torch.cat(part).double().numpy() for part in zip(*parts, strict=True))
        return logits, features

    looked = {name: look(images) for name, images in strangers(seed).items()}
    unknown = {name: logits for name, (logits, _) in looked.items()}
    _, held_out = split_indices(dataset.train_labels, spec.dataset, stratified=True)
    head = head_of(network)
    weight = head.weight.detach().flatten(1).double().numpy()
    bias = np.zeros(len(weight)) if head.bias is None else head.bias.detach().double().numpy()
    fit = look(dataset.train_images[held_out])
    scores = feature_scores(*fit, dataset.train_labels[held_out], weight, bias)
    known = look(dataset.test_images)
    return {
        "model": model,
        "epochs": epochs,
        "test_accuracy": float((test.logits.argmax(1) == test.labels).mean()),
        "temperature": fitted.temperature,
        "ece": {
            name: {
                "before": expected_calibration_error(softmax(outputs.logits), outputs.labels),
                "after": expected_calibration_error(softmax(outputs.logits, fitted.temperature), outputs.labels),
            }
            for name, outputs in (("validation", validation), ("test", test))
        },
        "test_called_unknown": float((energy(test.logits) > fitted.energy_threshold).mean()),
        "unknown": {
            name: {
                "auroc_energy": auroc(energy(test.logits), energy(logits)),
                "auroc_probability": auroc(1 - softmax(test.logits).max(1), 1 - softmax(logits).max(1)),
                "called_unknown": float((energy(logits) > fitted.energy_threshold).mean()),
            }
            for name, logits in unknown.items()
        },
        "auroc_by_features": {
            score: {name: auroc(function(*known), function(*both)) for name, both in looked.items()}
            for score, function in scores.items()
        },
    }


def auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """How often a score of `unknown` is above one of `known`."""
    scores = np.concatenate((known, unknown))
    curve = roc_curve(scores, np.arange(len(scores)) >= len(known))
    assert curve is not None
    return curve.area


def strangers(seed: int) -> dict[str, NDArray[np.uint8]]:
    """Images uint8 (N, 3, 32, 32) of no class of CIFAR-10."""
    rng = np.random.default_rng(seed)
    shape = (NUM_IMAGES, 3, 32, 32)
    clothes = load_dataset("fashion-mnist", get_settings()).test_images[:NUM_IMAGES, 0]
    large = [np.asarray(Image.fromarray(one).resize((32, 32), Image.Resampling.BILINEAR)) for one in clothes]
    return {
        "fashion-mnist": np.stack(large)[:, None].repeat(3, axis=1),
        "uniform noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "normal noise": np.clip(255 * rng.normal(0.5, 1.0, shape), 0, 255).astype(np.uint8),
    }


def report(found: dict[str, Any]) -> None:
    """Print it as a table."""
    say(f"{found['model']}, {found['epochs']} epochs: {found['test_accuracy']:.1%} of the test split right")
    for name, ece in found["ece"].items():
        say(f"expected calibration error, {name}: {ece['before']:.2%} before, {ece['after']:.2%} after")
    say(f"temperature {found['temperature']:.3f}; of the test split {found['test_called_unknown']:.1%} called unknown")
    for name, scores in found["unknown"].items():
        say(
            f"{name}: AUROC {scores['auroc_energy']:.3f} by energy, {scores['auroc_probability']:.3f} by probability; "
            f"{scores['called_unknown']:.1%} called unknown"
        )
    for score, areas in found["auroc_by_features"].items():
        say(f"AUROC by {score}: " + ", ".join(f"{name} {area:.3f}" for name, area in areas.items()))


def say(text: str) -> None:
    """Print to stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="baseline")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.model, options.epochs, options.seed)
    report(found)
    if options.json:
        print(json.dumps({"machine": platform.platform(), **found}))


if __name__ == "__main__":
    main()
