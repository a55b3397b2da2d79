"""A search's report as blocks: the space, the trials, the fields' importances, the best trial, the limits."""

from collections.abc import Iterable, Sequence

from models.spec.overrides import overlap
from models.spec.search import Pruner, in_words, space_of, value_text
from models.spec.trials import title_of
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
    score_text,
    troubles,
)  # fmt: skip
from models.studies.comparison import Judgement, compare, holm
from models.studies.results import RowResult, StudyResult
from models.studies.search import Ending, num_startup
from models.studies.search_results import SearchResult
from models.studies.setup import describe_setup, setup_row
from models.text import duration, percent, plural

MOST_PANELS = 5
MOST_COLUMNS = 6
"""Fields of a space that have columns of their own in the table of trials."""
SAMPLERS = {
    "tpe": "the tree-structured Parzen estimator (TPE), after {startup} at random",
    "random": "at random",
    "grid": "every combination once, in a random order",
}
PRUNERS = {
    "none": "none",
    "median": "trials below the median of those run in full, at the same epoch",
    "asha": "successive halving: after each rung of epochs the best third continues",
}
ENDED = {"pruned": "ended early", "completed": "in full", "skipped": "not run"}


def build_search_report(study: StudyResult, search: SearchResult, cost: tuple[Block, ...]) -> Report:
    """The report of a search, finished or not."""
    best = best_row(study, search)
    ranked = sorted((row for row in study.rows if row.spread and not row.pruned), key=lambda row: -_score(row))
    alike = _alike(best, ranked)
    sections = [
        Section("Set-up", "", tuple(_setup(study, search))),
        Section("Trials", "", tuple(_trials(study, search))),
        Section("Which fields matter", "", tuple(_importance(search))),
        Section("The best trial", "", tuple(_best(best, ranked, alike))),
        Section("Cost", "", cost),
        Section("What this does not show", "", tuple(_limits(search, best))),
    ]
    return Report(study.title, study.question, tuple(_summary(study, search, best, alike)), tuple(sections))


def best_row(study: StudyResult, search: SearchResult) -> RowResult | None:
    """The row of the best trial."""
    return None if search.best is None else study.rows[search.best.number]


def _score(row: RowResult) -> float:
    return row.spread.mean if row.spread else 0.0


def _alike(best: RowResult | None, ranked: Sequence[RowResult]) -> list[RowResult]:
    """The trials run in full that chance may explain to be below the best one."""
    others = [row for row in ranked if best is not None and row.key != best.key]
    found = holm([compare(row.scores, best.scores) if best else None for row in others])
    return [row for row, one in zip(others, found, strict=True) if one and one.judgement is Judgement.NOISE]


def _setup(study: StudyResult, search: SearchResult) -> Iterable[Block]:
    how = SAMPLERS[search.spec.sampler.value].format(startup=plural(num_startup(search.num_trials), "trial"))
    rows = [(what, words) for what, words in describe_setup(study) if what not in ("Seeds", "Budget")]
    rows += list(_in_common(study, search))
    rows += [
        ("Trials", f"{plural(search.num_trials, 'trial')} at most, each one run; seed {search.spec.seed}"),
        ("Drawn", how),
        ("Ended early", PRUNERS[search.spec.pruner.value]),
    ]
    if study.budget_seconds:
        rows.append(("Budget", f"{duration(study.budget_seconds)}, after which no more trials are drawn"))
    yield Table(("What", "How"), tuple(rows), texts=("What", "How"))
    space = tuple((field, in_words(dimension)) for field, dimension in space_of(search.spec).items())
    yield Table(("Field", "May be"), space, texts=("Field", "May be"))


def _in_common(study: StudyResult, search: SearchResult) -> Iterable[tuple[str, str]]:
    """What every trial is: the fields of the spec that are not looked for."""
    if not study.rows:
        return
    _, network, _, images, epochs = setup_row(study.rows[0])
    for what, words, fields in (
        ("Network", network, ("model",)),
        ("Images of a trial", f"{images} (training + validation)", ("dataset",)),
        ("Epochs", epochs, ("epochs",)),
    ):
        if not any(overlap(field, known) for field in fields for known in space_of(search.spec)):
            yield what, words


