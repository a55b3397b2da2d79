"""What all tables have in common: how their columns are typed and their constraints named."""

from datetime import datetime
from typing import Annotated

from sqlalchemy import BigInteger, Double, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase, mapped_column

from models.plain import JsonObject
from models.store.columns import JsonColumn, UtcDateTime, words
from models.store.states import (
    ArtifactKind,
    DatasetJobKind,
    DatasetStatus,
    DeliveryStatus,
    EventKind,
    MeasurementKind,
    MeasurementStatus,
    Role,
    RunStatus,
    Status,
    StudyState,
    WeightsChoice,
)
from models.webhooks import WebhookEvent

# SQLite's integers all have 64 bits, but only one declared INTEGER numbers itself.
BigInt = Annotated[int, mapped_column(BigInteger().with_variant(Integer(), "sqlite"))]

EXPERIMENT = "experiments.id"


class Base(DeclarativeBase):
    """Every table, with names for every constraint, which batch migrations on SQLite need."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        float: Double,
        JsonObject: JsonColumn,
        list[JsonObject]: JsonColumn,
        Status: words(Status),
        RunStatus: words(RunStatus),
        EventKind: words(EventKind),
        ArtifactKind: words(ArtifactKind),
        MeasurementKind: words(MeasurementKind),
        MeasurementStatus: words(MeasurementStatus),
        Role: words(Role),
        WeightsChoice: words(WeightsChoice),
        StudyState: words(StudyState),
        DatasetStatus: words(DatasetStatus),
        DatasetJobKind: words(DatasetJobKind),
        DeliveryStatus: words(DeliveryStatus),
        WebhookEvent: words(WebhookEvent),
    }
