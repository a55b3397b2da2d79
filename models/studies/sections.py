"""The sections of a report that a study asks for, one function for each kind of thing that a section shows."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from models.findings import CAUSES, BestJson, FindingCode, FindingJson
from models.spec.study import SectionSpec, Shows
from models.studies.blocks import (
    DASH,
    Block,
    Bullets,
    Figure,
    Section,
    Table,
    Text,
    ended,
    published_text,
    score_text,
    troubles,
)  # fmt: skip
from models.studies.comparison import Judgement, SeedVariance, compare
from models.studies.results import (
    RowResult,
    RunResult,
    StudyResult,
    difference_sentence,
    points,
    sentence,
    stability_sentence,
)
from models.text import number, percent, plural

FEWEST_EPOCHS = 4
"""With fewer a best epoch means nothing."""
KERNEL_CODES = (
    FindingCode.DEAD_KERNELS, FindingCode.SATURATED_KERNELS, FindingCode.DUPLICATE_KERNELS, FindingCode.NOISE_KERNELS,
    FindingCode.FIRST_LAYER_SETTLED, FindingCode.FIRST_LAYER_MOVING, FindingCode.LAYER_MOVEMENT,
)  # fmt: skip
FAILURE_CODES = (
    FindingCode.DIVERGENCE, FindingCode.LOSS_EXPLODED, FindingCode.STUCK_AT_CHANCE, FindingCode.SLOW_LEARNING,
    FindingCode.BELOW_CHANCE, FindingCode.WORSE_THAN_GUESSING, FindingCode.COLLAPSE, FindingCode.LR_LOWERED,
    FindingCode.DEAD_KERNELS, *CAUSES,
)  # fmt: skip


def build_section(study: StudyResult, section: SectionSpec, index: int | None) -> Section:
    """One section; `index` is its number among those that the study asks for, None for a default one."""
    rows = [row for key in section.rows if (row := study.row(key)) is not None]
    run = [row for row in rows if row.first is not None]
    blocks: list[Block] = []
    if not run:
        blocks += [Text(words) for row in rows for words in troubles(row)] or [Text("None of its rows has run yet.")]
    else:
        match section.shows:
            case Shows.COMPARISON:
                blocks += _comparison(study, rows, run, index)
            case Shows.STEPS:
                blocks += _steps(study, rows, run, index)
            case Shows.EPOCHS:
                blocks += _epochs(run, index)
            case Shows.CHOICE:
                blocks += _choice(run)
            case Shows.KERNELS:
                blocks += _kernels(run)
            case Shows.FAILURES:
                blocks += _failures(rows, index)
    if section.learning_rate_test is not None:
        blocks += _lr_test(study, section.learning_rate_test)
    return Section(section.title, section.question, tuple(blocks))


def _panels(run: Sequence[RowResult], index: int | None, words: str) -> Figure:
    return Figure("panels", tuple(row.key for row in run), words, index)


def _comparison(
    study: StudyResult, rows: Sequence[RowResult], run: Sequence[RowResult], index: int | None
) -> Iterable[Block]:
    yield _panels(run, index, "Loss (above) and accuracy (below) by epoch, evolution from left to right, on one scale.")
    yield _stability_table(run)
    order = ordering_sentence(run, study.seed_variance)
    if order:
        yield Text(order, strong=True)
    told = []
    for row in rows:
        baseline = study.row(row.baseline) if row.baseline else None
        if row.question and row.first is not None:
            told.append(f"{_ask(row.question)} {_answer(row, baseline)}")
        elif baseline is not None and row.difference is not None:
            told.append(difference_sentence(row, baseline))
        told += list(troubles(row))
    if told:
        yield Bullets(tuple(told))


def _ask(question: str) -> str:
    return question if question.endswith(("?", ".")) else f"{question}?"


def _answer(row: RowResult, baseline: RowResult | None) -> str:
    if baseline is None or row.difference is None:
        spread = row.spread
        return "It has no score." if spread is None else f"It reaches {percent(spread.mean)}."
    return difference_sentence(row, baseline)


def _stability_table(run: Sequence[RowResult]) -> Table:
    has_published = any(row.published is not None for row in run)
    rows = []
    for row in run:
        first, stability = row.first, row.stability
        assert first is not None
        last = first.history[-1].val_accuracy
        wobble = None if stability is None else stability.wobble_accuracy
        rows.append(
            (
                row.label,
                score_text(row),
                *((published_text(row),) if has_published else ()),
                percent(last) if math.isfinite(last) else "not finite",
                DASH if stability is None else f"{stability.score:.2f}",
                DASH if wobble is None else f"{100 * wobble:.1f}",
            )
        )
    published = ("Published",) if has_published else ()
    return Table(
        ("Row", "Best", *published, "Last epoch", "Stability", "Wobble, points"),
        tuple(rows),
        texts=("Row",),
        note="Stability is 1 for curves that keep what they reach without ups and downs, 0 for those that collapse.",
    )


def ordering_sentence(run: Sequence[RowResult], seeds: SeedVariance | None) -> str:
    """The rows from the highest score down, and which neighbours chance may have put in this order."""
    scored = sorted((row for row in run if row.spread), key=lambda row: -row.spread.mean if row.spread else 0.0)
    if len(scored) < 2:
        return ""
    parts = [f"{scored[0].title} ({score_text(scored[0])})"]
    for above, row in pairwise(scored):
        found = compare(above.scores, row.scores, seeds)
        apart = found is not None and found.judgement is not Judgement.NOISE
        word = "above" if apart else "not distinguishable from"
        word += "" if above.is_alike(row) else " (not shortened alike)"
        parts.append(f"{word} {row.title} ({score_text(row)})")
    return f"From high to low: {', '.join(parts)}."


def _steps(
    study: StudyResult, rows: Sequence[RowResult], run: Sequence[RowResult], index: int | None
) -> Iterable[Block]:
    seeds = study.seed_variance
    yield _panels(run, index, "The steps from left to right: loss (above) and accuracy (below) by epoch, on one scale.")
    yield _stability_table(run)
    told = []
    for before, row in pairwise(run):
        found = compare(row.scores, before.scores, seeds)
        change = RowResult(**{**vars(row), "difference": found})
        told.append(difference_sentence(change, before))
        if row.stability is not None and before.stability is not None:
            told[-1] += f" {stability_sentence(row, before)}"
    told += [words for row in rows for words in troubles(row)]
    yield Bullets(tuple(told)) if told else Text("There is one step only.")
    if len(run) > 2:
        found = compare(run[-1].scores, run[0].scores, seeds)
        if found is not None:
            whole = RowResult(**{**vars(run[-1]), "difference": found})
            yield Text(f"All steps together: {difference_sentence(whole, run[0])}", strong=True)


def _epochs(run: Sequence[RowResult], index: int | None) -> Iterable[Block]:
    if index is not None:  # a study that asks for no sections shows them under Comparison
        yield _panels(run, index, "Loss (above) and accuracy (below) by epoch; the ring marks the best epoch.")
    has_published = any(row.published is not None for row in run)
    rows, told = [], []
    for row in run:
        first = row.first
        assert first is not None
        best = None if first.verdict is None else first.verdict["best_epoch"]
        by_accuracy, by_loss = (None, None) if best is None else (best["by_accuracy"], best["by_loss"])
        published = (published_text(row),) if has_published else ()
        rows.append((row.label, *_epoch_cells(by_accuracy), *_epoch_cells(by_loss), *published))
        if len(first.history) < FEWEST_EPOCHS:
            few = plural(len(first.history), "epoch")
            are = "is" if len(first.history) == 1 else "are"
            told.append(f"{sentence(row.title)}: {few} {are} too few to tell a best one from noise.")
        elif by_accuracy and by_loss:
            told.append(_epochs_sentence(row, by_accuracy, by_loss, len(first.history)))
    columns = ("Row", "Best by accuracy", "As good", "Best by loss", "As good ")
    note = "Epochs count from 1. \u201cAs good\u201d are the epochs that noise does not tell from the best one."
    yield Table((*columns, "Published") if has_published else columns, tuple(rows), texts=("Row",), note=note)
    yield Bullets(tuple(told))


def _epoch_cells(best: BestJson | None) -> tuple[str, str]:
    if best is None:
        return DASH, DASH
    first, last = best["as_good"]
    return str(best["epoch"]), str(first) if first == last else f"{first} to {last}"


def _epochs_sentence(row: RowResult, by_accuracy: BestJson, by_loss: BestJson, num_epochs: int) -> str:
    first, last = by_accuracy["as_good"]
    alike = f"; epochs {first} to {last} are as good within noise" if last > first else ""
    words = f"{sentence(row.title)}: the accuracy is highest at epoch {by_accuracy['epoch']}{alike}."
    if by_loss["stands_out"]:
        words += f" The loss is lowest at epoch {by_loss['epoch']} and rises after it: more epochs only overfit."
        return f"{words} About {plural(max(first, by_loss['epoch']), 'epoch')} would have been enough."
    if last >= num_epochs - 1:
        return f"{words} Neither curve has turned by the end: more epochs may still help."
    return f"{words} After epoch {last} nothing was gained beyond noise."


def _choice(run: Sequence[RowResult]) -> Iterable[Block]:
    rows, gaps, errors = [], [], []
    seen: set[int] = set()  # rows that ask for the same run share it
    for row in run:
        for each in row.runs:
            if each.test_accuracy is None or each.score is None or each.experiment_id in seen:
                continue
            seen.add(each.experiment_id)
            gap = each.score.accuracy - each.test_accuracy
            images = each.score.num_images or 10_000
            p = each.test_accuracy
            gaps.append(gap)
            errors.append(math.sqrt(p * (1 - p) * (1 / images + 1 / 10_000)))
            rows.append((row.label, percent(each.score.accuracy), percent(p), points(gap)))
    if not gaps:
        yield Text("No row was measured on the test images (dataset.evaluate_test), so the effect cannot be measured.")
        return
    columns = ("Row", "On the validation images, which chose the epoch", "On the test images", "Difference, points")
    yield Table(columns, tuple(rows), texts=("Row",), note="Both are of the weights of the epoch that was chosen.")
    mean, error = sum(gaps) / len(gaps), sum(errors) / len(errors)
    low, high = mean - 1.96 * error, mean + 1.96 * error
    words = (
        f"The epoch was chosen on the validation images. There its score is {points(mean)} points from what the same "
        f"weights reach on test images, which were not used to choose (95% interval {points(low)} to "
        f"{points(high)}, rows taken as "
        "one sample since they share the images)."
    )
    yield Text(words)
    told = (
        "This is by how much choosing the epoch by a score raises that score"
        if low > 0
        else "The random choice of images explains as much: the effect of choosing is too small to be measured here"
    )
    yield Text(
        f"{told}. Test and validation images are random samples of the same kind, so an epoch chosen on the test set, "
        "as without a validation set, has a score that is too high by as much, and then no images are left to show it.",
        strong=True,
    )


def _kernels(run: Sequence[RowResult]) -> Iterable[Block]:
    told = []
    for row in run:
        first = row.first
        assert first is not None
        yield Figure("kernels", (row.key,), f"First-layer kernels of {row.title}: first, best and last epoch.")
        found = _findings(first, KERNEL_CODES)
        words = " ".join(finding["sentence"] for finding in found)
        if first.verdict is not None and all(finding["code"] != FindingCode.DEAD_KERNELS for finding in found):
            words = f"every filter responds to some image, so none is dead. {words}"
        told.append(f"{sentence(row.title)}: {words or 'its filters were not measured.'}")
    yield Bullets(tuple(told))


def _failures(rows: Sequence[RowResult], index: int | None) -> Iterable[Block]:
    shown = [row for row in rows if row.first is not None and len(row.first.history) > 0]
    if shown:
        yield _panels(shown, index, "Loss (above) and accuracy (below) by epoch, on one scale.")
    told = []
    for row in rows:
        first = next(iter(row.runs), None)
        if first is None:
            told += list(troubles(row))
            continue
        words = [f"{sentence(row.title)}: experiment {first.experiment_id} {ended(first.status)}."]
        if first.verdict:
            words.append(first.verdict["summary"])
        if first.reason and first.status != "completed":
            words.append(f"{first.reason.rstrip('.')}.")
        words += [finding["sentence"] for finding in _findings(first, FAILURE_CODES)]
        if row.published is not None and row.published.note:
            words.append(f"Published: {row.published.note.rstrip('.')}.")
        told.append(" ".join(dict.fromkeys(words)))
    yield Bullets(tuple(told))


def _lr_test(study: StudyResult, key: str) -> Iterable[Block]:
    row, result = study.row(key), study.lr_tests.get(key)
    if row is None:
        return
    if result is None:
        yield Text(f"The learning-rate test of {row.title} has no result.")
        return
    yield Figure("learning-rate-test", (key,), f"Learning-rate test of {row.title}: loss while the rate rises.")
    suggestion = result["suggestion"]
    if suggestion["lr"] is not None:
        yield Text(f"It suggests a rate of {number(suggestion['lr'])}. {suggestion['why']}".strip())


def _findings(run: RunResult, codes: Sequence[FindingCode]) -> list[FindingJson]:
    findings = [] if run.verdict is None else run.verdict["findings"]
    return [finding for finding in findings if finding["code"] in codes]
