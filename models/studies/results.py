"""The results of a study: its rows with their runs, scores and differences, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.curves.metrics import EpochMetrics
from models.curves.stability import Stability, compare_stability, measure_stability
from models.findings import VerdictJson
from models.measurements import SweepResult
from models.plain import JsonObject
from models.spec.experiment import ExperimentSpec
from models.spec.study import Published, StudySpec
from models.studies.additions import Combined, Robustness
from models.studies.budget import ALIKE
from models.studies.comparison import (
    Difference,
    Judgement,
    Method,
    Score,
    SeedVariance,
    Spread,
    compare_rows,
    holm,
    seed_variance,
    spread_of,
)
from models.studies.images import RowImages, split_sizes
from models.studies.search_results import SearchResult
from models.text import percent, plural


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run of a row."""

    experiment_id: int
    status: str
    seed: int
    epochs: int
    """Epochs that were asked for."""
    history: Sequence[EpochMetrics]
    reason: str | None = None
    verdict: VerdictJson | None = None
    score: Score | None = None
    test_accuracy: float | None = None
    seconds: float = 0.0
    """From its claim by a worker to its end, all attempts together."""
    joules: float | None = None
    device: str = ""


@dataclass(frozen=True, eq=False)
class RowResult:
    """One row: what it is, and its runs by seed."""

    key: str
    title: str
    question: str
    baseline: str | None
    spec: ExperimentSpec
    """As it was run: shortened where a budget asked for it."""
    full: ExperimentSpec
    """As it is written."""
    runs: Sequence[RunResult]
    status: str
    reason: str | None = None
    published: Published | None = None
    shortened: str = ""
    images: RowImages = field(default_factory=lambda: RowImages(title="", train=0, val=0, test=0, classes=10))
    difference: Difference | None = None
    params: JsonObject | None = None
    """The values of a search's trial."""
    pruned: bool = False
    """Whether a search ended it early."""

    @property
    def label(self) -> str:
        """Key and title, for tables and pictures; the title alone where it says no more than the key."""
        return self.title if self.title.casefold() == self.key.casefold() else f"{self.key}  {self.title}"

    @property
    def kept(self) -> float:
        """The part of its epochs and images that was run, from 0 to 1."""
        train, _, _ = split_sizes(self.spec, self.images)
        whole, _, _ = split_sizes(self.full, self.images)
        return self.spec.epochs * train / max(self.full.epochs * whole, 1)

    def is_alike(self, other: "RowResult") -> bool:
        """Whether both were shortened by about the same part, so that their scores can be compared."""
        return max(self.kept, other.kept) <= ALIKE * min(self.kept, other.kept)

    @property
    def scores(self) -> list[Score]:
        """The scores of the runs that have one."""
        return [run.score for run in self.runs if run.score is not None]

    @property
    def spread(self) -> Spread | None:
        """Mean and spread of the best validation accuracies."""
        return spread_of([score.accuracy for score in self.scores])

    @property
    def seconds(self) -> float:
        """Seconds of all of its runs."""
        return sum(run.seconds for run in self.runs)

    @property
    def first(self) -> RunResult | None:
        """The run that pictures show: the first one with epochs."""
        return next((run for run in self.runs if run.history), None)

    @property
    def stability(self) -> Stability | None:
        """The stability of its first run's curves."""
        return None if self.first is None else measure_stability(self.first.history, self.images["classes"])


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study and its rows."""

    id: int
    title: str
    question: str
    status: str
    spec: StudySpec
    rows: Sequence[RowResult]
    reason: str | None = None
    budget_seconds: float | None = None
    spent_seconds: float = 0.0
    lr_tests: Mapping[str, SweepResult] = field(default_factory=dict)
    """Results of learning-rate tests by row."""
    combined: Sequence[Combined] = ()
    robustness: Sequence[Robustness] = ()
    search: SearchResult | None = None

    def row(self, key: str) -> RowResult | None:
        """A row by its key."""
        return next((row for row in self.rows if row.key == key), None)

    @property
    def seed_variance(self) -> SeedVariance | None:
        """The variance between seeds, of all rows."""
        return seed_variance([row.scores for row in self.rows])

    def is_fair(self, row: RowResult) -> bool:
        """Whether a row and its baseline were shortened alike, so that their difference says something."""
        baseline = None if row.baseline is None else self.row(row.baseline)
        return baseline is None or row.is_alike(baseline)

    @property
    def baseline(self) -> RowResult | None:
        """The row that others are compared with; the trials of a search have none."""
        return None if self.search is not None else next((row for row in self.rows if row.baseline is None), None)


def with_differences(rows: Sequence[RowResult]) -> list[RowResult]:
    """The rows, each with its difference to its baseline, corrected for how many are judged.

    Rows that were not shortened like their baseline are not judged, so the correction leaves them out.
    """
    by_key = {row.key: row for row in rows}
    compared = compare_rows({row.key: row.scores for row in rows}, {row.key: row.baseline for row in rows})
    differences = [compared[row.key] for row in rows]
    baselines = [None if row.baseline is None else by_key.get(row.baseline) for row in rows]
    judged = [
        found if baseline is not None and row.is_alike(baseline) else None
        for row, baseline, found in zip(rows, baselines, differences, strict=True)
    ]
    found = [each or other for each, other in zip(holm(judged), differences, strict=True)]
    return [RowResult(**{**vars(row), "difference": difference}) for row, difference in zip(rows, found, strict=True)]


def sentence(words: str) -> str:
    """Words that begin with a capital letter."""
    return words[:1].upper() + words[1:]


METHOD_WORDS = {
    Method.CROSSED: "analysis of variance over seeds and shared images, the spread between seeds pooled over all rows",
    Method.SEEDS: "Welch's t-test over {seeds} each",
    Method.MCNEMAR: "McNemar's test on shared images, one seed; the interval allows for another seed",
    Method.PROPORTIONS: "two proportions, without predictions on shared images; the interval allows for another seed",
}


def points(value: float) -> str:
    """A difference of accuracies in points, with its sign: +2.3 or \u22121.0."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\u2212")


