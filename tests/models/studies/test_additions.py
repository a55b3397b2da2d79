"""What is said of combined runs and of rows on corrupted images."""

import numpy as np

from models.studies.additions import Combined, Robustness, combined_sentence, robustness_sentence
from models.studies.comparison import Score


def combined(accuracy: float, kind: str = "weights", *, shares_start: bool = False) -> Combined:
    """A combination of two runs of which the better one is right on half of the images."""
    half, right = (Score(0, value, 2000, np.arange(2000) < value * 2000, "a") for value in (0.5, accuracy))
    return Combined("k", kind, "The mean", "completed", [1, 2], [0, 1], None, right, 2, "base", half, shares_start)


def test_a_combination_is_compared_with_the_best_of_its_runs() -> None:
    assert combined_sentence(combined(0.6)).startswith(
        "The mean reaches 60.0%, better than the best of its runs alone (experiment 2, 50.0%): +10.0 points"
    )
    assert "is not distinguishable from the best epoch alone" in combined_sentence(combined(0.5, "last_epochs"))


def test_a_mean_of_weights_that_is_no_solution_says_why_unless_its_runs_shared_their_start() -> None:
    assert "started from different weights" in combined_sentence(combined(0.2))
    assert "started from different weights" not in combined_sentence(combined(0.2, shares_start=True))
    assert "started from different weights" not in combined_sentence(combined(0.2, "ensemble"))


def test_rows_are_ranked_by_how_often_they_are_right_on_corrupted_images() -> None:
    def row(name: str, clean: float, corrupted: float) -> Robustness:
        return Robustness(name, name, "completed", 1, None, 100, clean, {"brightness": [corrupted] * 5})

    said = robustness_sentence([row("chance", 0.1, 0.1), row("good", 0.8, 0.4)])
    assert "good has the highest mean accuracy, 40.0% (80.0% on the images as they are), and chance the lowest" in said
    assert robustness_sentence([row("alone", 0.8, 0.4)]) == ""
