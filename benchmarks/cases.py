"""Cases of the throughput benchmark: specs to train. Free of torch."""

from dataclasses import dataclass
from typing import Any

from models.spec.experiment import ExperimentSpec
from models.spec.parse import parse_spec

WARM_UP_BATCHES = 4
"""Batches before a clock starts: loaders' workers start, algorithms are chosen, memory is taken."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how many images a round times of the engine and the ceiling, and of the report's loop."""

    name: str
    spec: ExperimentSpec
    images: int
    report_images: int
    quick_rounds: int


def _case(name: str, images: int, report_images: int, rounds: int, body: dict[str, Any]) -> Case:
    spec = parse_spec({"epochs": 1, "dataset": {"name": "cifar10", "val_limit": 100}, **body})
    return Case(name, spec, images, report_images, rounds)


_TURNS = {"hflip": 0.5, "vflip": 0.5, "rotation_degrees": 15}
_SQUEEZENET = {"name": "squeezenet1_1", "input_size": 64}

CASES = {
    case.name: case
    for case in (
        _case("baseline-16", 16_000, 4_800, 5, {"model": "baseline", "batch_size": 16}),
        _case("baseline-128", 25_600, 7_680, 5, {"model": "baseline", "batch_size": 128}),
        _case("three_blocks-128", 2_048, 768, 3, {"model": "three_blocks", "batch_size": 128, "augmentation": _TURNS}),
        _case("squeezenet-64px", 3_840, 1_280, 5, {"model": _SQUEEZENET, "batch_size": 128}),
    )
}
