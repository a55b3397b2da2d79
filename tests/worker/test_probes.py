"""Measurements are made beside the queue by a real worker, and given to another when theirs is lost."""

from typing import Any

import pytest

from models.spec.parse import parse_spec
from models.store import Status, probes
from models.store.states import ProbeKind, ProbeStatus
from models.store.tables import Probe
from tests.processes import wait_until
from tests.worker.lab import Lab, endless, short_spec

pytestmark = pytest.mark.timeout(300)

RANGE = {"lr_min": 1e-5, "lr_max": 10.0, "steps": 60}


def ask(lab: Lab, kind: ProbeKind, options: dict[str, Any] | None = None, **changes: Any) -> int:
    with lab.store.writing() as session:
        return probes.create(session, kind, parse_spec({**short_spec(), **changes}), options).id


def answer(lab: Lab, probe_id: int, seconds: float = 60.0) -> Probe:
    def ended() -> Probe | None:
        with lab.store.reading() as session:
            probe = probes.get(session, probe_id)
        return probe if probe.status in (ProbeStatus.COMPLETED, ProbeStatus.FAILED) else None

    return wait_until(ended, seconds, f"measurement {probe_id}")


def test_a_preflight_measures_real_steps(lab: Lab) -> None:
    lab.worker()
    probe = answer(lab, ask(lab, ProbeKind.PREFLIGHT, epochs=7))
    assert probe.status is ProbeStatus.COMPLETED, probe.reason
    result = probe.result
    assert result["finite"]
    assert result["steps_measured"] > 3
    assert result["seconds_per_epoch"] > 20 * result["seconds_per_step"]
    assert result["seconds_in_all"] == pytest.approx(7 * result["seconds_per_epoch"])
    assert result["peak_memory_mb"] > 100
    assert result["beside_a_run"] is False


def test_a_preflight_says_when_the_loss_does_not_stay_finite(lab: Lab) -> None:
    lab.worker()
    probe = answer(
        lab, ask(lab, ProbeKind.PREFLIGHT, model="three_blocks", optimizer={"name": "sgd", "lr": 100, "momentum": 0.9})
    )
    assert probe.result["finite"] is False
    assert probe.result["diverged"]["what"] in ("loss", "gradient")


def test_a_learning_rate_test_is_made_while_a_run_trains(lab: Lab) -> None:
    lab.worker()
    running = lab.submit(**endless())
    lab.wait_for_epoch(running, 1)
    probe = answer(lab, ask(lab, ProbeKind.LR_TEST, RANGE))
    assert probe.status is ProbeStatus.COMPLETED, probe.reason
    assert len(probe.result["points"]) > 10
    assert probe.result["beside_a_run"] is True
    assert lab.status(running) is Status.RUNNING


def test_what_cannot_be_measured_says_why(lab: Lab) -> None:
    lab.worker()
    probe = answer(lab, ask(lab, ProbeKind.PREFLIGHT, precision="fp16"))
    assert probe.status is ProbeStatus.FAILED
    assert "fp16" in probe.reason


def test_a_measurement_whose_worker_was_killed_is_made_by_another(lab: Lab) -> None:
    worker = lab.worker()
    probe_id = ask(lab, ProbeKind.LR_TEST, {**RANGE, "steps": 2000}, model="three_blocks")
    wait_until(worker.jobs, 20, "the measurement to begin")
    worker.kill()
    with lab.store.writing() as session:
        session.get_one(Probe, probe_id).options = RANGE  # the second time a short one will do
    lab.start_worker()
    assert answer(lab, probe_id, 120).status is ProbeStatus.COMPLETED
