"""The learning-rate tests that sections of a study's report show."""

from sqlalchemy.orm import Session

from models.measurements import LearningRateRange
from models.spec.parse import load_spec
from models.store import measurements
from models.store.states import MeasurementKind
from models.store.study_snapshot import StudySnapshot


def request_tests(session: Session, snapshot: StudySnapshot) -> None:
    """Request the learning-rate tests that sections of the report show."""
    by_key = {row.key: row for row in snapshot.rows}
    for section in snapshot.spec.sections:
        row = by_key.get(section.learning_rate_test or "")
        if row is not None and row.learning_rate_test is None:
            options: LearningRateRange = {"lr_min": 1e-6, "lr_max": 1.0, "steps": 40 if snapshot.spec.budget else 100}
            row.learning_rate_test = measurements.create(
                session, MeasurementKind.LR_TEST, load_spec(row.spec), options, owner=snapshot.study.owner
            ).id


def tests_wait(session: Session, snapshot: StudySnapshot) -> bool:
    """Whether one of them has not ended."""
    numbers = [row.learning_rate_test for row in snapshot.rows if row.learning_rate_test is not None]
    return any(measurements.get(session, number).status in measurements.UNFINISHED for number in numbers)
