"""JSON documents of studies."""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from models.plain import JsonObject
from models.spec.study import Published
from service.http.documents import API, Document
from service.http.prefix import with_prefix


class SpreadDocument(Document):
    """Best validation accuracies of a row's seeds."""

    mean: float
    deviation: float | None = Field(description="Standard deviation over seeds; null of a single one.")
    lowest: float
    highest: float
    count: int = Field(description="Number of seeds.")


class DifferenceDocument(Document):
    """A row's accuracy less its baseline's, in points."""

    baseline: str = Field(description="Key of the row that it is compared with.")
    points: float
    interval: tuple[float, float] = Field(description="95% interval.")
    method: str = Field(description="seeds x images, seeds, McNemar, or proportions; docs/http.md explains them.")
    p_value: float
    p_adjusted: float = Field(description="After Holm's correction for the number of rows that are compared.")
    judgement: str = Field(description="better, worse, or noise.")
    alike: bool = Field(description="Whether both rows were shortened alike; if not, the judgement means little.")
    is_noise: bool = Field(description="Whether chance may explain the difference.")
    sentence: str = Field(description="The same in words.")


class RowKind(StrEnum):
    """The kind of a row: trained, or made of other rows' runs."""

    TRAINED = "trained"
    """Experiments that were trained for it."""
    ENSEMBLE = "ensemble"
    """The mean of the probabilities of other rows' runs."""
    WEIGHTS = "weights"
    """The mean of the weights of another row's seeds."""
    LAST_EPOCHS = "last_epochs"
    """The mean of the weights of the last epochs of another row's best run."""


class RowDocument(Document):
    """One row of a study."""

    key: str
    kind: RowKind = Field(description="trained, or how it was made of other rows' runs (`combine`).")
    title: str
    question: str
    status: str = Field(
        description="waiting (not begun), queued, running, completed, pruned, failed, cancelled, diverged, skipped, "
        "deleted, or unavailable (runs that cannot be combined)."
    )
    reason: str | None = Field(description="Why it failed, or was not run.")
    experiment_ids: list[int] = Field(description="Its runs, by seed.")
    seeds: list[int]
    val_accuracy: SpreadDocument | None = Field(description="Of the best epochs; null without a run that has ended.")
    test_accuracy: float | None = Field(description="Mean over its runs, where the spec asks for it.")
    published: Published | None
    difference: DifferenceDocument | None = Field(description="To its baseline; null for the baseline itself.")
    shortened: str | None = Field(description="What was left out to fit the budget.")
    seconds: float = Field(description="What its runs took.")
    joules: float | None = Field(description="Energy of its runs, where it was measured.")
    epochs: int | None = Field(description="Epochs of each of its runs; null of what is made of other rows' runs.")
    epochs_run: int | None = Field(
        default=None, description="Epochs that its first run has behind it; null before it begins."
    )
    params: JsonObject | None = Field(
        default=None, description="The values of a search's trial, by field; null of other rows."
    )
    pruned: bool = Field(default=False, description="Whether a search ended it early; `reason` says why.")
    spec: JsonObject | None = Field(
        description="Of its first seed, as it is run; can be POSTed to /experiments. Null of what is made of others."
    )


class RobustnessDocument(Document):
    """A row's best run on validation images that were corrupted at five strengths."""

    row: str = Field(description="Key of the row.")
    title: str
    status: str = Field(description="waiting, running, completed, failed or unavailable.")
    reason: str | None
    experiment_id: int | None
    num_images: int = Field(description="Validation images that were scored.")
    clean: float | None = Field(description="Accuracy on them as they are.")
    mean: float | None = Field(description="Mean accuracy over corruptions and strengths.")
    accuracy: dict[str, list[float]] = Field(description="By corruption, of the strengths 1 to 5.")
    parameters: dict[str, list[float]] = Field(description="What the strengths are, by corruption.")
    parameters_of: str = Field(description="The benchmark that the parameters are of.")


