"""Routes that list networks and presets, and return the JSON schema of a spec."""

import json

from fastapi import APIRouter
from pydantic import Field

from models.networks.architecture import Architecture
from models.plain import JsonObject
from models.spec.presets import experiment_presets, model_presets
from service.catalogue.inspector import DescribingDep
from service.http.documents import Document
from service.http.errors import problems
from service.http.prefix import with_prefix_in
from service.http.routing import StrictRoute
from service.http.schema import spec_schema

router = APIRouter(tags=["catalogue"], route_class=StrictRoute, responses=problems(401))


class ArchitecturesDocument(Document):
    """The networks that a spec can name."""

    architectures: list[Architecture]


class PresetsDocument(Document):
    """The presets of networks and experiments."""

    models: dict[str, JsonObject] = Field(description="Networks, for `model`.")
    experiments: dict[str, JsonObject] = Field(description="Whole experiments, for `preset`.")


@router.get("/architectures")
def list_architectures(describing: DescribingDep) -> ArchitecturesDocument:
    """List the networks, with their sizes and inputs."""
    return ArchitecturesDocument(architectures=describing.ask("architectures"))


@router.get("/presets")
async def list_presets() -> PresetsDocument:
    """List the presets, each with its complete spec."""
    return PresetsDocument(models=model_presets(), experiments=experiment_presets())


@router.get("/schema")
async def get_schema() -> JsonObject:
    """Read the JSON schema of a spec."""
    schema: JsonObject = json.loads(with_prefix_in(json.dumps(spec_schema())))
    return schema
