"""Warnings about training on an uploaded dataset, from the check of its images."""

from collections.abc import Iterator

from models.data.health.report import HealthReport, Severity
from models.data.health.stored import read_check
from models.data.uploaded import FoundDataset
from models.findings import WarningCode
from models.networks.warning import Warned, warning
from models.text import as_sentence

LEAKAGE_CODES = ("duplicates.leakage",)


def dataset_warnings(found: FoundDataset) -> list[Warned]:
    """Warnings about problems of an uploaded dataset that make measured accuracies too high."""
    check = None if found.folder is None else read_check(found.folder)
    return [] if check is None or check.report is None else list(_leakage(check.report))


def _leakage(report: HealthReport) -> Iterator[Warned]:
    for finding in report.findings:
        if finding.code in LEAKAGE_CODES and finding.severity is not Severity.INFO:
            yield warning(
                WarningCode.DATASET_LEAKAGE,
                as_sentence(finding.sentence),
                {"num_images": finding.num_images},
                "Drop the copies from one of the splits (POST /api/v1/datasets/NAME/drop), or keep them together by "
                "`group` in the next version.",
            )
