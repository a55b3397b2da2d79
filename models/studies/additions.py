"""Rows made of other rows' runs, and rows' scores on corrupted images: results, and sentences for a report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from models.studies.comparison import Difference, Judgement, Score, compare

STRENGTHS = (1, 2, 3, 4, 5)
MUCH_WORSE = 0.05
"""A mean of weights that loses more accuracy than this is not a solution, as the weights that it is made of are."""
CORRUPTION_WORDS = {
    "gaussian_noise": "Noise",
    "gaussian_blur": "Blur",
    "brightness": "Brightness",
    "jpeg_compression": "JPEG",
}


@dataclass(frozen=True, eq=False)
class Combined:
    """Several runs as one: their probabilities, or their weights, averaged."""

    key: str
    kind: str
    """A value of models.spec.study.Combine."""
    title: str
    status: str
    """waiting, running, completed, failed or unavailable."""
    experiment_ids: Sequence[int]
    seeds: Sequence[int]
    reason: str | None = None
    score: Score | None = None
    best_id: int | None = None
    """The best of its runs by itself, with which it is compared."""
    best_row: str | None = None
    best: Score | None = None
    shares_start: bool = False
    """Whether its runs started from the same weights, but for their heads."""

    @property
    def difference(self) -> Difference | None:
        """Its accuracy less that of its best run, tested on the images that both were measured on."""
        if self.score is None or self.best is None:
            return None
        return compare([self.score], [self.best])


@dataclass(frozen=True, eq=False)
class Robustness:
    """A row's best run on corrupted validation images."""

    row: str
    title: str
    status: str
    experiment_id: int | None
    reason: str | None = None
    num_images: int = 0
    clean: float | None = None
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    parameters: dict[str, list[float]] = field(default_factory=dict)
    parameters_of: str = ""

    @property
    def mean(self) -> float | None:
        """Mean accuracy over corruptions and strengths."""
        values = [value for found in self.accuracy.values() for value in found]
        return sum(values) / len(values) if values else None


def combined_sentence(one: Combined) -> str:
    """A sentence that compares a combination with the best of its runs, with what the data do not show."""
    if one.score is None:
        return f"{one.title}: {one.reason or 'not measured yet'}."
    reached = f"{one.title} reaches {100 * one.score.accuracy:.1f}%"
    found = one.difference
    if found is None:
        return f"{reached}."
    assert one.best is not None
    alone = "the best epoch alone" if one.kind == "last_epochs" else "the best of its runs alone"
    beside = f"{alone} (experiment {one.best_id}, {100 * one.best.accuracy:.1f}%)"
    interval = f"{100 * found.value:+.1f} points, 95% interval {100 * found.low:+.1f} to {100 * found.high:+.1f}"
    interval = interval.replace("-", "\u2212")
    match found.judgement:
        case Judgement.NOISE:
            words = f"{reached} and is not distinguishable from {beside}: {interval}, which chance may explain."
        case Judgement.BETTER:
            words = f"{reached}, better than {beside}: {interval}."
        case Judgement.WORSE:
            words = f"{reached}, worse than {beside}: {interval}."
    if one.kind == "weights" and not one.shares_start and found.value < -MUCH_WORSE:
        words += (
            " The runs started from different weights and found different solutions, whose mean is usually not a"
            " solution itself. Runs that share their start (model.init_from) average better."
        )
    return f"{words} {one.reason[:1].upper()}{one.reason[1:]}." if one.reason else words


def robustness_sentence(rows: Iterable[Robustness]) -> str:
    """The rows with the highest and the lowest accuracy on corrupted images; empty unless two were measured."""
    found = [(one, one.mean, one.clean) for one in rows]
    scored = [(one, mean, clean) for one, mean, clean in found if mean is not None and clean is not None]
    if len(scored) < 2:
        return ""
    by_mean = sorted(scored, key=lambda each: each[1], reverse=True)
    (most, mean, clean), (least, low, whole) = by_mean[0], by_mean[-1]
    return (
        f"Over all corruptions and strengths {most.title} has the highest mean accuracy, {100 * mean:.1f}% "
        f"({100 * clean:.1f}% on the images as they are), and {least.title} the lowest, {100 * low:.1f}% "
        f"({100 * whole:.1f}%)."
    )
