"""No two statements of one verdict exclude each other, and each is a sentence, whatever the history."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.curves.metrics import EpochMetrics
from models.findings import CAUSES
from models.spec.parse import parse_spec
from models.verdict import Verdict
from models.verdict.beginning import Beginning, LayerStart
from models.verdict.filters import ConvolutionHealth, FilterHealth
from tests.models.verdict.families import FAMILIES
from tests.models.verdict.histories import make_history, verdict_on
from tests.texts import faults_of

SPEC = parse_spec({"model": "baseline", "epochs": 10_000, "early_stopping": {"patience": 5}, "lr": 0.01})

EXCLUSIVE = [
    ("no-problem", "overfitting"),
    ("no-problem", "collapse"),
    ("no-problem", "passing-collapse"),
    ("no-problem", "divergence"),
    ("no-problem", "missing-values"),
    ("no-problem", "stuck-at-chance"),
    ("no-problem", "training-loss-rising"),
    ("still-improving", "wasted-epochs"),
    ("still-improving", "overfitting"),
    ("still-improving", "stuck-at-chance"),
    ("still-improving", "loss-exploded"),
    ("slow-learning", "stuck-at-chance"),
    ("slow-learning", "overfitting"),
    ("loss-exploded", "divergence"),
    ("first-layer-settled", "first-layer-moving"),
    ("lr-too-high", "lr-too-low"),
    ("dead-layer", "vanishing-gradients"),
    *(("no-problem", code) for code in CAUSES),
]


def contradictions(verdict: Verdict, history: list[EpochMetrics], num_classes: int) -> list[str]:
    """Pairs of statements of a verdict that cannot both be true."""
    found = {finding.code: finding for finding in verdict.findings}
    said = " ".join(finding.sentence for finding in verdict.findings) + " " + verdict.summary
    accuracies = [metrics.val_accuracy for metrics in history if metrics.val_accuracy == metrics.val_accuracy]
    # One epoch of 20 images may reach 80% by luck among two classes; five in a row do not.
    runs = [accuracies[at : at + 5] for at in range(max(1, len(accuracies) - 4))] if accuracies else [[0.0]]
    best, chance = max(sum(run) / len(run) for run in runs), 1 / num_classes
    lasting = "collapse" in found and found["collapse"].values["recovered"] is None
    wrong = [f"{one} and {other}" for one, other in EXCLUSIVE if one in found and other in found]
    if "othing was learned" in said and (best > chance + 0.25 or "collapse" in found):
        wrong.append(f"nothing was learned, and {best:.0%}")
    if "othing went wrong" in said and [f for f in found.values() if f.severity in ("problem", "warning")]:
        wrong.append("nothing went wrong, and a warning")
    if "Accuracy holds" in said and (lasting or "Accuracy falls" in said):
        wrong.append("accuracy holds, and it does not")
    if "training loss keeps falling" in said and "training loss itself rises" in said:
        wrong.append("the training loss falls and rises")
    if lasting and "still-improving" in found:
        wrong.append("collapsed, and improving")
    if "losses stayed finite" in said and "not a finite number" in said:
        wrong.append("finite, and not")
    for found_best in (verdict.best_by_loss, verdict.best_by_accuracy):
        if found_best and not found_best.first <= found_best.epoch <= found_best.last:
            wrong.append("the best epoch is not as good as itself")
    return wrong


def text_faults(verdict: Verdict) -> list[str]:
    texts = [verdict.summary] + [text for f in verdict.findings for text in (f.sentence, f.suggestion)]
    return [f"{fault}: {text}" for text in texts for fault in faults_of(text)]


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_of_histories_gets_a_verdict_that_contradicts_itself(name: str) -> None:
    for seed in range(2000, 2008):
        case = FAMILIES[name](seed)
        verdict = verdict_on(case.history, num_classes=case.num_classes, spec=SPEC, finished=seed % 2 == 0)
        assert contradictions(verdict, case.history, case.num_classes) == []
        assert text_faults(verdict) == []


@st.composite
def courses(draw: st.DrawFn) -> tuple[list[EpochMetrics], int]:
    """Pieces that rise, fall, stay and jump, with the noise of few images, on any scale of loss."""
    num_classes = draw(st.sampled_from([2, 10, 100]))
    images = draw(st.sampled_from([20, 40, 200, 2000]))
    pieces = draw(st.lists(st.tuples(st.integers(1, 25), st.floats(0, 1), st.floats(0.1, 40)), min_size=1, max_size=5))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    accuracy, loss, train = [], [], []
    level, left = 1 / num_classes, np.log(num_classes)
    for length, target, worse in pieces:
        goal = 1 / num_classes + target * (1 - 1 / num_classes)
        for _ in range(length):
            level += (goal - level) * 0.4
            left += (np.log(num_classes) * (1 - target) * worse - left) * 0.4
            accuracy.append(float(rng.binomial(images, level) / images))
            loss.append(float(abs(left * (1 + 0.05 * rng.standard_normal())) + 0.01))
            train.append(float(abs(left * (1 + 0.02 * rng.standard_normal())) * 0.9))
    if draw(st.booleans()):
        loss[draw(st.integers(0, len(loss) - 1))] = float("nan")
    return make_history(loss, accuracy, train, accuracy), num_classes


@st.composite
def beginnings(draw: st.DrawFn) -> tuple[Beginning, FilterHealth]:
    """Whatever a run may have begun with and what may have become of its filters, some of it wrong."""
    small, size = st.sampled_from([0.0, 1e-8, 0.01, 0.4]), st.sampled_from([0.0, 0.5, 3.0])
    names = ("features.0", "features.3", "classifier.0")
    layers = {name: LayerStart(270, draw(size), draw(small), draw(st.booleans())) for name in names}
    num_val = draw(st.sampled_from([1, 40, 2000]))
    beginning = Beginning(
        num_train_images=draw(st.sampled_from([2, 150, 40_000])),
        num_val_images=num_val,
        shared_images=draw(st.sampled_from([None, 0, 1, num_val])),
        classes_per_batch=draw(st.sampled_from([1.0, 1.9, 9.6])),
        classes_expected=draw(st.sampled_from([1.0, 1.9, 9.6])),
        input_mean=draw(st.sampled_from([-0.1, 0.0, 120.0])),
        input_std=draw(st.sampled_from([0.0, 1.0, 60.0])),
        num_outputs=draw(st.sampled_from([100, 1000])),
        loss=draw(st.sampled_from([0.7, 2.3, 60.0])),
        output_spread=draw(st.sampled_from([0.0, 1e-7, 0.1])),
        layers=layers,
    )
    dead = st.sampled_from([range(0), range(1), range(10)])
    filters = {name: ConvolutionHealth(10, dead=draw(dead)) for name in names[:2]}
    movement = {name: draw(st.sampled_from([0.0, 1e-4, 0.3, 50.0])) for name in names}
    return beginning, FilterHealth(filters, movement, num_images=200)


@settings(max_examples=40, deadline=None)
@given(courses(), st.booleans(), beginnings())
def test_no_course_of_training_gets_a_verdict_that_contradicts_itself(
    course: tuple[list[EpochMetrics], int], finished: bool, begun: tuple[Beginning, FilterHealth]
) -> None:
    history, num_classes = course
    beginning, filters = begun
    plain = verdict_on(history, num_classes=num_classes, spec=SPEC, finished=finished)
    explained = verdict_on(
        history, num_classes=num_classes, spec=SPEC, finished=finished, beginning=beginning, filters=filters
    )
    for verdict in (plain, explained):
        assert contradictions(verdict, history, num_classes) == []
        assert text_faults(verdict) == []


@pytest.mark.parametrize("images", [40, 10_000])
@pytest.mark.parametrize("length", [20, 150, 1000])
def test_noise_is_no_collapse_at_any_length(images: int, length: int) -> None:
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        top = rng.uniform(0.3, 0.9)
        level = top - (top - 0.1) * np.exp(-np.arange(1, length + 1) / (length / 10))
        history = make_history(None, (rng.binomial(images, level) / images).tolist(), None)
        codes = {finding.code for finding in verdict_on(history).findings}
        alarms += "collapse" in codes
    assert alarms == 0


@pytest.mark.parametrize(("images", "length"), [(40, 150), (120, 50), (10_000, 20)])
def test_a_collapse_that_lasts_is_found_through_the_noise(images: int, length: int) -> None:
    found = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        epochs = np.arange(1, length + 1)
        level = 0.7 - 0.6 * np.exp(-epochs / (length / 10))
        level = np.where(epochs > 0.6 * length, 0.1 + 0.2 * (level - 0.1), level)
        history = make_history(None, (rng.binomial(images, level) / images).tolist(), None)
        findings = {finding.code: finding for finding in verdict_on(history).findings}
        found += "collapse" in findings and findings["collapse"].values["recovered"] is None
    assert found >= 9