def _trials(study: StudyResult, search: SearchResult) -> Iterable[Block]:
    if not study.rows:
        yield Text("No trial was drawn yet.")
        return
    fields = list(space_of(search.spec))
    wide = len(fields) <= MOST_COLUMNS
    names = tuple(fields) if wide else ("Values",)
    rows = []
    for row in study.rows:
        params = row.params or {}
        values = tuple(value_text(params[field]) for field in fields) if wide else (title_of(params),)
        epoch = best_epoch(row.first)
        score = score_text(row)
        cells = [row.key, *values, DASH if score == DASH else f"{score} @ {epoch}", _epochs(row)]
        cells += [ENDED.get(row.status, row.status), duration(row.seconds) if row.seconds else DASH]
        rows.append(tuple(cells))
    columns = ("Trial", *names, "Validation accuracy", "Epochs", "Ended", "Time")
    note = "Accuracy is that of the best epoch on the validation images; @ names the epoch."
    yield Table(columns, tuple(rows), texts=(*names, "Ended"), note=note)
    told = [words for row in study.rows for words in troubles(row)]
    if told:
        yield Bullets(tuple(told))
    # after the table, which fills the page that a figure of its height may not fit on
    keys = tuple(row.key for row in study.rows)
    yield Figure("search", keys, "Best validation accuracy by trial, and by the value of each field.")


def _epochs(row: RowResult) -> str:
    done = len(row.first.history) if row.first else 0
    return f"{done}" if done == row.spec.epochs else f"{done} of {row.spec.epochs}"


def _importance(search: SearchResult) -> Iterable[Block]:
    if search.importances is None:
        yield Text("The trials are too few, or too similar, to say which field matters.")
        return
    rows = tuple((field, percent(part)) for field, part in search.importances.items())
    note = (
        "How much the values of the best trials differ from those of all trials, as each field's share of the whole "
        "(PED-ANOVA: Watanabe, Bansal and Hutter, IJCAI 2023)."
    )
    yield Table(("Field", "Importance"), rows, note=note)
    yield Text("It is a rough estimate with few trials, and says nothing about fields that were not in the space.")


def _best(best: RowResult | None, ranked: Sequence[RowResult], alike: Sequence[RowResult]) -> Iterable[Block]:
    if best is None:
        yield Text("No trial was run in full yet.")
        return
    yield Text(f"Trial {best.key} reaches {score_text(best)} with {title_of(best.params or {})}.", strong=True)
    told = []
    if alike:
        names = ", ".join(row.key for row in alike[:10]) + (" and others" if len(alike) > 10 else "")
        told.append(f"Not distinguishable from it on these validation images: {names}.")
    first = best.first
    if first is not None and first.verdict:
        told.append(f"Its verdict: {first.verdict['summary']}")
    if told:
        yield Bullets(tuple(told))
    keys = tuple(row.key for row in ranked if row.first is not None)[:MOST_PANELS]
    if keys:
        yield Figure("panels", keys, "The best trials: loss (above) and accuracy (below) by epoch, on one scale.")


def _limits(search: SearchResult, best: RowResult | None) -> Iterable[Block]:
    too_high = (
        f"The best of {plural(search.num_ended, 'trial')} was chosen by the score that it is shown with, on the same "
        "validation images, so its score is too high on average; test images, which were not used to choose, show by "
        "how much (dataset.evaluate_test)."
    )
    items = [too_high]
    if best is not None:
        items.append("Each trial is one run. Another seed gives another score: repeat the best spec (seeds: 3).")
    if search.spec.pruner is not Pruner.NONE:
        items.append("Trials that were ended early might have caught up: pruning favours what learns quickly.")
    yield Bullets(tuple(items))


def _summary(
    study: StudyResult, search: SearchResult, best: RowResult | None, alike: Sequence[RowResult]
) -> Iterable[str]:
    if study.reason:
        yield f"{study.reason[:1].upper()}{study.reason[1:].rstrip('.')}."
    if best is None:
        yield "No trial was run in full yet."
    else:
        yield f"The best trial, {best.key}, reaches {score_text(best)} with {title_of(best.params or {})}."
    if alike:
        are = "is" if len(alike) == 1 else "are"
        yield f"{plural(len(alike), 'other trial')} {are} not distinguishable from it on these validation images."
    if search.importances:
        field, part = next(iter(search.importances.items()))
        if len(search.importances) > 1:
            yield f"Of the fields, {field} matters most ({percent(part)} of the importance)."
    pruned = sum(trial.ending is Ending.PRUNED for trial in search.trials)
    failed = sum(trial.ending is Ending.FAILED for trial in search.trials)
    diverged = sum(trial.diverged for trial in search.trials)
    parts = [f"{search.num_ended} of {plural(search.num_trials, 'trial')} have ended"]
    parts += [f"{pruned} of them early"] if pruned else []
    parts += [f"{diverged} diverged"] if diverged else []
    parts += [f"{failed} without a result"] if failed else []
    yield f"{', '.join(parts)}."
    if search.stopped == "budget":
        yield "The budget left no time for more."
    if search.stopped == "space":
        yield "No other trial of the space can be run."
