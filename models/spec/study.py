"""A study's spec: a base experiment, the rows made from it, what they are compared with, and how much may be spent."""

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from models.plain import JsonObject
from models.spec.base import Spec, broken_rule
from models.spec.search import SearchSpec
from models.text import DAY, HOUR, MINUTE

BASE = "base"
"""Key of the row that is the base spec itself."""
MAX_ROWS = 200
MAX_SEEDS = 50
MAX_RUNS = 1000
MAX_KEY = 200
UNITS = {"d(?:ays?)?": DAY, "h(?:ours?)?": HOUR, "m(?:in(?:utes?)?)?": MINUTE, "s(?:ec(?:onds?)?)?": 1}
"""What units may be called, and their seconds."""
DURATION = re.compile("".join(rf"(?:([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in UNITS))

Key = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),  # in YAML `key: 2` is a number
    StringConstraints(min_length=1, max_length=MAX_KEY, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+,=-]*$"),
]
Text = Annotated[str, StringConstraints(max_length=2000, strip_whitespace=True)]


class Published(Spec):
    """Published figures for a row, shown beside the study's own."""

    val_accuracy: float | None = Field(default=None, ge=0, le=1, description="Best validation accuracy.")
    epoch: int | None = Field(default=None, ge=1, description="Its epoch, counted from 1.")
    last: float | None = Field(default=None, ge=0, le=1, description="Validation accuracy of the last epoch.")
    note: Text = Field(default="", description="What else was published about it.")


class VariantSpec(Spec):
    """One row: the base spec with some of its fields changed."""

    key: Key = Field(description="Short name of the row, unique in the study.")
    title: Text = Field(default="", description="Title of the row; the key if left out.")
    question: Text = Field(default="", description="The question that the row answers.")
    overrides: JsonObject = Field(
        default={}, description="Fields of the spec that differ from the base, nested or with dots: optimizer.lr."
    )
    baseline: Key | None = Field(
        default=None, description="Key of the row that this one is compared with, where it is not the study's."
    )
    published: Published | None = Field(default=None, description="Figures published for this row.")
    share: float = Field(
        default=1.0, ge=0.01, le=100, description="How much less than other rows it is shortened to fit a budget."
    )
    min_epochs: int = Field(
        default=1, ge=1, description="Epochs that a budget leaves it at least, as long as 1,000 images are left."
    )
    seeds: int | None = Field(default=None, ge=1, le=MAX_SEEDS, description="Seeds of this row, if not the study's.")
    when_shortened: JsonObject = Field(
        default={}, description="Fields, with dots, that change too where a budget leaves less than half of its work."
    )


class RepeatUntil(Spec):
    """Add seeds until the difference of every row to its baseline is known well enough."""

    points: float = Field(gt=0, le=100, description="Largest half-width of the 95% interval, in points of accuracy.")
    max_seeds: int = Field(default=10, ge=2, le=MAX_SEEDS, description="Seeds of a row at most.")


class Shows(StrEnum):
    """The kind of a report's section: what it shows about its rows."""

    COMPARISON = "comparison"
    """The rows side by side: scores, differences and stability."""
    EPOCHS = "epochs"
    """The best number of epochs, and which others are as good within noise."""
    CHOICE = "choice"
    """By how much validation scores exceed test scores, as the best epoch is chosen by them; needs `evaluate_test`."""
    KERNELS = "kernels"
    """The first layer's kernels over the epochs, and dead filters."""
    FAILURES = "failures"
    """How each row ended, and the post-mortem of those that diverged or did not learn."""
    STEPS = "steps"
    """The rows as steps, each compared with the one before it."""


class Combine(StrEnum):
    """How several runs are combined to one score, as a row of its own."""

    ENSEMBLE = "ensemble"
    """The mean of the runs' probabilities: of each row's seeds, and of the best runs of all rows."""
    WEIGHTS = "weights"
    """The mean of the weights of each row's seeds. Seeds that start from different weights rarely average well."""
    LAST_EPOCHS = "last_epochs"
    """The mean of the weights of the last kept epochs of each row's best run (stochastic weight averaging)."""


class SectionSpec(Spec):
    """A section of a study's report."""

    title: Text = Field(min_length=1, description="Its heading.")
    question: Text = Field(default="", description="The question that it answers.")
    shows: Shows = Field(default=Shows.COMPARISON, description="What it shows.")
    rows: tuple[Key, ...] = Field(
        min_length=1, max_length=MAX_ROWS, description="Keys of its rows, from left to right."
    )
    learning_rate_test: Key | None = Field(
        default=None, description="Key of a row whose learning rates are tested, for the section's picture."
    )
    published_curves: dict[Key, tuple[float, ...]] = Field(
        default={}, description="Published validation accuracies by epoch, of its rows."
    )


