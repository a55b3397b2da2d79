"""Warnings about an uploaded dataset when something is to be trained on it: classes of unequal size, leaked images."""

import json
from collections.abc import Iterator
from typing import Any

from models.data.uploaded import HEALTH, FoundDataset, read_version
from models.networks.warning import Warned, warning
from models.spec.experiment import ExperimentSpec

IMBALANCE = 5.0
"""Times as many training images in the largest class as in the smallest, from which on it is worth a warning."""
LEAKAGE_CODES = ("duplicates.leakage",)


def dataset_warnings(spec: ExperimentSpec, found: FoundDataset) -> list[Warned]:
    """What is known of the images of an uploaded dataset that will cost accuracy, or make figures too good."""
    if found.folder is None:
        return []
    return [*_imbalance(spec, found), *_leakage(found)]


def _imbalance(spec: ExperimentSpec, found: FoundDataset) -> Iterator[Warned]:
    assert found.folder is not None
    counts = {
        str(one["name"]): one["train"] + one["validation"]
        for one in read_version(found.folder).get("report", {}).get("classes", [])
    }
    counts = {name: count for name, count in counts.items() if count}
    if not counts or spec.class_weights is not None or spec.sampler == "balanced":
        return
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    times = counts[largest] / counts[smallest]
    if times < IMBALANCE:
        return
    yield warning(
        "class-imbalance",
        f"Class {largest} has {times:.0f} times as many training images as {smallest} ({counts[largest]:,} and "
        f"{counts[smallest]:,}), so the network may answer with the frequent classes and accuracy will hide it.",
        {"largest": largest, "smallest": smallest, "times": times},
        "Look at the accuracy of each class, weigh the classes, or collect more images of the rare ones.",
        {} if spec.augmentation.mixup_alpha else {"class_weights": "balanced"},
    )


def _leakage(found: FoundDataset) -> Iterator[Warned]:
    assert found.folder is not None
    for finding in _health(found).get("findings", []):
        if finding.get("code") in LEAKAGE_CODES and finding.get("severity") in ("warning", "problem"):
            yield warning(
                "dataset-leakage",
                _as_sentence(str(finding["sentence"])),
                {"num_images": finding.get("num_images", 0)},
                "Drop the copies from one of the splits (POST /api/v1/datasets/NAME/drop), or keep them together by "
                "`group` in the next version.",
            )


def _as_sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _health(found: FoundDataset) -> dict[str, Any]:
    assert found.folder is not None
    try:
        result = json.loads((found.folder / HEALTH).read_bytes()).get("dataset_report")
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) else {}
