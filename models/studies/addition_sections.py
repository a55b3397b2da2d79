"""Blocks of a report on runs combined to one score, and on rows' accuracy on corrupted images."""

from collections.abc import Iterable

from models.studies.additions import CORRUPTION_WORDS, STRENGTHS, combined_sentence, robustness_sentence
from models.studies.blocks import DASH, Block, Bullets, Figure, Table, Text
from models.studies.results import StudyResult, points
from models.text import percent


def combined_blocks(study: StudyResult) -> Iterable[Block]:
    """Each combination beside the best of its runs."""
    rows = []
    for one in study.combined:
        found = one.difference
        interval = DASH if found is None else f"{points(found.value)} ({points(found.low)} to {points(found.high)})"
        rows.append(
            (
                one.title,
                DASH if one.score is None else percent(one.score.accuracy),
                DASH if one.best is None else f"{percent(one.best.accuracy)} (experiment {one.best_id})",
                interval,
            )
        )
    note = (
        "The best run alone was chosen on the validation images that it is compared on, so its score is slightly "
        "too high. The interval is that of McNemar\u2019s test, as for rows with one seed."
    )
    yield Table(("What", "Accuracy", "Best run alone", "Difference, points"), tuple(rows), texts=("What",), note=note)
    yield Bullets(tuple(combined_sentence(one) for one in study.combined))


def robustness_blocks(study: StudyResult) -> Iterable[Block]:
    """Accuracy by corruption and strength."""
    measured = [one for one in study.robustness if one.clean is not None]
    if measured:
        first = measured[0]
        yield Figure(
            "robustness",
            tuple(one.row for one in measured),
            "Accuracy by strength, from 0 (as they are) to 5, a panel for each corruption.",
        )
        columns = ("Row", "Corruption", "As they are", *(f"Strength {strength}" for strength in STRENGTHS))
        rows = [
            (one.row, words, percent(one.clean or 0.0), *(percent(value) for value in one.accuracy.get(name, ())))
            for one in measured
            for name, words in CORRUPTION_WORDS.items()
        ]
        counts = sorted({one.num_images for one in measured})
        images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        note = (
            f"The best weights of each row\u2019s best run, on {images} of the validation images. Strengths are those "
            f"of {first.parameters_of} (Hendrycks and Dietterich 2019)."
        )
        yield Table(columns, tuple(rows), texts=("Row", "Corruption"), note=note)
    if words := robustness_sentence(measured):
        yield Text(words, strong=True)
    for one in study.robustness:
        if one.clean is None:
            yield Text(f"Row {one.row} was not scored: {one.reason or 'it is not measured yet'}.")
