"""SQLAlchemy tables. Small columns come before JSON ones, since SQLite reads a row from its start.

experiments 1--n runs, experiment_tags, epoch_metrics, summaries, events, artifacts, idempotency_keys, model_versions
models 1--n model_versions
studies 1--n study_rows 1--n study_runs n--1 experiments
studies 1--n study_additions
datasets 1--n dataset_versions 1--n dataset_jobs
webhooks 1--n webhook_deliveries
api_keys 1--n sessions
probes (measurements) and workers stand alone.

All are imported here, so that whoever imports one has the whole schema.
"""

from models.store.tables.access_tables import ApiKey, PageSession
from models.store.tables.base import Base
from models.store.tables.dataset_tables import Dataset, DatasetJob, DatasetVersion
from models.store.tables.experiment_tables import (
    Artifact,
    EpochRow,
    Event,
    Experiment,
    ExperimentTag,
    IdempotencyKey,
    Run,
    SummaryRow,
)
from models.store.tables.model_tables import Model, ModelVersion
from models.store.tables.study_tables import Study, StudyAddition, StudyRow, StudyRun
from models.store.tables.webhook_tables import Delivery, Webhook
from models.store.tables.worker_tables import Measurement, WorkerRow

__all__ = [
    "ApiKey",
    "Artifact",
    "Base",
    "Dataset",
    "DatasetJob",
    "DatasetVersion",
    "Delivery",
    "EpochRow",
    "Event",
    "Experiment",
    "ExperimentTag",
    "IdempotencyKey",
    "Measurement",
    "Model",
    "ModelVersion",
    "PageSession",
    "Run",
    "Study",
    "StudyAddition",
    "StudyRow",
    "StudyRun",
    "SummaryRow",
    "Webhook",
    "WorkerRow",
]
