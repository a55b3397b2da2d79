"""The likely cause of a training that went wrong: a mistake that can be mended, beside the symptoms of it.

Each rule rests on something measured (what the network was shown, how it began, how far its layers moved) or set in the
spec. `python -m benchmarks.verdict_score` trains networks with each of these faults and measures how often it is named,
and named wrongly; docs/verdicts.md has the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from models.findings import Finding, FindingCode
from models.verdict.case import Case
from models.verdict.causes import given, trained
from models.verdict.causes.evidence import Evidence
from models.verdict.chance import report_stuck

Rule = Callable[[Evidence], Finding | None]
IMAGES: tuple[Rule, ...] = (given.contaminated_validation, given.too_few_images)
"""Mistakes in the images, by which a result is worth less. Each has evidence of its own, so all that hold are named."""
LABELS: tuple[Rule, ...] = (given.label_noise,)
"""Mistakes in the labels, of which only a network can tell whose training did not fail."""
GIVEN: tuple[Rule, ...] = (
    given.not_shuffled,
    given.wrong_head,
    given.inputs_not_normalised,
    given.frozen_body,
)
"""Mistakes in what else training was given, which may make it fail; all that hold are named, too."""
TRAINED: tuple[Rule, ...] = (
    trained.dead_layer,
    trained.vanishing_gradients,
    trained.momentum_too_high,
    trained.lr_too_high,
    trained.lr_too_low,
    trained.destructive_augmentation,
)
"""Causes of a training that failed, the most direct evidence first. One failure needs one of them: the first that holds
is named, and none where one of GIVEN explains it."""


def report_causes(case: Case, found: Sequence[Finding]) -> list[Finding]:
    """The causes that are likely, of a run that has ended and whose beginning was measured.

    `found` is what was found of it otherwise.
    """
    if case.beginning is None or case.filters is None or not case.finished or not case.curves.num_epochs:
        return []
    evidence = Evidence(case, case.beginning, case.filters, frozenset(finding.code for finding in found))
    failing = _holding(GIVEN, evidence) or _holding(TRAINED, evidence)[:1]
    doubted = [] if failing else _holding(LABELS, evidence)
    return [*_holding(IMAGES, evidence), *doubted, *failing]


def _holding(rules: Sequence[Rule], evidence: Evidence) -> list[Finding]:
    return [cause for rule in rules if (cause := rule(evidence))]


GUESSES = (
    FindingCode.STUCK_AT_CHANCE,
    FindingCode.WORSE_THAN_GUESSING,
    FindingCode.BELOW_CHANCE,
    FindingCode.SLOW_LEARNING,
    FindingCode.TRAINING_LOSS_RISING,
    FindingCode.COLLAPSE,
    FindingCode.LOSS_EXPLODED,
    FindingCode.DEAD_KERNELS,
)
"""Symptoms with advice for the most frequent of their causes."""
OF_IMAGES = (FindingCode.CONTAMINATED_VALIDATION, FindingCode.LABEL_NOISE, FindingCode.TOO_FEW_IMAGES)
"""Causes that explain none of these symptoms."""


def refer_to_causes(case: Case, findings: Sequence[Finding], causes: Sequence[Finding]) -> list[Finding]:
    """The findings without guesses that could contradict the causes: they refer to these instead."""
    explaining = [cause.code for cause in causes if cause.code not in OF_IMAGES]
    if not explaining:
        return list(findings)
    advice = f"See {' and '.join(explaining)}, the likely cause."
    plain = {finding.code: finding for finding in report_stuck(case.curves, case.spec, explain=False)}
    return [
        replace(plain.get(finding.code, finding), suggestion=advice) if finding.code in GUESSES else finding
        for finding in findings
    ]
