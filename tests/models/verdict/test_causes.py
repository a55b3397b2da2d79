"""Causes that a verdict names beside its symptoms, each on a small history: when it is named, and when not."""

from dataclasses import replace
from typing import Any

import pytest

from models.evaluation.doubts import LabelDoubts
from models.findings import CAUSES, Finding
from models.spec.parse import parse_spec
from models.verdict import Verdict
from models.verdict.beginning import Beginning, LayerStart
from models.verdict.filters import ConvolutionHealth, FilterHealth
from tests.models.verdict.histories import findings, make_history, verdict_on
from tests.texts import faults_of

LEARNING = (1.9, 1.7, 1.55, 1.45, 1.4, 1.36), (0.3, 0.38, 0.44, 0.48, 0.5, 0.51)
"""Losses and accuracies of ten classes, of validation and training images alike."""
GUESSING = (2.303, 2.302, 2.303, 2.304, 2.302, 2.303), (0.1, 0.11, 0.09, 0.1, 0.1, 0.1)
LAYERS = {
    "features.0": LayerStart(num_weights=270, weight_norm=2.0, gradient_norm=0.1),
    "features.3": LayerStart(num_weights=1800, weight_norm=3.0, gradient_norm=0.1),
    "classifier.0": LayerStart(num_weights=5000, weight_norm=4.0, gradient_norm=0.2),
}
BEGINNING = Beginning(
    num_train_images=3000,
    num_val_images=1000,
    shared_images=0,
    classes_per_batch=9.6,
    classes_expected=9.65,
    input_mean=0.1,
    input_std=0.9,
    num_outputs=10,
    loss=2.31,
    output_spread=0.05,
    layers=LAYERS,
)
MOVEMENT = {"features.0": 0.3, "features.3": 0.2, "classifier.0": 0.4}
DROPOUT = {"name": "cnn", "blocks": [{"convs": [{"channels": 8}]}], "head": {"hidden": [32], "dropout": [0.5, 0.0]}}
DOUBTS = LabelDoubts("validation", num_surest=250, accuracy=0.8, unlikely=0.01)


def verdict(
    course: tuple[Any, Any] = LEARNING,
    *,
    beginning: dict[str, Any] | None = None,
    movement: dict[str, float] = MOVEMENT,
    dead: dict[str, int] | None = None,
    doubts: dict[str, Any] | None = None,
    train: tuple[Any, Any] | None = None,
    spec: dict[str, Any] | None = None,
    **more: Any,
) -> Verdict:
    """The verdict on a history that is healthy but for what is given."""
    loss, accuracy = course
    train_loss, train_accuracy = train or course
    convolutions = {
        name: ConvolutionHealth(10, dead=range((dead or {}).get(name, 0))) for name in ("features.0", "features.3")
    }
    return verdict_on(
        make_history(loss, accuracy, train_loss, train_accuracy, lr=[0.01] * len(loss)),
        spec=parse_spec({"model": "baseline", "epochs": len(loss), **(spec or {})}),
        beginning=replace(BEGINNING, **(beginning or {})),
        filters=FilterHealth(convolutions, movement, num_images=200),
        doubts=[replace(DOUBTS, **(doubts or {}))],
        **more,
    )


def cause(**given: Any) -> Finding:
    """The only cause that is named."""
    found = verdict(given.pop("course", LEARNING), **given)
    causes = [finding for finding in found.findings if finding.code in CAUSES]
    assert len(causes) == 1, causes
    assert not [fault for text in (causes[0].sentence, causes[0].suggestion) for fault in faults_of(text)]
    assert CAUSES[causes[0].code] in found.summary
    return causes[0]


def causes(**given: Any) -> list[str]:
    """The codes of the causes that are named."""
    found = verdict(given.pop("course", LEARNING), **given)
    return [finding.code for finding in found.findings if finding.code in CAUSES]


def test_a_healthy_run_has_none() -> None:
    assert causes() == []


