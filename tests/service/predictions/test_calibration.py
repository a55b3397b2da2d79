"""Calibrated probabilities and scores: those that were fitted for the weights that answer, and no others."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.evaluation.calibration import Calibration, energy
from models.evaluation.judging import Judged, judge
from models.evaluation.outputs import AboutOutputs, Outputs
from models.evaluation.unknown import fit_unknown_score, image_statistics
from models.files import sha256_of
from models.store import artifacts
from models.store.states import ArtifactKind
from service.predictions.calibration import find_calibration
from tests.service.predictions.trained import Lab, Trained

FITTED = Calibration(
    temperature=2.0,
    energy_threshold=-3.0,
    num_images=1000,
    accuracy=0.7,
    confidence=0.9,
    error=0.2,
    calibrated_error=0.01,
)


def keep_outputs(lab: Lab, trained: Trained, about: AboutOutputs) -> None:
    """What the worker leaves when the run ends."""
    outputs = Outputs(about, np.zeros((2, 10), np.float32), np.zeros(2, np.int64), np.arange(2))
    path = trained.path / "outputs-validation.safetensors"
    place = path.relative_to(lab.settings.experiments_dir).as_posix()
    path.write_bytes(outputs.to_bytes())
    with lab.store.writing() as session:
        artifacts.record(
            session, trained.claim, ArtifactKind.OUTPUTS_VALIDATION, 0, place, sha256_of(path), path.stat().st_size
        )


def about(trained: Trained) -> AboutOutputs:
    """That the outputs are of these weights."""
    names = trained.preprocessing.class_names
    return AboutOutputs("validation", 1, sha256_of(trained.path / "weights-best.safetensors"), 2, names, FITTED)


def test_a_calibration_is_found_for_the_weights_that_it_was_fitted_for(lab: Lab) -> None:
    trained = lab.train()
    own = about(trained).weights_sha256

    def found(digest: str) -> Calibration | None:
        return find_calibration(lab.store, trained.id, digest, lab.settings.experiments_dir)

    assert found(own) is None, "the run has not ended"
    keep_outputs(lab, trained, about(trained))
    assert found(own) == FITTED
    assert found("0" * 64) is None, "weights that trained on are others"
    keep_outputs(lab, trained, replace(about(trained), calibration=None))
    assert found(own) is None, "there were too few images"
    for path in lab.settings.experiments_dir.rglob("outputs-*"):
        path.write_bytes(b"damaged")
    assert found(own) is None


BLACK = np.zeros((3, 32, 32), np.uint8)


def judged(logits: list[float], calibration: Calibration | None, image: NDArray[np.uint8] = BLACK) -> Judged:
    [found] = judge([image], [np.array(logits)], calibration)
    return found


def test_a_temperature_lowers_what_was_too_sure_and_keeps_the_order() -> None:
    found = judged(np.log([0.9, 0.06, 0.04]).tolist(), FITTED)
    assert found.probabilities == pytest.approx([0.9, 0.06, 0.04])
    assert found.calibrated == pytest.approx(np.sqrt([0.9, 0.06, 0.04]) / np.sqrt([0.9, 0.06, 0.04]).sum())


def test_an_image_is_known_if_its_score_is_at_most_the_threshold() -> None:
    rng = np.random.default_rng(0)
    seen = rng.integers(100, 156, (200, 3, 32, 32), dtype=np.uint8)
    logits = rng.normal(size=(200, 3))
    score = fit_unknown_score(image_statistics(seen), energy(logits), 0.95)
    fitted = replace(FITTED, unknown=score)
    found = judge(list(seen), list(logits), fitted)
    assert sum(one.known is True for one in found) == 190
    assert [one.known for one in found] == [(one.unknown_score or 0) <= score.threshold for one in found]
    assert judged([4.0, 0.0, 0.0], fitted).known is False, "a black image is unlike noise, however sure the network is"
    alone = [judge([image], [row], fitted)[0].unknown_score for image, row in zip(seen[:5], logits[:5], strict=True)]
    assert alone == [one.unknown_score for one in found[:5]]


def test_where_an_earlier_version_fitted_no_score_the_energy_says_whether_an_image_is_known() -> None:
    assert judged([4.0, 0.0, 0.0], FITTED).known is True
    assert judged([1.0, 0.0, 0.0], FITTED).known is False
    assert judged([1.0, 0.0, 0.0], FITTED).unknown_score is None


def test_without_a_calibration_nothing_is_said_but_the_energy() -> None:
    without = judged([4.0, 0.0, 0.0], None)
    assert (without.known, without.calibrated, without.unknown_score) == (None, None, None)
    assert without.energy == pytest.approx(-np.log(np.exp(4) + 2))
    assert judge([], [], FITTED) == []