class StudyProgress(Document):
    """The progress of a study."""

    runs: int = Field(description="Runs that it has, as far as is known.")
    ended: int
    running: int
    fraction: float = Field(description="From 0 to 1, by epochs.")
    seconds_left: float | None = Field(description="An estimate; null without one.")


class StudyItem(Document):
    """A study in a list."""

    id: int
    title: str
    question: str
    status: str = Field(description="measuring, queued, running, completed, cancelled or failed.")
    reason: str | None
    created_at: datetime
    finished_at: datetime | None
    budget_seconds: float | None
    spent_seconds: float = Field(description="Time in which something was measured or trained for it.")
    progress: StudyProgress
    links: dict[str, str]


class SearchPlanDocument(Document):
    """The settings of a search."""

    sampler: str = Field(description="tpe, random or grid.")
    pruner: str = Field(description="none, median or asha.")
    seed: int
    trials: int = Field(description="Trials at most.")
    space: dict[str, str] = Field(description="Its fields, and what each may be, in words.")


class BestTrialDocument(Document):
    """The best trial of a search: of those run in full, the one with the highest validation accuracy."""

    key: str = Field(description="Key of its row.")
    number: int = Field(description="From 1, in the order in which trials were drawn.")
    params: JsonObject
    val_accuracy: float
    epoch: int = Field(description="Its best epoch.")
    experiment_id: int


class ImportanceDocument(Document):
    """The importance of a field: how much it decides whether a trial is among the best."""

    field: str
    importance: float = Field(description="Its part of the importance of all fields, from 0 to 1.")


class SearchDocument(SearchPlanDocument):
    """The progress and the results of a search."""

    drawn: int = Field(description="Trials so far.")
    ended: int
    pruned: int = Field(description="Trials that it ended early.")
    failed: int = Field(description="Trials without a result: failed, cancelled or deleted.")
    diverged: int
    stopped: str | None = Field(description="Why fewer trials are drawn: budget, or space if no other one can be run.")
    best: BestTrialDocument | None = Field(description="Null before a trial was run in full.")
    best_spec: JsonObject | None = Field(description="Its spec, which POST /experiments takes.")
    importance: list[ImportanceDocument] | None = Field(
        description="Of each field, the largest first (PED-ANOVA); null where the trials are too few or all equal."
    )


class StudyDocument(StudyItem):
    """A study with its rows."""

    baseline: str | None = Field(description="Key of the row that others are compared with.")
    rows: list[RowDocument]
    robustness: list[RobustnessDocument] = Field(description="By row, where the study asks for it.")
    search: SearchDocument | None = Field(description="What a search has found; null of other studies.")
    spec: JsonObject = Field(description="As it was sent; can be POSTed again.")


class StudyPage(Document):
    """One page of a list."""

    items: list[StudyItem]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int


class PlannedRow(Document):
    """A row before it is run."""

    key: str
    title: str
    baseline: str | None
    runs: int
    share: float
    min_epochs: int
    epochs: int
    train_images: int
    val_images: int
    test_images: int
    cost: str = Field(description="Equal for rows of which an epoch takes equally long: one dry run serves them all.")
    spec: JsonObject


class StudyPlanDocument(Document):
    """The runs of a study before it is started, in full length."""

    title: str
    rows: list[PlannedRow]
    runs: int
    workers: int = Field(description="Workers that are there: as many runs go on at a time.")
    budget_seconds: float | None
    search: SearchPlanDocument | None = Field(description="Of a search: its only row stands for each of its trials.")


def links_of(study_id: int, *, is_search: bool) -> dict[str, str]:
    """The addresses of a study's resources."""
    root = with_prefix(f"{API}/studies/{study_id}")
    of_search = {"search": f"{root}/search.png"} if is_search else {}
    return {
        **of_search,
        "self": root,
        "page": with_prefix(f"/studies/{study_id}"),
        "curves": f"{root}/curves.png",
        "robustness": f"{root}/robustness.png",
        "report": f"{root}/report.html",
        "report_markdown": f"{root}/report.md",
        "report_pdf": f"{root}/report.pdf",
    }