def test_a_history_whose_beginning_was_not_measured_keeps_its_verdict() -> None:
    loss, accuracy = GUESSING
    history = make_history(loss, accuracy, loss, accuracy)
    found = findings(verdict_on(history))
    assert found.keys() >= {"stuck-at-chance"}
    assert not found.keys() & {str(code) for code in CAUSES}
    assert "likely cause" not in found["stuck-at-chance"].suggestion


def test_a_run_that_goes_on_is_not_judged_by_its_beginning() -> None:
    assert causes(beginning={"num_outputs": 1000}, finished=False) == []


def test_images_in_the_order_of_their_classes() -> None:
    found = cause(beginning={"classes_per_batch": 1.2})
    assert found.code == "not-shuffled"
    assert "a batch holds 1.2 classes, and one drawn at random would hold 9.7" in found.sentence
    assert causes(beginning={"classes_per_batch": 1.0, "classes_expected": 1.0}) == [], "a batch of one image"


def test_a_head_with_more_outputs_than_classes() -> None:
    found = cause(beginning={"num_outputs": 1000, "loss": 6.9})
    assert found.code == "wrong-head"
    assert "1,000 outputs for 10 classes" in found.sentence


@pytest.mark.parametrize(("mean", "std", "named"), [(120.0, 64.0, True), (0.5, 0.25, False), (0.4, 0.001, True)])
def test_inputs_on_another_scale(mean: float, std: float, named: bool) -> None:
    assert causes(beginning={"input_mean": mean, "input_std": std}) == ["inputs-not-normalised"] * named


@pytest.mark.parametrize(("shared", "named"), [(None, False), (0, False), (5, False), (200, True), (1000, True)])
def test_validation_images_that_are_training_images(shared: int | None, named: bool) -> None:
    assert causes(beginning={"shared_images": shared}) == ["contaminated-validation"] * named


@pytest.mark.parametrize(
    ("accuracy", "unlikely", "named"),
    [
        (0.68, 0.14, True),
        (0.8, 0.02, False),  # what a network gets wrong of clean labels
        (0.35, 0.14, False),  # it has learned too little to doubt a label
        (0.1, 0.5, False),  # it guesses
    ],
)
def test_labels_that_the_network_finds_least_likely(accuracy: float, unlikely: float, named: bool) -> None:
    assert causes(doubts={"accuracy": accuracy, "unlikely": unlikely}) == ["label-noise"] * named
    both = causes(doubts={"split": "training", "accuracy": accuracy, "unlikely": unlikely})
    assert both == ["label-noise"] * named


def test_a_network_that_has_seen_too_few_epochs_doubts_no_labels() -> None:
    few = tuple(values[:2] for values in LEARNING)
    doubts = {"accuracy": 0.6, "unlikely": 0.16}
    assert causes(doubts=doubts) == ["label-noise"]
    assert causes(course=few, doubts=doubts) == []


@pytest.mark.parametrize(
    ("accuracy", "unlikely", "num_surest", "named"),
    [  # as measured: `narrow` after five epochs of 1,000 to 2,000 images, and others that had learned as little
        (0.42, 0.12, 2500, False),
        (0.44, 0.12, 2500, False),
        (0.38, 0.103, 2500, False),
        (0.47, 0.085, 2500, False),
        (0.55, 0.102, 500, False),  # `baseline` and `narrow` after 20 to 50 epochs of 1,200 to 2,400 images
        (0.63, 0.09, 500, False),
        (0.54, 0.1, 500, False),
        (0.58, 0.09, 500, False),
        (0.37, 0.167, 150, True),  # the same with 30% of the labels shuffled
        (0.39, 0.18, 150, True),
        (0.41, 0.213, 150, True),
    ],
)
def test_mistakes_of_a_network_that_has_learned_little_are_no_wrong_labels(
    accuracy: float, unlikely: float, num_surest: int, named: bool
) -> None:
    loss = [2.30, 2.22, 2.13, 2.08, 2.03]
    course = (loss, [0.11, 0.18, 0.22, 0.25, 0.27])
    doubts = {"accuracy": accuracy, "unlikely": unlikely, "num_surest": num_surest}
    assert causes(course=course, doubts=doubts) == ["label-noise"] * named


