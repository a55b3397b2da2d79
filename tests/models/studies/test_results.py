"""What is said of a row beside its baseline: better, worse, noise, or that they were not shortened alike."""

from typing import Any

import numpy as np

from models.curves.metrics import EpochMetrics
from models.spec.parse import parse_spec
from models.spec.study import StudySpec
from models.studies.comparison import Score
from models.studies.images import RowImages
from models.studies.report import build_report
from models.studies.results import RowResult, RunResult, StudyResult, difference_sentence, with_differences

IMAGES = RowImages(title="Some images", train=40_000, val=10_000, test=10_000, classes=10)


def row(key: str, accuracy: float, *, baseline: str | None = "base", epochs: int = 30, **changes: Any) -> RowResult:
    full = parse_spec({"model": "baseline", "epochs": 30})
    spec = parse_spec({"model": "baseline", "epochs": epochs})
    right = np.arange(2000) < accuracy * 2000
    history = [EpochMetrics(n, 1.0, 0.5, 1.0, accuracy, 0.01, 1.0, 1.0, 1.0, 1.0) for n in range(1, epochs + 1)]
    run = RunResult(1, "completed", 0, epochs, history, score=Score(0, accuracy, 2000, right, "a"), seconds=10.0)
    return RowResult(key, key, "", baseline, spec, full, [run], "completed", images=IMAGES, **changes)


def said(*rows: RowResult) -> str:
    found = with_differences(rows)
    return difference_sentence(found[1], found[0])


def test_a_difference_is_said_with_its_interval_and_noise_as_noise() -> None:
    base = row("base", 0.5, baseline=None)
    assert said(base, row("deep", 0.6)).startswith("Deep is better than base: +10.0 points, 95% interval")
    assert said(base, row("thin", 0.4)).startswith("Thin is worse than base")
    assert "chance may explain" in said(base, row("same", 0.505))


def test_rows_that_were_not_shortened_alike_are_not_judged() -> None:
    base = row("base", 0.5, baseline=None)
    assert "not shortened alike" in said(base, row("short", 0.3, epochs=3))
    study = StudyResult(1, "t", "", "completed", _spec(), with_differences([base, row("short", 0.3, epochs=3)]))
    report = build_report(study)
    assert any("Not shortened like their baseline" in words for words in report.summary)
    assert not any("Worse" in words for words in report.summary)


def _spec() -> StudySpec:
    return StudySpec.model_validate({"variants": ({"key": "short"},)})


def test_a_study_without_any_run_has_a_report() -> None:
    report = build_report(StudyResult(1, "t", "", "queued", _spec(), []))
    assert report.summary == ("No row has a score yet.",)
