"""The JSON documents of models and their versions."""

from datetime import datetime

from pydantic import Field

from models.store.states import WeightsChoice
from models.store.tables import ModelVersion
from service.http.documents import API, Document
from service.http.prefix import with_prefix


class VersionDocument(Document):
    """One version of a model."""

    version: int
    serving: bool = Field(description="Whether it is what the name serves now.")
    experiment_id: int | None = Field(description="Whose weights; null once that was deleted, after a rollback.")
    weights: WeightsChoice
    epoch: int | None = Field(description="The epoch that the weights are of.")
    sha256: str = Field(description="Digest of the weights' file.")
    created_by: str | None = Field(description="Name of the key that made it.")
    created_at: datetime
    withdrawn_at: datetime | None = Field(description="When a rollback withdrew it.")


class VersionPage(Document):
    """One page of a model's versions."""

    items: list[VersionDocument]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int = Field(description="Versions of the model, withdrawn ones too.")


class ModelDocument(Document):
    """A name, and the version that it serves."""

    name: str
    version: int
    experiment_id: int | None
    weights: WeightsChoice
    epoch: int | None = Field(description="The epoch that the weights are of.")
    sha256: str = Field(description="Digest of the weights' file.")
    created_by: str | None = Field(description="Name of the key that made the version.")
    created_at: datetime = Field(description="When the version was made.")
    links: dict[str, str]


class ModelPage(Document):
    """One page of the names."""

    items: list[ModelDocument]
    next: str | None = Field(description="The `cursor` of the next page; null on the last one.")
    total: int = Field(description="Models in the lab.")


def model_document(serving: ModelVersion) -> ModelDocument:
    """A name by the version that it serves."""
    root = with_prefix(f"{API}/models/{serving.model}")
    links = {"self": root, "versions": f"{root}/versions", "predictions": f"{root}/predictions"}
    if serving.experiment_id is not None:
        links["experiment"] = with_prefix(f"{API}/experiments/{serving.experiment_id}")
    return ModelDocument(
        name=serving.model,
        version=serving.version,
        experiment_id=serving.experiment_id,
        weights=serving.weights,
        epoch=serving.epoch,
        sha256=serving.sha256,
        created_by=serving.owner,
        created_at=serving.created_at,
        links=links,
    )


def version_document(row: ModelVersion, serving: int) -> VersionDocument:
    """One of a model's versions; `serving` is the number of the one that is served."""
    return VersionDocument(
        version=row.version,
        serving=row.version == serving,
        experiment_id=row.experiment_id,
        weights=row.weights,
        epoch=row.epoch,
        sha256=row.sha256,
        created_by=row.owner,
        created_at=row.created_at,
        withdrawn_at=row.withdrawn_at,
    )