def test_a_network_whose_training_failed_doubts_no_labels() -> None:
    doubts = {"accuracy": 0.68, "unlikely": 0.14}
    assert causes(doubts=doubts, beginning={"classes_per_batch": 1.0}) == ["not-shuffled"]


def test_convolutions_with_random_weights_that_were_not_trained() -> None:
    found = cause(movement={**MOVEMENT, "features.0": 0.0, "features.3": 0.0})
    assert found.code == "frozen-body"
    assert found.sentence.startswith("2 of 2 convolutions were not trained")
    start = {"name": "squeezenet1_1", "pretrained": True}
    assert causes(movement={"features.0": 0.0, "classifier.0": 0.3}, spec={"model": start}) == []


def test_layers_that_no_gradient_reached_are_not_called_frozen() -> None:
    layers = {name: replace(layer, gradient_norm=0.0) for name, layer in LAYERS.items()}
    still = dict.fromkeys(MOVEMENT, 0.0) | {"classifier.0": 0.1}
    assert "frozen-body" not in causes(movement=still, beginning={"layers": layers})


def test_few_images_learned_by_heart() -> None:
    learned = (1.2, 0.6, 0.3, 0.1, 0.05, 0.03), (0.6, 0.8, 0.95, 1.0, 1.0, 1.0)
    found = cause(train=learned, beginning={"num_train_images": 150})
    assert found.code == "too-few-images"
    assert "150 training images (15 a class) are too few" in found.sentence
    assert causes(train=learned, beginning={"num_train_images": 30_000}) == []
    assert causes(beginning={"num_train_images": 150}) == []


def test_a_layer_that_was_dead_before_training() -> None:
    layers = {**LAYERS, "features.3": replace(LAYERS["features.3"], silent=True, gradient_norm=0.0)}
    found = cause(course=GUESSING, beginning={"layers": layers, "output_spread": 0.0})
    assert found.code == "dead-layer"
    assert "features.3" in found.sentence


def test_gradients_that_vanish_on_their_way() -> None:
    layers = {**LAYERS, "features.0": replace(LAYERS["features.0"], gradient_norm=1e-7)}
    assert cause(course=GUESSING, beginning={"layers": layers}).code == "vanishing-gradients"
    assert causes(beginning={"layers": layers}) == [], "it learned all the same"


def test_a_momentum_of_many_gradients() -> None:
    optimizer = {"name": "sgd", "lr": 0.01, "momentum": 0.999}
    found = cause(course=GUESSING, spec={"optimizer": optimizer})
    assert found.code == "momentum-too-high"
    assert "follows the last 1,000 gradients or so, and an epoch has 94 steps" in found.sentence
    assert causes(spec={"optimizer": {**optimizer, "momentum": 0.95}}, course=GUESSING) == []
    many = {"num_train_images": 100_000}
    calm = {**optimizer, "momentum": 0.99}
    assert causes(spec={"optimizer": calm}, beginning=many) == [], "it learned, and epochs are long"


def test_a_learning_rate_that_destroyed_layers() -> None:
    found = cause(course=GUESSING, dead={"features.3": 10}, movement=dict.fromkeys(MOVEMENT, 30.0))
    assert found.code == "lr-too-high"
    assert "every ReLU of features.3 has become zero" in found.sentence


def test_a_learning_rate_that_left_the_weights_where_they_were() -> None:
    found = cause(course=GUESSING, movement=dict.fromkeys(MOVEMENT, 1e-4))
    assert found.code == "lr-too-low"
    assert "no layer's weights moved by more than 0.0%" in found.sentence


