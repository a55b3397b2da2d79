"""The health of a dataset: what is planted in it is found, and a clean one is left alone."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from models.data.dataset import ImageDataset
from models.data.health import Finding, Severity, health_report
from models.data.health.check import families
from models.data.health.classifiers import probabilities
from models.data.health.duplicates import Pair, exact_copies, near_copies
from models.data.health.labels import better_than_guessing, suspects
from models.data.health.learning_curve import fit_power_law
from models.data.importing import ImageRecord
from models.data.info import DatasetInfo

Images = npt.NDArray[np.uint8]
SIDE = 32


def scenes(count: int, seed: int = 0, side: int = SIDE) -> Images:
    """Pictures with structure at all sizes, each different: (count, 3, side, side)."""
    random = np.random.default_rng(seed)
    found = np.zeros((count, 3, side, side))
    for cells in (3, 6, 12, 24):
        coarse = random.integers(0, 256, (count, cells, cells, 3), dtype=np.uint8)
        for n in range(count):
            layer = Image.fromarray(coarse[n]).resize((side, side), Image.Resampling.BICUBIC)
            found[n] += np.asarray(layer).transpose(2, 0, 1) / 4
    return found.astype(np.uint8)


def dataset_of(train: Images, test: Images, labels: list[int], test_labels: list[int], **more: Any) -> ImageDataset:
    """A dataset of these images."""
    num_classes = max([*labels, *test_labels]) + 1
    info = DatasetInfo(
        name="x", title="X", num_classes=num_classes, class_names=tuple("abcdefghij"[:num_classes]),
        channels=train.shape[1], size=train.shape[2], num_train=len(train), num_test=len(test), mean=(0.5,) * 3,
        std=(0.5,) * 3, source="", licence="", has_up_and_down=True, can_be_mirrored=True, fit=more.pop("fit", "crop"),
    )  # fmt: skip
    return ImageDataset(info, train, np.array(labels), test, np.array(test_labels), "f", **more)


def checked(dataset: ImageDataset, files: list[ImageRecord] | None = None, **options: Any) -> dict[str, Finding]:
    """The findings by their codes."""
    report = health_report(dataset, files or [], lambda what, done, total: None, **{"deep": False, **options})
    json.dumps(report.as_json())
    return {one.code: one for one in report.findings}


def clean() -> ImageDataset:
    """A dataset without faults."""
    return dataset_of(scenes(60), scenes(20, seed=1), [0, 1, 2] * 20, [0, 1] * 9 + [2, 2])


def test_a_clean_dataset_gives_no_warning() -> None:
    assert set(checked(clean())) == {"classes.counts"}


def test_imbalance_and_small_classes_are_told_with_what_they_mean() -> None:
    found = checked(dataset_of(scenes(99), scenes(2, 1), [0] * 90 + [1] * 9, [0, 0]))
    assert found["classes.imbalance"].severity is Severity.WARNING
    assert "'a' has 90 training images and 'b' 9, 10 times fewer" in found["classes.imbalance"].sentence
    assert "90.9%" in found["classes.imbalance"].sentence
    assert "'b' (9)" in found["classes.few"].sentence
    assert "'b'" in found["classes.untested"].sentence
    assert "1 class has fewer than 20 training images: 'b' (9)" in found["classes.few"].sentence


def test_a_class_with_a_line_break_in_its_name_is_told_on_one_line() -> None:
    dataset = dataset_of(scenes(30), scenes(1, 1), [0] * 29 + [1], [0])
    dataset = replace(dataset, info=replace(dataset.info, class_names=("a\nb", "c\td", "e")))
    said = [one.sentence for one in checked(dataset).values()]
    assert any("'a\\nb'" in sentence for sentence in said)
    assert not any("\n" in sentence or "\t" in sentence for sentence in said)


def test_constant_dark_and_blurred_images_are_named() -> None:
    train = scenes(63, side=64)
    train[3] = 77
    train[5] = train[5] // 5
    blurred = Image.fromarray(train[7].transpose(1, 2, 0)).resize((4, 4)).resize((64, 64), Image.Resampling.BICUBIC)
    train[7] = np.asarray(blurred).transpose(2, 0, 1)
    found = checked(dataset_of(train, scenes(3, 1, side=64), [0, 1, 2] * 21, [0, 1, 2]))
    assert found["pixels.constant"].image_ids == [3]
    assert found["pixels.dark"].image_ids == [5]
    assert found["pixels.blurred"].image_ids == [7]


def test_pictures_that_were_enlarged_or_cut_are_told_by_their_files() -> None:
    files = [ImageRecord(n, f"{n}.jpg", "train", None, None, 400, 100 if n else 20) for n in range(80)]
    found = checked(clean(), files)
    assert found["sizes.enlarged"].image_ids == [0]
    assert "fit 'pad'" in found["sizes.cropped"].sentence
    assert found["sizes.shape"].num_images == 80


# Copies


def as_image(image: Images) -> Image.Image:
    return Image.fromarray(image.transpose(1, 2, 0))


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    box = (0.0, 0.05 * image.height, 0.95 * image.width, float(image.height))
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped": cropped,
    "compressed": compressed,
    "brightened": lambda image: image.point(lambda value: min(255, int(value * 1.3))),
    "mirrored and cropped": lambda image: cropped(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


@pytest.fixture(scope="module")
def found_pairs() -> list[Pair]:
    """Of 300 pictures and five copies of each of the first ten."""
    base = scenes(300)
    copies = [np.asarray(make(as_image(base[n]))).transpose(2, 0, 1) for make in COPIES.values() for n in range(10)]
    return near_copies(base, np.stack(copies))


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_however_they_were_changed(kind: str, found_pairs: list[Pair]) -> None:
    first = 300 + 10 * list(COPIES).index(kind)
    found = {(pair.first, pair.second) for pair in found_pairs}
    assert sum((n, first + n) in found for n in range(10)) >= 9


def test_pictures_that_are_no_copies_are_not_taken_for_some(found_pairs: list[Pair]) -> None:
    original = [*range(300), *list(range(10)) * len(COPIES)]
    assert all(original[pair.first] == original[pair.second] for pair in found_pairs)


def test_pictures_of_one_kind_of_thing_on_one_background_are_no_copies_but_their_copies_are() -> None:
    shirt = scenes(1, seed=7)
    shirts = (0.75 * shirt + 0.25 * scenes(60)).astype(np.uint8)
    make = [COPIES[kind] for kind in ("mirrored", "cropped", "brightened")]
    copies = np.stack([np.asarray(make[n](as_image(shirts[n]))).transpose(2, 0, 1) for n in range(len(make))])
    found = [(pair.first, pair.second) for pair in near_copies(shirts, copies)]
    assert sorted(found) == [(n, 60 + n) for n in range(len(make))]


def test_the_same_shapes_in_other_colours_are_no_copies_and_in_gray_they_are() -> None:
    light = scenes(6)[:, :1].astype(np.float32) * 0.5
    tints = np.array([[90, 0, 20], [0, 80, 10], [10, 20, 120]], dtype=np.float32)[..., None, None]
    red, green, blue = ((light + tint).astype(np.uint8) for tint in tints)
    assert near_copies(np.concatenate([red, green, blue])) == []
    gray = np.repeat(light.astype(np.uint8), 3, axis=1)
    found = near_copies(red, gray, within=False)
    assert sorted((one.first, one.second) for one in found) == [(n, n + 6) for n in range(6)]


def test_copies_across_splits_alone_can_be_looked_for() -> None:
    train, test = scenes(40), scenes(20, seed=1)
    train[5], test[3] = train[6], train[7][:, :, ::-1]
    found = [(pair.first, pair.second) for pair in near_copies(train, test, within=False)]
    assert found == [(7, 43)]
    assert {(pair.first, pair.second) for pair in near_copies(train, test)} == {(5, 6), (7, 43)}


def test_smooth_pictures_are_not_all_copies_of_each_other() -> None:
    corners = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 3), dtype=np.uint8)
    skies = [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for one in corners]
    assert near_copies(np.stack(skies).transpose(0, 3, 1, 2)) == []


def test_the_same_pixels_are_found_across_splits() -> None:
    train, test = scenes(5), scenes(4, seed=1)
    test[2] = train[3]
    assert exact_copies(train, test) == [[3, 7]]


def test_copies_across_splits_and_with_different_labels_are_told_apart() -> None:
    dataset = clean()
    train, test = dataset.train_images.copy(), dataset.test_images.copy()
    test[4] = train[0]  # label 0 in both
    train[11] = train[30][:, :, ::-1]  # labels 2 and 0
    found = checked(dataset_of(train, test, dataset.train_labels.tolist(), dataset.test_labels.tolist()))
    leak = found["duplicates.leakage"]
    assert leak.severity is Severity.PROBLEM
    assert leak.image_ids == [64]
    assert "1 of 20 test images (5.0%)" in leak.sentence
    assert found["duplicates.exact"].figures["groups"] == [[0, 64]]
    assert found["duplicates.near"].figures["pairs"] == [(11, 30)]
    assert found["duplicates.labels"].image_ids == [11, 30]


def test_of_many_equal_images_each_is_counted_once_and_leaks_by_a_copy_of_any() -> None:
    train, test = scenes(60), scenes(21, seed=1)
    train[:20] = train[0]
    test[3] = test[8] = train[20][:, :, ::-1]  # of two equal test images, both are near copies of a training image
    found = checked(dataset_of(train, test, [0, 1, 2] * 20, [0, 1, 2] * 7))
    assert found["duplicates.exact"].figures["groups"] == [list(range(20)), [63, 68]]
    assert "20 images have the same pixels as another" in found["duplicates.exact"].sentence
    assert found["duplicates.near"].figures["pairs"] == [(20, 63)]
    assert found["duplicates.leakage"].image_ids == [63, 68]


def test_a_given_validation_split_leaks_too() -> None:
    train = scenes(60)
    train[50] = train[0]
    held_out = np.arange(60) >= 40
    dataset = dataset_of(train, scenes(3, 1), [0, 1, 2] * 20, [0, 1, 2], validation=held_out)
    leak = checked(dataset)["duplicates.leakage"]
    assert leak.image_ids == [50]
    assert leak.sentence.startswith("1 validation image is a copy of an image of an earlier split, so that")


def test_copies_of_copies_are_one_family() -> None:
    found = families([[1, 4]], [Pair(4, 6, 0.9), Pair(2, 3, 0.9)], 7)
    assert found.tolist() == [0, 1, 2, 2, 1, 5, 1]


# Labels


def test_confident_learning_names_what_is_confidently_another_class() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.1, 0.9], [0.55, 0.45]], dtype=np.float32)
    found = suspects(sure, labels)
    assert [(one.image, one.label, one.likely) for one in found] == [(2, 0, 1)]
    assert found[0].margin == pytest.approx(0.8)


def test_labels_are_not_doubted_by_what_does_not_know_better_than_guessing() -> None:
    labels = np.array([0, 1] * 8)
    right = np.eye(2, dtype=np.float32)[labels]
    assert better_than_guessing(right, labels)
    assert not better_than_guessing(right, np.array([0, 1, 1, 0] * 4))
    assert not better_than_guessing(np.eye(2, dtype=np.float32)[[0] * 16], np.array([0] * 13 + [1] * 3))


Progress = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def judged() -> tuple[dict[str, Finding], set[int], Progress]:
    """Three classes of pictures that are easy to tell apart, by the images' own patches: no weights are needed.

    The findings, the images whose labels are wrong, and the progress that was told.
    """
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 180)
    directions = np.array([(1, 0), (0, 1), (1, 1)])[labels]
    y, x = np.mgrid[:SIDE, :SIDE]
    phases = [a * x + b * y + random.integers(0, 8) for a, b in directions]
    images = scenes(180) // 2 + np.stack(phases)[:, None] % 8 * 15
    wrong = np.arange(0, 150, 15)
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % 3
    pixels = images.astype(np.uint8)
    dataset = dataset_of(pixels[:150], pixels[150:], given[:150].tolist(), given[150:].tolist())
    told: Progress = []
    report = health_report(dataset, [], lambda what, done, total: told.append((what, done, total)))
    return {one.code: one for one in report.findings}, set(wrong.tolist()), told


def test_wrong_labels_are_found_and_the_learning_curve_is_told(
    judged: tuple[dict[str, Finding], set[int], Progress],
) -> None:
    found, wrong, _ = judged
    suspected = set(found["labels.suspects"].image_ids)
    assert len(suspected & wrong) >= 5
    assert len(suspected - wrong) <= 2
    assert "Twice as many images would bring" in found["enough.curve"].sentence


def test_progress_grows_to_the_total_in_every_stage(judged: tuple[dict[str, Finding], set[int], Progress]) -> None:
    stages = {what: [(done, total) for name, done, total in judged[2] if name == what] for what, _, _ in judged[2]}
    assert {"looking at the pixels", "computing features of the images", "judging labels"} < set(stages)
    for what, told in stages.items():
        assert {total for _, total in told} == {180}, what
        assert [done for done, _ in told] == sorted(done for done, _ in told), what
        assert told[-1][0] == 180, what
    assert len({done for done, _ in stages["judging labels"]}) > 10


def test_labels_are_judged_alike_on_one_core_and_on_two(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(40) % 2
    values = random.normal(labels[:, None], 1, (40, 6)).astype(np.float32)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(probabilities(values, labels, 2))
    assert (found[0] == found[1]).all()
    assert (found[0].argmax(axis=1) == labels).mean() > 0.8


def test_an_image_is_judged_without_its_copies() -> None:
    """Labels by chance, and each image ten times: a classifier that has seen a copy knows the label."""
    random = np.random.default_rng(0)
    values = np.repeat(random.normal(0, 1, (20, 30)), 10, axis=0).astype(np.float32)
    labels, groups = np.repeat(random.integers(0, 2, 20), 10), np.repeat(np.arange(20), 10)
    assert (probabilities(values, labels, 2).argmax(axis=1) == labels).mean() > 0.9
    assert (probabilities(values, labels, 2, groups).argmax(axis=1) == labels).mean() < 0.8


def test_the_power_law_of_errors_is_found_again() -> None:
    sizes = np.array([100, 200, 400, 700, 1000])
    level, factor, exponent = fit_power_law(sizes, 0.1 + 2.0 * sizes**-0.5)
    assert (level, factor, exponent) == pytest.approx((0.1, 2.0, 0.5), abs=1e-6)
