"""Findings on how the run ended: early stopping, missing figures, too few epochs, no problem."""

from models.curves.stability import Stability
from models.findings import Finding, FindingCode, Severity
from models.spec.experiment import ExperimentSpec
from models.spec.training import EarlyStoppingSpec
from models.text import plural
from models.verdict.curves import Curve, Curves


def report_ending(curves: Curves, spec: ExperimentSpec, *, finished: bool) -> list[Finding]:
    """Stopped early by its own rule; too few epochs for more."""
    findings = []
    if finished and spec.early_stopping and curves.num_epochs < spec.epochs:
        waited = _epochs_without_improvement(curves, spec.early_stopping)
        if waited >= spec.early_stopping.patience:
            findings.append(_early_stopped(curves, spec, spec.early_stopping, waited))
    if curves.is_short and curves.broken_from is None:
        findings.append(_too_few(curves))
    missing = _missing(curves)
    if missing:
        findings.append(missing)
    return findings


def _early_stopped(curves: Curves, spec: ExperimentSpec, rule: EarlyStoppingSpec, waited: int) -> Finding:
    saved = spec.epochs - curves.last_epoch
    return Finding(
        FindingCode.EARLY_STOPPED,
        Severity.GOOD,
        f"Early stopping ended training after epoch {curves.last_epoch}: {rule.monitor} had not improved for "
        f"{plural(waited, 'epoch')}. That saved {plural(saved, 'epoch')}.",
        epochs=[curves.last_epoch],
        values={"monitor": str(rule.monitor), "patience": rule.patience, "saved": saved},
        suggestion="",
    )


def _epochs_without_improvement(curves: Curves, rule: EarlyStoppingSpec) -> int:
    curve: Curve = getattr(curves, str(rule.monitor))
    best, since = None, 0
    for value in curve.values.tolist():
        worse = value if rule.mode == "min" else -value
        if best is None or worse < best - rule.min_delta:
            best, since = worse, 0
        else:
            since += 1
    return since


def _too_few(curves: Curves) -> Finding:
    if not curves.num_epochs:
        sentence = "No epoch has ended yet, so there is nothing to judge."
    else:
        sentence = (
            f"{plural(curves.num_epochs, 'epoch')} of figures cannot tell a trend from noise; what follows is based "
            "on little data."
        )
    return Finding(
        FindingCode.TOO_FEW_EPOCHS,
        Severity.INFO,
        sentence,
        epochs=[curves.last_epoch] if curves.num_epochs else [],
        values={"epochs": curves.num_epochs},
        suggestion="Train for at least five epochs to get a verdict on the curves' shape.",
    )


def _missing(curves: Curves) -> Finding | None:
    """Epochs in the middle for which a validation figure is missing."""
    end = curves.broken_from or curves.last_epoch + 1
    wanted = {int(epoch) for epoch in curves.epochs if epoch < end}
    gaps: set[int] = set()
    for curve in (curves.train_loss, curves.val_loss, curves.val_accuracy):
        if len(curve):
            gaps |= wanted - {int(epoch) for epoch in curve.epochs}
    if not gaps:
        return None
    return Finding(
        FindingCode.MISSING_VALUES,
        Severity.INFO,
        f"Figures are missing or not finite in {plural(len(gaps), 'epoch')} in between; they were left out of this "
        "verdict.",
        epochs=sorted(gaps)[:50],
        values={"epochs": len(gaps)},
        suggestion="If they were infinite or NaN, the learning rate is close to where training diverges: lower it.",
    )


def report_no_problem(
    curves: Curves, findings: list[Finding], stability: Stability | None, *, lost: bool, finished: bool
) -> list[Finding]:
    """The finding that nothing went wrong: no warning or problem, finite losses, and nothing learned was lost again.

    `lost` tells whether the accuracy or the loss surely ended worse than it had been.
    """
    if stability is None or stability.score < 0.5 or stability.kept < 0.95 or lost:
        return []
    if curves.is_short or any(finding.severity in (Severity.PROBLEM, Severity.WARNING) for finding in findings):
        return []
    if {FindingCode.OVERFITTING, FindingCode.MISSING_VALUES} & {finding.code for finding in findings}:
        return []
    return [
        Finding(
            FindingCode.NO_PROBLEM,
            Severity.GOOD,
            f"{'Nothing went wrong' if finished else 'Nothing has gone wrong so far'}: the losses stayed finite and "
            "nothing that was learned was lost.",
            epochs=[curves.last_epoch],
        )
    ]
