"""Routes that list networks and presets, and return the JSON schema of a spec."""

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from models.networks.architecture import Architecture, Library
from models.plain import JsonObject
from models.spec.presets import experiment_presets, model_presets, study_presets
from service.catalogue.inspector import DescribingDep
from service.http.documents import Document
from service.http.errors import problems
from service.http.prefix import with_prefix_in
from service.http.routing import StrictRoute
from service.http.schema import spec_schema

router = APIRouter(tags=["catalogue"], route_class=StrictRoute, responses=problems(401))


class ArchitecturesDocument(Document):
    """The networks that a spec can name, and where they come from."""

    architectures: list[Architecture]
    families: list[Library] = Field(description="Where networks come from: installed or not, and how many.")


class PresetsDocument(Document):
    """The presets of networks, experiments and studies."""

    models: dict[str, JsonObject] = Field(description="Networks, for `model`.")
    experiments: dict[str, JsonObject] = Field(description="Whole experiments, for `preset`.")
    studies: dict[str, JsonObject] = Field(description="Whole studies, for `preset` in POST /studies.")


@router.get("/architectures", responses=problems(422))
def list_architectures(
    describing: DescribingDep,
    family: Annotated[
        Literal["all", "epochal", "torchvision", "timm"],
        Query(description="Networks of one family; timm's, over a thousand, are listed only by this."),
    ] = "all",
) -> ArchitecturesDocument:
    """List the networks, with their sizes and inputs."""
    found = describing.ask("architectures", family)
    return ArchitecturesDocument(architectures=found, families=describing.ask("libraries"))


@router.get("/presets")
async def list_presets() -> PresetsDocument:
    """List the presets, each with its complete spec."""
    return PresetsDocument(models=model_presets(), experiments=experiment_presets(), studies=study_presets())


@router.get("/schema")
async def get_schema() -> JsonObject:
    """Read the JSON schema of a spec."""
    schema: JsonObject = json.loads(with_prefix_in(json.dumps(spec_schema())))
    return schema
