"""The verdict in one sentence."""

from models.findings import CAUSES, Finding, FindingCode, Severity
from models.text import number, percent, plural
from models.verdict.best import Best
from models.verdict.curves import Curves

PHRASES = {
    FindingCode.DIVERGENCE: "training diverged{at}",
    FindingCode.COLLAPSE: "the network collapsed{at}",
    FindingCode.LOSS_EXPLODED: "the loss exploded{lr}",
    FindingCode.STUCK_AT_CHANCE: "nothing was learned beyond guessing",
    FindingCode.SLOW_LEARNING: "it learns far too slowly",
    FindingCode.WORSE_THAN_GUESSING: "its loss stayed worse than guessing",
    FindingCode.OVERFITTING: "it overfits from about epoch {epoch}",
    FindingCode.TRAINING_LOSS_RISING: "the training loss rises from epoch {epoch}",
    FindingCode.BELOW_CHANCE: "some accuracies are below guessing",
    FindingCode.STILL_IMPROVING: "it was still improving at the end|it is still improving",
    FindingCode.DEAD_KERNELS: "some kernels are dead",
    FindingCode.OSCILLATION: "its curves swing widely",
    FindingCode.NO_PROBLEM: "nothing went wrong|nothing has gone wrong",
}
"""Findings that the summary mentions, the most important first, with their wording after and during training."""


def summarise(
    curves: Curves, findings: list[Finding], by_loss: Best | None, by_accuracy: Best | None, *, finished: bool
) -> str:
    """The best result, and the one or two most important findings."""
    if not curves.num_epochs:
        return "No epoch has ended yet."
    best = _best_words(by_loss, by_accuracy)
    length = plural(curves.num_epochs, "epoch")
    start = f"{'After' if finished else 'So far, after'} {length}{best}"
    said = _phrases(findings, finished=finished)
    codes = {finding.code for finding in findings}
    if causes := [phrase for code, phrase in CAUSES.items() if code in codes]:
        said = [*said[:1], causes[0]]
    if curves.is_short and not any(finding.severity is Severity.PROBLEM for finding in findings):
        said = [*said, "too few epochs to say more"]
    return f"{start}; {', and '.join(said[:2])}." if said else f"{start}."


def _best_words(by_loss: Best | None, by_accuracy: Best | None) -> str:
    if by_accuracy:
        return f" the best validation accuracy is {percent(by_accuracy.value)} (epoch {by_accuracy.epoch})"
    if by_loss:
        return f" the lowest validation loss is {number(by_loss.value)} (epoch {by_loss.epoch})"
    return " there is no usable validation figure"


def _phrases(findings: list[Finding], *, finished: bool) -> list[str]:
    by_code = {finding.code: finding for finding in findings}
    said = []
    for code, phrase in PHRASES.items():
        finding = by_code.get(code)
        if finding is None or (code is FindingCode.OSCILLATION and finding.severity is not Severity.WARNING):
            continue
        epochs, values = finding.epochs, finding.values
        if code is FindingCode.COLLAPSE and values.get("recovered"):
            said.append(f"accuracy broke down at epoch {epochs[0]} and recovered")
            continue
        if code is FindingCode.STUCK_AT_CHANCE and not values["never_learned"]:
            if FindingCode.COLLAPSE not in by_code:
                said.append(f"it is at chance from epoch {epochs[0]} on")
            continue
        if code is FindingCode.NO_PROBLEM and [word for word in said if not word.startswith("it ")]:
            continue
        lr = f" at a learning rate of {number(values['lr'])}" if values.get("lr") else ""
        at = (
            f" in epoch {epochs[0]}"
            if code is FindingCode.DIVERGENCE and epochs
            else f" from epoch {epochs[0]}"
            if epochs
            else ""
        )
        phrase = phrase.split("|")[0 if finished else -1]
        said.append(phrase.format(epoch=epochs[0] if epochs else "", at=at, lr=lr))
    return said
