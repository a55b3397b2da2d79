"""Makes short measurements: claims them in the database and makes each in a forked process with a deadline.

They do not go through the broker: a client waits for the answer, which must not queue behind a run that trains.
"""

import time
from typing import cast

import structlog

from models.errors import EpochalError
from models.measurements import MeasurementOptions
from models.store import measurements
from models.store.states import MeasurementKind
from models.store.tables import Measurement
from worker.messages import MeasurementJob, Report
from worker.processes.nursery import NurseryError
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.25
BEAT_SECONDS = 1.0

DEADLINE_SECONDS = {
    MeasurementKind.PREFLIGHT: 18.0,
    MeasurementKind.LR_TEST: 60.0,
    MeasurementKind.AUGMENTED: 18.0,
    MeasurementKind.EXPLANATION: 56.0,
    MeasurementKind.COMBINED: 240.0,
    MeasurementKind.ROBUSTNESS: 240.0,
}
"""The time limit of a measurement. A request waits 20 s for a pre-flight and 60 s for an explanation; a learning-rate
test is polled."""
STUDY_DEADLINE_SECONDS = 60.0
"""The time limit of a study's dry run, which no request waits for."""


class Measurer:
    """One worker's thread that polls the database for measurements."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(self) -> None:
        """Make measurements, one at a time, until the worker shuts down."""
        while not self._runtime.shutdown.wait(POLL_SECONDS):
            try:
                while not self._runtime.shutdown.is_set() and (measurement := self._claim()):
                    self._make(measurement)
            except EpochalError as error:
                log.warning("the database cannot be searched for measurements now", why=str(error))

    def _claim(self) -> Measurement | None:
        with self._runtime.store.reading() as session:
            if not measurements.any_waiting(session):
                return None
        with self._runtime.store.writing() as session:
            return measurements.claim_next(session, self._runtime.name)

    def _make(self, measurement: Measurement) -> None:
        began = time.monotonic()
        beside_a_run = self._runtime.training
        try:
            answer = self._measure(measurement)
        except NurseryError as error:
            answer = {"reason": str(error)}
        if answer is None:
            with self._runtime.store.writing() as session:
                measurements.give_back(session, measurement.id)
            return
        with self._runtime.store.writing() as session:
            if "result" in answer:
                answer["result"]["beside_a_run"] = beside_a_run or self._runtime.training
                measurements.finish(session, measurement.id, answer["result"])
            else:
                measurements.fail(session, measurement.id, answer["reason"])
        seconds, reason = round(time.monotonic() - began, 2), answer.get("reason")
        log.info("measured", measurement=measurement.id, kind=measurement.kind, seconds=seconds, reason=reason)

    def _measure(self, measurement: Measurement) -> Report | None:
        """The job's last report; None when the worker shuts down before there is one."""
        job: MeasurementJob = {
            "do": "measurement",
            "kind": measurement.kind.value,
            "spec": measurement.spec,
            "options": cast(MeasurementOptions, measurement.options) if measurement.options else None,
            "settings": self._runtime.settings.model_dump(mode="json"),
        }
        seconds = DEADLINE_SECONDS[measurement.kind]
        if measurement.kind is MeasurementKind.PREFLIGHT and measurement.options.get("study"):
            seconds = STUDY_DEADLINE_SECONDS
        deadline = time.monotonic() + seconds
        beat_at = time.monotonic()
        answer: Report | None = None
        with self._runtime.nursery.spawn(job, self._runtime.shutdown.is_set) as process:
            while process.exit_code is None:
                for report in process.read(0.2):
                    answer = report
                if self._runtime.shutdown.is_set():
                    return answer
                now = time.monotonic()
                if now > deadline:
                    return answer or {"reason": f"the measurement took longer than {seconds:g} s"}
                if now > beat_at:
                    beat_at = now + BEAT_SECONDS
                    with self._runtime.store.writing() as session:
                        measurements.beat(session, measurement.id)
        return answer or {"reason": f"the measuring process exited with code {process.exit_code} without a result"}