def method_of(difference: Difference) -> str:
    """The test of a difference, in words."""
    return METHOD_WORDS[difference.method].format(seeds=plural(difference.num_seeds, "seed"))


def difference_sentence(row: RowResult, baseline: RowResult) -> str:
    """A sentence on a row compared with its baseline, with what the data do not show."""
    found = row.difference
    if found is None:
        return f"{sentence(row.title)} cannot be compared with {baseline.title}: one of them has no score."
    interval = f"{points(found.value)} points, 95% interval {points(found.low)} to {points(found.high)}"
    many = ""
    if found.num_comparisons > 1 and found.adjusted_p is not None and found.p_value < 0.05 <= found.adjusted_p:
        many = f" (among {found.num_comparisons} comparisons, Holm's correction)"
    if not row.is_alike(baseline):
        return (
            f"{sentence(row.title)} and {baseline.title} are {interval} apart, but were not shortened alike: "
            f"{percent(row.kept)} of the work of one was run and {percent(baseline.kept)} of the other's, "
            "which may be why."
        )
    match found.judgement:
        case Judgement.NOISE:
            words = f"is not distinguishable from {baseline.title}: {interval}, which chance may explain{many}"
            return f"{sentence(row.title)} {words}."
        case Judgement.BETTER:
            return f"{sentence(row.title)} is better than {baseline.title}: {interval}."
        case Judgement.WORSE:
            return f"{sentence(row.title)} is worse than {baseline.title}: {interval}."


def stability_sentence(row: RowResult, baseline: RowResult) -> str:
    """Which of two rows has the more stable curves."""
    found = compare_stability(baseline.stability, row.stability, (baseline.title, row.title))
    return str(found["sentence"])
