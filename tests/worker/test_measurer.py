"""Measurements are made beside the queue by a real worker, and given to another when theirs is lost."""

import base64
from typing import Any

import pytest

from models.spec.parse import parse_spec
from models.store import Status, artifacts, measurements
from models.store.states import ArtifactKind, MeasurementKind, MeasurementStatus
from models.store.tables import Measurement
from tests.processes import wait_until
from tests.worker.lab import Lab, endless, short_spec

pytestmark = pytest.mark.timeout(300)

RANGE = {"lr_min": 1e-5, "lr_max": 10.0, "steps": 20}


def ask(lab: Lab, kind: MeasurementKind, options: dict[str, Any] | None = None, **changes: Any) -> int:
    with lab.store.writing() as session:
        return measurements.create(session, kind, parse_spec({**short_spec(), **changes}), options).id


def answer(lab: Lab, measurement_id: int, seconds: float = 60.0) -> Measurement:
    def ended() -> Measurement | None:
        with lab.store.reading() as session:
            measurement = measurements.get(session, measurement_id)
        return measurement if measurement.status in (MeasurementStatus.COMPLETED, MeasurementStatus.FAILED) else None

    return wait_until(ended, seconds, f"measurement {measurement_id}")


def test_a_preflight_measures_real_steps(lab: Lab) -> None:
    lab.worker()
    measurement = answer(lab, ask(lab, MeasurementKind.PREFLIGHT, epochs=7))
    assert measurement.status is MeasurementStatus.COMPLETED, measurement.reason
    result = measurement.result
    assert result["finite"]
    assert result["steps_measured"] > 3
    assert result["seconds_per_epoch"] > 20 * result["seconds_per_step"]
    assert result["seconds_in_all"] == pytest.approx(7 * result["seconds_per_epoch"])
    assert result["peak_memory_mb"] > 100
    assert result["beside_a_run"] is False


def test_a_preflight_says_when_the_loss_does_not_stay_finite(lab: Lab) -> None:
    lab.worker()
    # Each step multiplies every weight by about -99: the third one overflows, however few a busy machine has time for.
    overflowing = {"name": "sgd", "lr": 100, "momentum": 0.9, "weight_decay": 1}
    measurement = answer(lab, ask(lab, MeasurementKind.PREFLIGHT, optimizer=overflowing))
    assert measurement.result["finite"] is False
    assert measurement.result["diverged"]["what"] in ("loss", "gradient")


def test_a_learning_rate_test_is_made_while_a_run_trains(lab: Lab) -> None:
    lab.worker()
    running = lab.submit(**endless())
    lab.wait_for_epoch(running, 1)
    measurement = answer(lab, ask(lab, MeasurementKind.LR_TEST, RANGE))
    assert measurement.status is MeasurementStatus.COMPLETED, measurement.reason
    assert len(measurement.result["points"]) > 10
    assert measurement.result["beside_a_run"] is True
    assert lab.status(running) is Status.RUNNING


def test_what_cannot_be_measured_says_why(lab: Lab) -> None:
    lab.worker()
    measurement = answer(lab, ask(lab, MeasurementKind.PREFLIGHT, precision="fp16"))
    assert measurement.status is MeasurementStatus.FAILED
    assert "fp16" in measurement.reason


def test_a_measurement_whose_worker_was_killed_is_made_by_another(lab: Lab) -> None:
    worker = lab.worker()
    measurement_id = ask(lab, MeasurementKind.LR_TEST, {**RANGE, "steps": 2000}, model="three_blocks")
    wait_until(worker.jobs, 20, "the measurement to begin")
    worker.kill()
    with lab.store.writing() as session:
        row = session.get_one(Measurement, measurement_id)  # the second time a short one will do
        row.spec, row.options = parse_spec(short_spec()).as_json(), {**RANGE, "steps": 12}
    lab.start_worker()
    assert answer(lab, measurement_id, 120).status is MeasurementStatus.COMPLETED


def test_a_worker_explains_an_answer_by_gradients(lab: Lab) -> None:
    lab.worker()
    trained = lab.submit(**short_spec())
    lab.wait_for(trained, Status.COMPLETED)
    with lab.store.reading() as session:
        record = artifacts.newest(session, trained, ArtifactKind.WEIGHTS_BEST)
        epochs = [one.epoch for one in artifacts.list_kind(session, trained, ArtifactKind.WEIGHTS_EPOCH)]
    assert record is not None
    assert epochs, "weights of epochs are recorded"
    options = {
        "weights": record.path,
        "sha256": record.sha256,
        "pixels": base64.b64encode(bytes(range(256)) * 12).decode(),
        "method": "integrated_gradients",
        "target": 3,
    }
    measurement = answer(lab, ask(lab, MeasurementKind.EXPLANATION, options))
    assert measurement.status is MeasurementStatus.COMPLETED, measurement.reason
    assert measurement.result["shape"] == [32, 32]
    damaged = answer(lab, ask(lab, MeasurementKind.EXPLANATION, {**options, "sha256": "00"}))
    assert damaged.status is MeasurementStatus.FAILED
