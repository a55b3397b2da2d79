"""Labels that a network finds unlikely, on the images that it is surest of."""

import numpy as np
import pytest

from models.evaluation.doubts import doubts_of


def answers(num_images: int, wrong: float, num_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a network that is right, and labels of which a part was drawn at random."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, num_classes, num_images)
    logits = rng.standard_normal((num_images, num_classes))
    logits[np.arange(num_images), truth] += rng.uniform(3, 6, num_images)
    noisy = rng.random(num_images) < wrong
    return logits, np.where(noisy, rng.integers(0, num_classes, num_images), truth)


@pytest.mark.parametrize("wrong", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("num_classes", [5, 10])
def test_labels_drawn_at_random_are_unlikely_half_of_the_time(wrong: float, num_classes: int) -> None:
    found = doubts_of("validation", *answers(8000, wrong, num_classes))
    assert found is not None
    assert found.num_surest == 2000
    assert found.unlikely == pytest.approx(wrong * (num_classes // 2) / num_classes, abs=0.02)
    assert found.accuracy == pytest.approx(1 - wrong * (num_classes - 1) / num_classes, abs=0.03)


def test_few_images_and_logits_that_are_not_finite_tell_nothing() -> None:
    logits, labels = answers(200, 0.0)
    assert doubts_of("validation", logits[:50], labels[:50]) is None
    logits[3, 2] = np.nan
    assert doubts_of("validation", logits, labels) is None
