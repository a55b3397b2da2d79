"""The messages between a worker and its forked processes: one JSON object a line, first the job, then reports."""

from typing import Literal, NotRequired, TypedDict

from models.data.description import DatasetProgress, ImportReportJson, JobOptions
from models.data.health.report import HealthReportJson
from models.errors import ProblemJson
from models.measurements import MeasurementOptions, MeasurementResult
from models.plain import JsonObject
from models.progress import RunProgress, TestResult


class CheckpointJson(TypedDict):
    """An ArtifactRecord of a checkpoint."""

    experiment_id: int
    kind: str
    epoch: int
    attempt: int
    path: str
    sha256: str
    num_bytes: int


class ClaimJson(TypedDict):
    """A claim of the store (models.store.runs.Claim)."""

    experiment_id: int
    run_id: int
    attempt: int
    worker: str
    spec: JsonObject
    checkpoints: list[CheckpointJson]
    start_epoch: int


class TrainJob(TypedDict):
    """Train one run."""

    do: Literal["train"]
    settings: JsonObject
    claim: ClaimJson


class MeasurementJob(TypedDict):
    """Make one measurement."""

    do: Literal["measurement"]
    settings: JsonObject
    kind: str
    """A value of MeasurementKind."""
    spec: JsonObject
    options: MeasurementOptions | None
    """Of a learning-rate test, or of an explanation."""


class DatasetJob(TypedDict):
    """Do a job of an uploaded dataset."""

    do: Literal["dataset"]
    settings: JsonObject
    kind: str
    """A value of DatasetJobKind."""
    dataset: str
    version: int
    options: JobOptions
    staging: str
    """The folder in which its files are made."""


class DescribeDeviceJob(TypedDict):
    """Find out on which device this worker trains."""

    do: Literal["describe-device"]
    settings: JsonObject


Job = TrainJob | MeasurementJob | DatasetJob | DescribeDeviceJob


class SettleOutcome(TypedDict):
    """The run has ended with a terminal status."""

    kind: Literal["settle"]
    status: str
    reason: str | None
    test: TestResult | None


class HandedBackOutcome(TypedDict):
    """A checkpoint is written, and another worker can go on."""

    kind: Literal["handed_back"]
    reason: NotRequired[str]


class RetryOutcome(TypedDict):
    """The attempt failed; the next one may not."""

    kind: Literal["retry"]
    reason: str


class LostOutcome(TypedDict):
    """Another worker owns the run."""

    kind: Literal["lost"]


OutcomeJson = SettleOutcome | HandedBackOutcome | RetryOutcome | LostOutcome


class Report(TypedDict, total=False):
    """One line from a process to its worker, with one member, or none."""

    progress: RunProgress
    waiting: str
    """Why the run waits: the database is unavailable."""
    outcome: OutcomeJson
    """How a run's attempt ended; the last report of its process."""
    result: MeasurementResult
    reason: str
    """Why a measurement has no result."""
    device: str
    dataset_progress: DatasetProgress
    dataset_report: ImportReportJson
    """What an import or a change made; the last report of its process."""
    health_report: HealthReportJson
    """What a check found; the last report of its process."""
    problem: ProblemJson
    """Why the job of a dataset failed; the last report of its process."""
