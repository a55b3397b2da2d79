"""A study's report as blocks of text, tables and figures, every sentence made from figures.

The same results give the same report: nothing in it depends on when it is made. `service.studies` turns the blocks
into HTML, Markdown and PDF, and draws the figures.
"""

import math
from collections.abc import Iterable, Sequence

from models.spec.study import SectionSpec, Shows
from models.studies.addition_sections import combined_blocks, robustness_blocks
from models.studies.blocks import (
    DASH,
    Block,
    Bullets,
    Figure,
    Report,
    Section,
    Table,
    Text,
    best_epoch,
    difference_text,
    epochs_text,
    published_text,
    score_text,
    troubles,
)  # fmt: skip
from models.studies.comparison import Judgement
from models.studies.results import RowResult, StudyResult, method_of, points
from models.studies.search_report import build_search_report
from models.studies.sections import build_section
from models.studies.setup import SETUP_COLUMNS, describe_setup, setup_row
from models.text import duration, percent, plural


def build_report(study: StudyResult) -> Report:
    """The report of a study, finished or not."""
    if study.search is not None:
        return build_search_report(study, study.search, tuple(_cost(study)))
    asked = study.spec.sections or default_sections(study)
    sections = [
        Section("Set-up", "", tuple(_setup(study))),
        Section("Results", "", tuple(_results(study))),
        *(build_section(study, section, index if study.spec.sections else None) for index, section in enumerate(asked)),
        *([Section("Runs combined", "", tuple(combined_blocks(study)))] if study.combined else []),
        *([Section("Robustness", "", tuple(robustness_blocks(study)))] if study.robustness else []),
        *(
            [Section("What was shortened", "", tuple(_shortened(study)))]
            if any(r.shortened for r in study.rows)
            else []
        ),
        Section("Verdicts", "", tuple(_verdicts(study))),
        Section("Cost", "", tuple(_cost(study))),
        Section("What this does not show", "", tuple(_limits(study))),
    ]
    return Report(study.title, study.question, tuple(_summary(study)), tuple(sections))


def default_sections(study: StudyResult) -> tuple[SectionSpec, ...]:
    """The sections of a study that names none."""
    keys = tuple(row.key for row in study.rows)
    if not keys:
        return ()
    return (
        SectionSpec(title="Comparison", shows=Shows.COMPARISON, rows=keys),
        SectionSpec(title="How many epochs", shows=Shows.EPOCHS, rows=keys),
        SectionSpec(title="Kernels", shows=Shows.KERNELS, rows=keys[:6]),
    )


def _setup(study: StudyResult) -> Iterable[Block]:
    """Tables of what the rows have in common, and how each was trained."""
    yield Table(("What", "How"), tuple(describe_setup(study)), texts=("What", "How"))
    rows = tuple(setup_row(row) for row in study.rows)
    yield Table(SETUP_COLUMNS, rows, texts=("Network", "Training"), note="Images are training + validation images.")


def _results(study: StudyResult) -> Iterable[Block]:
    has_published = any(row.published is not None for row in study.rows)
    columns = ("Row", "What", "Validation accuracy", *(("Published",) if has_published else ()), "Difference, points",
               "Epochs", "Time")  # fmt: skip
    rows = []
    for row in study.rows:
        best = best_epoch(row.first)
        at = f" @ {best}" if best and len(row.scores) == 1 else ""
        score = score_text(row)
        cells = [row.key, row.title, DASH if score == DASH else f"{score}{at}"]
        cells += [published_text(row)] if has_published else []
        cells += [
            difference_text(row, fair=study.is_fair(row)),
            epochs_text(row),
            duration(row.seconds) if row.seconds else DASH,
        ]
        rows.append(tuple(cells))
    seeds = max((len(row.scores) for row in study.rows), default=0)
    spread = " \u00b1 is the standard deviation over seeds." if seeds > 1 else ""
    note = f"Accuracy is that of the best epoch on the validation images; @ names the epoch.{spread}"
    baseline = study.baseline
    if baseline is not None and any(row.difference for row in study.rows):
        note += " The difference is to the row's baseline, with its 95% interval."
    yield Table(columns, tuple(rows), texts=("What",), note=note)
    for row in study.rows:
        for words in troubles(row):
            yield Text(words)
    compared = tuple(row.key for row in study.rows if row.difference is not None)
    if compared:
        methods = dict.fromkeys(method_of(row.difference) for row in study.rows if row.difference)
        caption = f"Differences to the baseline with 95% intervals, by {'; '.join(methods)}."
        if len(compared) > 1:
            caption += (
                " Grey: chance may explain the difference, after Holm's correction for the number of comparisons, or "
                "both were not shortened alike."
            )
        yield Figure("differences", compared, caption)


def _shortened(study: StudyResult) -> Iterable[Block]:
    budget = duration(study.budget_seconds) if study.budget_seconds else "the budget"
    yield Text(
        f"To fit into {budget}, rows were shortened alike. Their scores are those of short runs; the order of rows may "
        "change when they are run in full."
    )
    rows = [(row.label, row.shortened or "nothing") for row in study.rows]
    yield Table(("Row", "What was run"), tuple(rows), texts=("Row", "What was run"))


