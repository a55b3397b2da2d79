"""The verdict on one history: findings in order of their weight, and one sentence that sums them up."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.curves.metrics import EpochMetrics
from models.curves.stability import measure_stability
from models.plain import finite
from models.spec.experiment import ExperimentSpec
from models.verdict.best import falls_back, find_best, report_best, report_wasted, rises
from models.verdict.chance import (
    report_below_chance,
    report_exploded,
    report_stuck,
    report_worse_than_guessing,
)
from models.verdict.collapse import find_collapses, report_collapses
from models.verdict.curves import in_order, read_curves
from models.verdict.diverged import report_divergence
from models.verdict.divergence import Divergence
from models.verdict.ending import report_ending, report_no_problem
from models.verdict.finding import ORDER, Finding, Severity
from models.verdict.kernels import report_kernels
from models.verdict.oscillation import report_oscillation
from models.verdict.overfitting import report_gap, report_overfitting, report_rising_training_loss
from models.verdict.summary import summarise
from models.verdict.trend import measure_progress, report_progress


def judge(
    history: Sequence[EpochMetrics],
    *,
    spec: ExperimentSpec | None = None,
    num_classes: int,
    kernels: Mapping[int, np.ndarray] | None = None,
    filters: Mapping[str, Any] | None = None,
    divergence: Divergence | Sequence[Divergence] | None = None,
    finished: bool = True,
) -> dict[str, Any]:
    """What happened in a run, as plain JSON data. docs/verdicts.md says what each finding means and how it is decided.

    `kernels` are the first layer's (out, in, height, width) by epoch, of the epochs that are kept; `filters` is what
    `worker.training.diagnosis.filters.filter_health` returned. Both are optional, as is all else but the history.
    """
    history = in_order(history)
    curves = read_curves(history, num_classes)
    divergences = _as_list(divergence)
    by_loss, by_accuracy = find_best(curves.val_loss), find_best(curves.val_accuracy, largest=True)
    stability = measure_stability(history, num_classes)
    progress = measure_progress(curves, by_loss)
    collapses = find_collapses(curves)
    collapsed = any(collapse.recovered is None for collapse in collapses)
    stuck = report_stuck(curves, spec)
    exploded = report_exploded(curves, spec)
    rising = report_rising_training_loss(curves, spec)
    improving = progress.improving and not (stuck or collapsed or exploded)
    lost = collapsed or rises(by_loss) or falls_back(by_accuracy)
    findings: list[Finding] = [
        *report_divergence(curves, divergences, spec),
        *report_collapses(curves, collapses, spec),
        *stuck,
        *exploded,
        *report_worse_than_guessing(curves, exploded=bool(exploded)),
        *report_below_chance(curves),
        *report_overfitting(curves, by_loss, by_accuracy, collapsed=collapsed, training_rises=bool(rising)),
        *rising,
        *report_wasted(curves, by_loss, by_accuracy, improving=improving),
        *(report_progress(curves, progress, spec, finished=finished) if improving else []),
        *report_gap(curves, spec),
        *report_oscillation(curves, stability),
        *report_best(curves, by_loss, by_accuracy),
        *report_ending(curves, spec, finished=finished),
        *report_kernels(kernels, filters, pretrained=bool(getattr(spec and spec.model, "pretrained", False))),
    ]
    findings += report_no_problem(curves, findings, stability, lost=lost, finished=finished)
    findings.sort(key=lambda finding: ORDER.index(Severity(finding["severity"])))
    verdict: dict[str, Any] = finite(
        {
            "summary": summarise(curves, findings, by_loss, by_accuracy, finished=finished),
            "best_epoch": {
                "by_loss": by_loss and by_loss.as_json(),
                "by_accuracy": by_accuracy and by_accuracy.as_json(),
            },
            "stability": None if stability is None else round(stability.score, 4),
            "finished": finished,
            "findings": findings,
        }
    )
    return verdict


def _as_list(divergence: Divergence | Sequence[Divergence] | None) -> list[Divergence]:
    if divergence is None:
        return []
    return [divergence] if isinstance(divergence, Divergence) else list(divergence)