class StudySpec(Spec):
    """What is compared: rows made from a base spec, each run with one seed or several."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)] = Field(
        default="Study", description="What the study is called."
    )
    question: Text = Field(default="", description="What the study is to find out.")
    base: JsonObject = Field(
        default={}, description="An experiment's spec as POST /experiments takes it, which every row starts from."
    )
    variants: tuple[VariantSpec, ...] = Field(default=(), max_length=MAX_ROWS, description="The rows, in order.")
    grid: dict[str, tuple[Any, ...]] = Field(
        default={}, max_length=10, description="Fields (with dots) and the values to combine, in place of variants."
    )
    search: SearchSpec | None = Field(
        default=None, description="A search for the best values of some fields, in place of variants or a grid."
    )
    baseline: Key | None = Field(
        default=None,
        description="Key of the row that others are compared with. `base` is the base spec itself, as a row of its "
        "own; that is taken if nothing is given, or the first row where the base is not a complete spec.",
    )
    seeds: int | tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = Field(
        default=1, description="Seeds of each row: how many, or which."
    )
    repeat_until: RepeatUntil | None = Field(default=None, description="In place of seeds: as many as are needed.")
    budget: str | None = Field(
        default=None, description="How long the study may take, 30m or 1h30m; rows are shortened to fit."
    )
    combine: tuple[Combine, ...] = Field(
        default=(),
        max_length=len(Combine),
        description="Runs to combine when the rows have ended, as rows of their own; this comes on top of a budget.",
    )
    robustness: bool = Field(
        default=False,
        description="Score each row's best run on validation images with noise, blur, brightness and JPEG, too.",
    )
    sections: tuple[SectionSpec, ...] = Field(default=(), max_length=50, description="What the report has, in order.")

    @field_validator("budget", mode="before")
    @classmethod
    def _budget_in_words(cls, value: Any) -> Any:
        """Seconds as a number are accepted too."""
        return f"{value:g}s" if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _parts_fit(self) -> "StudySpec":
        ways = [way for way in ("variants", "grid", "search") if getattr(self, way)]
        if len(ways) > 1:
            message = f"cannot be used together with {ways[0]}; leave one of them out"
            raise broken_rule(message, field=ways[1])
        if not ways:
            message = "is empty, and there is neither a grid nor a search; give at least one variant"
            raise broken_rule(message, field="variants")
        if self.search is not None:
            self._check_beside_search()
        empty = [field for field, values in self.grid.items() if not values]
        if empty:
            raise broken_rule("needs at least one value", field=f"grid.{empty[0]}")
        if self.budget is not None and not read_duration(self.budget):
            message = f"must be a time as 30m, 90s, 1h30m or 1d, of a second to 30 days, not '{self.budget[:40]}'"
            raise broken_rule(message, field="budget", nearest="30m")
        self._check_seeds()
        return self

    def _check_beside_search(self) -> None:
        """Refuse fields that do not fit a search, whose rows are made while it runs."""
        if self.num_seeds > 1 or self.repeat_until is not None:
            field = "seeds" if self.repeat_until is None else "repeat_until"
            message = "cannot be used together with search, of which each trial is one run; repeat the best spec by a "
            nearest = {"nearest": 1} if field == "seeds" else {}
            raise broken_rule(f"{message}study of its own, with seeds: 3", field=field, **nearest)
        for field, why in (
            ("baseline", "its trials are compared with each other"),
            ("sections", "its rows are not known before it runs, and its report has sections of its own"),
            ("combine", "repeat the best spec by a study of its own, and combine its runs"),
            ("robustness", "run the best spec in a study of its own, and measure that"),
        ):
            if getattr(self, field):
                raise broken_rule(f"cannot be used together with search: {why}; leave it out", field=field)

    def _check_seeds(self) -> None:
        count = self.seeds if isinstance(self.seeds, int) else len(self.seeds)
        if not 1 <= count <= MAX_SEEDS:
            message = f"must be 1 to {MAX_SEEDS} seeds, not {count}"
            raise broken_rule(message, field="seeds", nearest=min(max(count, 1), MAX_SEEDS))
        if not isinstance(self.seeds, int) and len(set(self.seeds)) < count:
            raise broken_rule("holds a seed twice; the same seed gives the same run", field="seeds")
        if self.repeat_until is not None and "seeds" in self.model_fields_set:
            raise broken_rule("cannot be used together with seeds; leave one of them out", field="repeat_until")
        if self.repeat_until is not None and self.budget is not None:
            raise broken_rule("cannot be used together with budget; leave one of them out", field="repeat_until")

    @property
    def budget_seconds(self) -> float | None:
        """The budget in seconds; None without one."""
        return None if self.budget is None else read_duration(self.budget)

    @property
    def num_seeds(self) -> int:
        """The number of seeds that each row is run with at first."""
        if self.repeat_until is not None:
            return 2
        return self.seeds if isinstance(self.seeds, int) else len(self.seeds)

    def seed_of(self, first: int, repeat: int) -> int:
        """The seed of a row's run: from the study's list, else counted up from the spec's own."""
        if isinstance(self.seeds, int) or repeat >= len(self.seeds):
            return (first + repeat) % 2**31
        return self.seeds[repeat]


def read_duration(text: str) -> float | None:
    """Parse a duration such as 30m, 90s, 1h30m or 2 days into seconds; None if it is not one of 1 s to 30 days."""
    found = DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if found is None or not any(found.groups()):
        return None
    seconds = sum(float(part or 0) * unit for part, unit in zip(found.groups(), UNITS.values(), strict=True))
    return seconds if 1 <= seconds <= 30 * DAY else None