def _verdicts(study: StudyResult) -> Iterable[Block]:
    items = []
    told: set[int] = set()  # rows that ask for the same run share it
    for row in study.rows:
        for run in row.runs:
            if run.verdict and run.experiment_id not in told:
                told.add(run.experiment_id)
                seed = f", seed {run.seed}" if len(row.runs) > 1 else ""
                items.append(f"{row.title} (experiment {run.experiment_id}{seed}): {run.verdict['summary']}")
    yield Bullets(tuple(items)) if items else Text("No run has a verdict yet.")


def _cost(study: StudyResult) -> Iterable[Block]:
    runs = [run for row in study.rows for run in row.runs]
    seconds = sum({run.experiment_id: run.seconds for run in runs}.values())
    joules = [run.joules for run in runs if run.joules is not None]
    words = f"{plural(len({run.experiment_id for run in runs}), 'run')} took {duration(seconds)} of training"
    if study.budget_seconds:
        share = study.spent_seconds / study.budget_seconds
        whole = "it" if study.search else "with the dry runs the study"
        words += (
            f"; {whole} took {duration(study.spent_seconds)}, {100 * share:.0f}% of its budget of "
            f"{duration(study.budget_seconds)}"
        )
    yield Text(f"{words}.")
    if joules:
        kilojoules = f"{sum(joules) / 1000:,.1f} kJ"
        yield Text(
            f"The processor's own counters tell {kilojoules} in {plural(len(joules), 'run')}, with what ran beside."
        )
    else:
        yield Text("This machine has no readable energy counters.")


def _limits(study: StudyResult) -> Iterable[Block]:
    items = []
    if any(len(row.scores) == 1 for row in study.rows):
        measured = study.seed_variance
        items.append(
            "Rows with one seed: another seed gives another score. The intervals allow half a point of standard "
            "deviation for it, which is assumed and not measured here; more seeds (seeds: 3) measure it."
            if measured is None
            else "Rows with one seed: another seed gives another score. The intervals allow the "
            f"{100 * math.sqrt(measured.total):.1f} points of standard deviation that rows with several seeds show."
        )
    if any(row.shortened for row in study.rows):
        items.append(
            "Short runs favour what learns quickly; they do not say which row is best when all are run in full."
        )
    items.append(
        "The best epoch is chosen on the images that the score is measured on, which raises the scores of all "
        "rows by about the same."
    )
    compared = sum(row.difference is not None and study.is_fair(row) for row in study.rows)
    if compared > 1:
        items.append(
            f"{compared} rows are judged. Each at 95%, {percent(1 - 0.95**compared)} of such studies would show a "
            "difference by chance alone; better and worse are therefore said only after Holm's correction."
        )
    yield Bullets(tuple(items))
    yield Text(
        "Sources: McNemar, Psychometrika 12 (1947), exact form; Agresti and Min, Biostatistics 6 (2005), for its "
        "interval; Dorfman, Berbaum and Metz, Invest. Radiol. 27 (1992), and Satterthwaite, Biometrics Bulletin 2 "
        "(1946), for several seeds on shared images; Holm, Scand. J. Statist. 6 (1979)."
    )


def _summary(study: StudyResult) -> Iterable[str]:
    scored = [row for row in study.rows if row.spread is not None]
    if study.reason:
        yield f"{study.reason[:1].upper()}{study.reason[1:].rstrip('.')}."
    if not scored:
        yield "No row has a score yet."
        return
    best = max(scored, key=lambda row: row.spread.mean if row.spread else 0.0)
    yield f"The highest score is {score_text(best)}, by {best.title} (row {best.key})."
    compared = [row for row in scored if row.difference is not None]
    apart = [row for row in compared if not study.is_fair(row)]
    compared = [row for row in compared if row not in apart]
    better = [row for row in compared if row.difference and row.difference.judgement is Judgement.BETTER]
    worse = [row for row in compared if row.difference and row.difference.judgement is Judgement.WORSE]
    noise = [row for row in compared if row.difference and row.difference.judgement is Judgement.NOISE]
    if better:
        yield f"Better than their baseline: {_named(better)}."
    if worse:
        yield f"Worse than their baseline: {_named(worse)}."
    if noise:
        yield f"Not distinguishable from their baseline: {_named(noise)}."
    if apart:
        yield f"Not shortened like their baseline, so not judged: {', '.join(row.title for row in apart)}."
    failed = [row for row in study.rows if row.spread is None]
    if failed and study.status in ("completed", "failed", "cancelled"):
        yield f"Without a score: {', '.join(f'{row.title} ({row.status})' for row in failed)}."


def _named(rows: Sequence[RowResult]) -> str:
    return ", ".join(f"{row.title} ({points(row.difference.value)} points)" for row in rows if row.difference)
