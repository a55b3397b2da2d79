"""A finding on calibration: whether the mean probability equals the accuracy."""

import math

from models.findings import Finding, FindingCode, Severity
from models.text import percent
from models.verdict.case import Case

SURE = 2.0
"""Standard errors of the accuracy by which the mean probability must differ from it."""
SMALL = 0.02
"""A difference too small to matter."""


def report(case: Case) -> list[Finding]:
    """The expected calibration error of the best weights, without and with temperature scaling.

    It is `good` if the mean probability is the accuracy, within what so few images explain or nearly so.
    """
    calibration = case.calibration
    if calibration is None:
        return []
    accuracy, confidence = calibration.accuracy, calibration.confidence
    noise = math.sqrt(max(accuracy * (1 - accuracy), 1 / calibration.num_images) / calibration.num_images)
    gap = confidence - accuracy
    fits = abs(gap) <= max(SURE * noise, SMALL)
    of_images = f"{percent(accuracy)} of {calibration.num_images:,} validation images are right"
    errors = (
        f"expected calibration error {percent(calibration.error)}, or {percent(calibration.calibrated_error)} with "
        f"logits divided by {calibration.temperature:.2f}"
    )
    verdict = "fit" if fits else "are too high" if gap > 0 else "are too low"
    return [
        Finding(
            FindingCode.CALIBRATION,
            Severity.GOOD if fits else Severity.INFO,
            f"The best weights' probabilities {verdict}: {percent(confidence)} on average, and {of_images} ({errors}).",
            values={
                "error": calibration.error,
                "calibrated_error": calibration.calibrated_error,
                "temperature": calibration.temperature,
                "confidence": confidence,
                "accuracy": accuracy,
                "images": calibration.num_images,
            },
            suggestion="" if fits else "Use the calibrated probabilities, which predictions give beside the others.",
        )
    ]
