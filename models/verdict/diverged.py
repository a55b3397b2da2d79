"""Findings on divergences: losses that stopped being finite, and learning rates that were lowered because of it."""

import math
from collections.abc import Sequence

from models.findings import Finding, FindingCode, Severity
from models.spec.experiment import ExperimentSpec
from models.text import number, plural
from models.verdict.chance import LOWER_FIRST
from models.verdict.curves import Curves
from models.verdict.divergence import Divergence


def report_divergence(curves: Curves, divergences: Sequence[Divergence], spec: ExperimentSpec) -> list[Finding]:
    """Findings on the explained divergences, or on one that only the curves show."""
    findings: list[Finding] = []
    for divergence in divergences:
        findings.append(_explained(divergence, spec))
        if divergence.lowered_to is not None:
            findings.append(_lowered(divergence))
    if not divergences and curves.broken_from is not None:
        findings.append(_seen(curves, spec))
    return findings


def _explained(divergence: Divergence, spec: ExperimentSpec) -> Finding:
    suggestion = "The last finite weights are kept."
    if divergence.suggested_lr is not None:
        before = f" instead of {number(divergence.lr)}" if divergence.lr else ""
        suggestion = f"Use a learning rate of {number(divergence.suggested_lr)}{before}: {divergence.why}"
    if spec.clip_grad_norm is None:
        suggestion += " Clipping the gradient (clip_grad_norm: 1.0) helps too."
    return Finding(
        FindingCode.DIVERGENCE,
        Severity.WARNING if divergence.lowered_to is not None else Severity.PROBLEM,
        f"Training diverged: {divergence.what_happened}.{_path(divergence.grad_norms)}",
        epochs=[divergence.epoch],
        values={key: value for key, value in divergence.to_json().items() if key not in ("epoch", "why")},
        suggestion=suggestion,
    )


def _path(norms: Sequence[float]) -> str:
    """How the gradient's norm got there, in a sentence."""
    usable = [norm for norm in norms if math.isfinite(norm)]
    if len(usable) < 2:
        return ""
    shown = usable[-5:]
    grew = f" over {plural(len(usable), 'step')}" if len(usable) > 5 else ""
    return f" The gradient's norm went{grew} {' -> '.join(number(norm) for norm in shown)}" + (
        " -> not finite." if len(usable) < len(norms) else "."
    )


def _lowered(divergence: Divergence) -> Finding:
    assert divergence.lowered_to is not None
    before = f" from {number(divergence.lr)}" if divergence.lr else ""
    return Finding(
        FindingCode.LR_LOWERED,
        Severity.WARNING,
        f"After the divergence in epoch {divergence.epoch} training went back to the last finite checkpoint and "
        f"lowered the learning rate{before} to {number(divergence.lowered_to)}.",
        epochs=[divergence.epoch],
        values={"lr_before": divergence.lr, "lr_after": divergence.lowered_to},
        suggestion=f"Start the next run with {number(divergence.lowered_to)} or less, or warm the rate up.",
    )


def _seen(curves: Curves, spec: ExperimentSpec) -> Finding:
    first = curves.broken_from
    assert first is not None
    rate = spec.optimizer.lr
    again = (
        "No epoch had a finite loss."
        if first == int(curves.epochs[0])
        else f"The last finite loss is that of epoch {first - 1}."
    )
    return Finding(
        FindingCode.DIVERGENCE,
        Severity.PROBLEM,
        f"Training diverged at a learning rate of {number(rate)}: from epoch {first} on the loss is not a finite "
        f"number. {again} Metrics from there on are meaningless.",
        epochs=[first],
        values={"first_non_finite_epoch": first, "lr": rate},
        suggestion=LOWER_FIRST.format(lr=number(rate / 10)),
    )
