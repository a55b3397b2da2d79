"""Scores weights on validation images that were corrupted at five strengths."""

import time

import torch
from torch import Tensor, nn

from models.data.uploaded import open_local
from models.files import inside
from models.measurements import RobustnessQuestion, RobustnessResult
from models.networks.predict import predict
from models.plain import JsonObject
from models.settings import Settings
from models.spec.parse import load_spec
from worker.corruptions import Corruption, corrupt, parameters_for
from worker.explain import load_network
from worker.training.batches.loader import InputFormat
from worker.training.build import build_data
from worker.training.tuning import choose_tuning

MOST_IMAGES, FEWEST_IMAGES = 2000, 100
"""Validation images that are used, evenly spread; fewer where the network is slow."""
SECONDS = 90.0
"""Time limit for all corruptions together."""
BATCH = 100
SEED = 0


def measure_robustness(body: JsonObject, question: RobustnessQuestion, settings: Settings) -> RobustnessResult:
    """Measure accuracy on validation images, as they are and corrupted.

    Raises CorruptFile if the weights are gone or damaged.
    """
    spec = load_spec(body)
    dataset = open_local(spec.dataset, settings)
    tuning = choose_tuning(spec, dataset, settings.device, cuda_graphs=False)
    weights = question["weights"]
    with tuning.applied():
        data = build_data(spec, dataset, tuning)
        network, _, _ = load_network(
            inside(settings.experiments_dir, weights["path"]), weights["sha256"], settings.cache_dir
        )
        network.to(tuning.device)
        scorer = Scorer(network, data.input_format, spec.test_time_augmentation)
        count = min(len(data.validation), MOST_IMAGES)
        chosen = torch.linspace(0, len(data.validation) - 1, count).round().long()
        images, labels = data.validation.take(chosen.to(data.validation.indices.device), torch.device("cpu"))
        parameters = parameters_for(images.shape[-1])
        scorer.count_right(images[:BATCH], labels[:BATCH])  # the first batch chooses algorithms
        began = time.perf_counter()
        first = scorer.count_right(images[:BATCH], labels[:BATCH])
        rounds = 1 + sum(len(values) for values in parameters.values.values())
        affordable = int(SECONDS / rounds / max(time.perf_counter() - began, 1e-9) * min(BATCH, count))
        if affordable < count:
            count = min(count, max(FEWEST_IMAGES, affordable))
            chosen = torch.linspace(0, len(images) - 1, count).round().long()
            images, labels = images[chosen], labels[chosen]
            first = scorer.count_right(images[:BATCH], labels[:BATCH])
        clean = (first + scorer.count_right(images[BATCH:], labels[BATCH:])) / count
        accuracy = {
            corruption.value: [scorer.accuracy(images, labels, corruption, value) for value in values]
            for corruption, values in parameters.values.items()
        }
    return {
        "num_images": count,
        "clean": clean,
        "accuracy": accuracy,
        "parameters": {corruption.value: list(values) for corruption, values in parameters.values.items()},
        "parameters_of": parameters.source,
    }


class Scorer:
    """Counts the images that a network classifies correctly."""

    def __init__(self, network: nn.Module, input_format: InputFormat, test_time_augmentation: str) -> None:
        self._network = network
        self._format = input_format
        self._augmentation = test_time_augmentation

    def accuracy(self, images: Tensor, labels: Tensor, corruption: Corruption, parameter: float) -> float:
        """Accuracy on corrupted images; the noise is the same for every network."""
        generator = torch.Generator().manual_seed(SEED)
        right = 0
        for some, expected in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
            right += self.count_right(corrupt(some, corruption, parameter, generator), expected)
        return right / len(images)

    @torch.inference_mode()
    def count_right(self, images: Tensor, labels: Tensor) -> int:
        """Count the correctly classified images among uint8 (N, C, H, H)."""
        right = 0
        for some, expected in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
            logits = predict(self._network, self._format.prepare(some.to(self._format.device)), self._augmentation)
            right += int((logits.argmax(1).cpu() == expected).sum())
        return right
