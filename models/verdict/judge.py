"""The verdict on one history: findings in order of their weight, and one sentence that sums them up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.curves.metrics import EpochMetrics
from models.curves.stability import measure_stability
from models.evaluation.calibration import Calibration
from models.evaluation.doubts import LabelDoubts
from models.findings import MOST_SERIOUS_FIRST, Finding, VerdictJson
from models.plain import finite
from models.spec.experiment import ExperimentSpec
from models.verdict.beginning import Beginning
from models.verdict.best import Best, falls_back, find_best, report_best, report_wasted, rises
from models.verdict.case import Case
from models.verdict.causes import refer_to_causes, report_causes
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
from models.verdict.filters import FilterHealth
from models.verdict.kernels import report_kernels
from models.verdict.oscillation import report_oscillation
from models.verdict.overfitting import report_gap, report_overfitting, report_rising_training_loss
from models.verdict.questions import answer_questions
from models.verdict.summary import summarise
from models.verdict.trend import measure_late_trends, report_improvement


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run: one sentence, the best epochs, and findings, the most serious ones first."""

    summary: str
    best_by_loss: Best | None
    best_by_accuracy: Best | None
    stability: float | None
    """From 0 to 1 (models.curves.stability); None with fewer than four epochs."""
    finished: bool
    """Whether the run has ended."""
    findings: tuple[Finding, ...]

    def as_json(self) -> VerdictJson:
        """The verdict as it is stored and sent; figures that are not finite become null."""
        verdict: VerdictJson = finite(
            {
                "summary": self.summary,
                "best_epoch": {
                    "by_loss": self.best_by_loss and self.best_by_loss.as_json(),
                    "by_accuracy": self.best_by_accuracy and self.best_by_accuracy.as_json(),
                },
                "stability": None if self.stability is None else round(self.stability, 4),
                "finished": self.finished,
                "findings": [finding.as_json() for finding in self.findings],
            }
        )
        return verdict


def judge(
    history: Sequence[EpochMetrics],
    *,
    spec: ExperimentSpec,
    num_classes: int,
    kernels: Mapping[int, np.ndarray] | None = None,
    filters: FilterHealth | None = None,
    divergences: Sequence[Divergence] = (),
    calibration: Calibration | None = None,
    doubts: Sequence[LabelDoubts] = (),
    beginning: Beginning | None = None,
    finished: bool = True,
) -> Verdict:
    """Judge a history of epochs. docs/verdicts.md explains what each finding means and how it is decided.

    `kernels` are the first layer's (out, in, height, width) by epoch, of the epochs that are kept. `calibration` is
    that of the best weights on the validation split, `doubts` the labels that they doubt, and `beginning` what the run
    began with, once it has ended.
    """
    history = in_order(history)
    curves = read_curves(history, num_classes)
    by_loss, by_accuracy = find_best(curves.val_loss), find_best(curves.val_accuracy, largest=True)
    stability = measure_stability(history, num_classes)
    case = Case(
        curves,
        spec,
        by_loss,
        by_accuracy,
        stability,
        kernels,
        filters,
        divergences,
        calibration,
        finished=finished,
        doubts=doubts,
        beginning=beginning,
    )
    findings, lost = _read_history(case)
    causes = report_causes(case, findings)
    findings = [*causes, *refer_to_causes(case, findings, causes)]
    findings += report_no_problem(curves, findings, stability, lost=lost, finished=finished)
    findings.sort(key=lambda finding: MOST_SERIOUS_FIRST.index(finding.severity))
    return Verdict(
        summary=summarise(curves, findings, by_loss, by_accuracy, finished=finished),
        best_by_loss=by_loss,
        best_by_accuracy=by_accuracy,
        stability=None if stability is None else stability.score,
        finished=finished,
        findings=tuple(findings),
    )


def _read_history(case: Case) -> tuple[list[Finding], bool]:
    """What the history itself shows, without causes; and whether what was learned was lost again."""
    curves, spec, by_loss, by_accuracy = case.curves, case.spec, case.by_loss, case.by_accuracy
    late = measure_late_trends(curves, by_loss)
    collapses = find_collapses(curves)
    collapsed = any(collapse.recovered is None for collapse in collapses)
    stuck = report_stuck(curves, spec)
    exploded = report_exploded(curves, spec)
    rising = report_rising_training_loss(curves, spec)
    improving = late.improving and not (stuck or collapsed or exploded)
    lost = collapsed or rises(by_loss) or falls_back(by_accuracy)
    findings = [
        *report_divergence(curves, case.divergences, spec),
        *report_collapses(curves, collapses, spec),
        *stuck,
        *exploded,
        *report_worse_than_guessing(curves, exploded=bool(exploded)),
        *report_below_chance(curves),
        *report_overfitting(curves, by_loss, by_accuracy, collapsed=collapsed, training_rises=bool(rising)),
        *rising,
        *report_wasted(curves, by_loss, by_accuracy, improving=improving),
        *(report_improvement(curves, late, spec, finished=case.finished) if improving else []),
        *report_gap(curves, spec),
        *report_oscillation(curves, case.stability),
        *report_best(curves, by_loss, by_accuracy),
        *answer_questions(case),
        *report_ending(curves, spec, finished=case.finished),
        *report_kernels(case.kernels, case.filters, pretrained=spec.model.starts_pretrained),
    ]
    return findings, lost
