"""Warnings about an uploaded dataset when something is to be trained on it, from the check of its images."""

import json
from collections.abc import Iterator
from typing import Any

from models.data.uploaded import HEALTH, FoundDataset
from models.findings import WarningCode
from models.networks.warning import Warned, warning

LEAKAGE_CODES = ("duplicates.leakage",)


def dataset_warnings(found: FoundDataset) -> list[Warned]:
    """What was found in the images of an uploaded dataset that makes figures better than they are."""
    if found.folder is None:
        return []
    return list(_leakage(found))


def _leakage(found: FoundDataset) -> Iterator[Warned]:
    assert found.folder is not None
    for finding in _health(found).get("findings", []):
        if finding.get("code") in LEAKAGE_CODES and finding.get("severity") in ("warning", "problem"):
            yield warning(
                WarningCode.DATASET_LEAKAGE,
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