def test_augmented_images_that_are_much_harder_than_real_ones() -> None:
    harder = (2.2, 2.15, 2.1, 2.08, 2.06, 2.05), (0.15, 0.17, 0.19, 0.2, 0.21, 0.22)
    augmentation = {"cutout_pixels": 28, "rotation_degrees": 180}
    found = cause(train=harder, spec={"augmentation": augmentation})
    assert found.code == "destructive-augmentation"
    assert causes(train=harder) == [], "nothing is augmented"
    assert causes(train=harder, spec={"augmentation": {"mixup_alpha": 0.4}}) == [], "two images in one have two labels"
    assert causes(train=harder, spec={"augmentation": augmentation, "model": DROPOUT}) == [], "dropout is on, too"


def test_a_run_that_has_only_begun_to_learn_says_nothing_about_its_augmentation() -> None:
    """The lab report's row 6c after 4 epochs of 3,800 images: 16% right, and still rising."""
    train = (2.303, 2.302, 2.29, 2.25), (0.104, 0.096, 0.115, 0.137)
    course = (2.303, 2.3, 2.27, 2.2), (0.102, 0.116, 0.134, 0.16)
    augmentation = {"hflip": 0.5, "vflip": 0.5, "rotation_degrees": 15}
    assert causes(course=course, train=train, spec={"augmentation": augmentation}) == []


def test_the_training_accuracy_of_an_epoch_is_compared_with_validation_before_and_after_it() -> None:
    rising = (2.3, 2.2, 2.0, 1.8, 1.6, 1.4), (0.1, 0.16, 0.26, 0.36, 0.46, 0.56)
    train = (2.31, 2.25, 2.1, 1.9, 1.7, 1.5), (0.1, 0.12, 0.19, 0.28, 0.38, 0.48)
    assert causes(course=rising, train=train, spec={"augmentation": {"hflip": 0.5}}) == []


def test_a_few_validation_images_tell_nothing_about_augmentation() -> None:
    train = (2.303, 2.302, 2.3, 2.29, 2.28, 2.28), (0.1, 0.1, 0.11, 0.11, 0.12, 0.12)
    course = (2.303, 2.3, 2.29, 2.28, 2.27, 2.26), (0.1, 0.13, 0.14, 0.14, 0.15, 0.15)
    given: dict[str, Any] = {"course": course, "train": train, "spec": {"augmentation": {"cutout_pixels": 28}}}
    assert causes(**given, beginning={"num_val_images": 200}) == []
    assert causes(**given, beginning={"num_val_images": 10_000}) == ["destructive-augmentation"]


def test_symptoms_refer_to_the_cause_instead_of_guessing_another() -> None:
    found = findings(verdict(GUESSING, movement=dict.fromkeys(MOVEMENT, 1e-4)))
    assert found["stuck-at-chance"].suggestion == "See lr-too-low, the likely cause."
    assert "The loss stays near" not in found["stuck-at-chance"].sentence


def test_a_mistake_in_the_images_hides_no_cause_of_a_training_that_failed() -> None:
    found = verdict(GUESSING, movement=dict.fromkeys(MOVEMENT, 1e-4), beginning={"shared_images": 1000})
    assert {"contaminated-validation", "lr-too-low"} <= findings(found).keys()
    assert findings(found)["stuck-at-chance"].suggestion == "See lr-too-low, the likely cause."


def test_one_poor_result_has_one_cause() -> None:
    layers = {**LAYERS, "features.3": replace(LAYERS["features.3"], silent=True)}
    given: dict[str, Any] = {
        "course": GUESSING,
        "movement": dict.fromkeys(MOVEMENT, 1e-4),
        "spec": {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.999}},
    }
    assert causes(**given, beginning={"layers": layers}) == ["dead-layer"]
    assert causes(**given, beginning={"layers": layers, "num_outputs": 1000}) == ["wrong-head"]
