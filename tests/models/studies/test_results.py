"""What is said of a row beside its baseline: better, worse, noise, or that they were not shortened alike."""

from dataclasses import replace
from typing import Any

import numpy as np

from models.curves.metrics import EpochMetrics
from models.spec.parse import parse_spec
from models.spec.study import StudySpec
from models.studies.blocks import Bullets
from models.studies.comparison import Score
from models.studies.images import RowImages
from models.studies.report import build_report
from models.studies.results import RowResult, RunResult, StudyResult, difference_sentence, with_differences
from models.studies.setup import describe_setup, setup_row

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


def test_the_set_up_says_how_validation_images_were_chosen() -> None:
    def said_of(split: str | None) -> str:
        images = IMAGES if split is None else RowImages(**{**IMAGES, "split": split})
        return dict(
            describe_setup(StudyResult(1, "t", "", "completed", _spec(), [replace(row("a", 0.5), images=images)]))
        )["Images"]

    assert said_of(None) == said_of("random") == "Some images; validation images are split off at random (seed 0)"
    assert said_of("given") == "Some images; validation images are those that the dataset names"
    assert "whole groups" in said_of("grouped")
    assert "of each class" in said_of("stratified")


def test_the_set_up_names_every_setting_by_which_trainings_differ() -> None:
    plain = setup_row(row("a", 0.5))[2]
    for changes, words in (
        ({"optimizer": {"weight_decay": 0.001}}, "weight decay 0.001"),
        ({"label_smoothing": 0.1}, "labels smoothed by 0.1"),
        ({"accumulate_batches": 4}, "4 batches a step"),
        ({"class_weights": "balanced"}, "balanced class weights"),
        ({"sampler": "balanced"}, "classes sampled equally"),
        ({"ema_decay": 0.99}, "weights averaged with a decay of 0.99"),
        ({"early_stopping": {"patience": 3}}, "early stopping"),
        ({"progressive_resizing": [{"from_epoch": 1, "input_size": 24}]}, "input size growing"),
        ({"test_time_augmentation": "mirror"}, "mirror images averaged when measured"),
    ):
        spec = parse_spec({"model": "baseline", **changes})
        assert setup_row(replace(row("a", 0.5), spec=spec))[2] == f"{plain}, {words}"


def test_a_title_that_says_no_more_than_the_key_stands_alone() -> None:
    assert row("wide", 0.5).label == "wide"
    assert replace(row("wide", 0.5), title="Wide").label == "Wide"
    assert replace(row("wide", 0.5), title="More channels").label == "wide  More channels"


def test_a_study_without_any_run_has_a_report() -> None:
    report = build_report(StudyResult(1, "t", "", "queued", _spec(), []))
    assert report.summary == ("No row has a score yet.",)


def test_the_report_says_whether_the_spread_between_seeds_is_measured_or_assumed() -> None:
    base, wide = row("base", 0.5, baseline=None), row("wide", 0.6)
    again = RunResult(2, "completed", 1, 30, base.runs[0].history, score=score_of(0.54, seed=1), seconds=10.0)
    several = RowResult(**{**vars(base), "runs": [*base.runs, again]})
    assert "half a point of standard deviation for it, which is assumed" in limits(base, wide)
    assert "the 2.8 points of standard deviation that rows with several seeds show" in limits(several, wide)
    both = [RowResult(**{**vars(each), "runs": several.runs}) for each in (base, wide)]
    assert "one seed" not in limits(*both)


def score_of(accuracy: float, seed: int) -> Score:
    return Score(seed, accuracy, 2000, np.arange(2000) < accuracy * 2000, "a")


def limits(*rows: RowResult) -> str:
    """What the report says that it does not show."""
    report = build_report(StudyResult(1, "t", "", "completed", _spec(), with_differences(list(rows))))
    [bullets] = [block for block in report.sections[-1].blocks if isinstance(block, Bullets)]
    return " ".join(bullets.items)


def test_the_set_up_names_what_images_are_augmented_by() -> None:
    augmented = parse_spec(
        {"model": "baseline", "augmentation": {"hflip": 0.5, "shift_pixels": 2, "color_jitter": {"hue": 0.1}}}
    )
    shown = setup_row(RowResult(**{**vars(row("base", 0.5)), "spec": augmented}))
    assert "augmented (hflip 0.5, shift pixels 2, color jitter)" in shown[2]
