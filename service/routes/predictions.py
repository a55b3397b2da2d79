"""Predictions for images that somebody sends."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from service.dependencies import CallerDep, Id, ServicesDep, StrictRoute
from service.documents import Document
from service.errors import problems
from service.schema import IMAGES_REQUEST_BODY
from service.uploads import Upload, read_images

router = APIRouter(prefix="/experiments", tags=["predictions"], route_class=StrictRoute)


class Likely(Document):
    """One class and how probable it is."""

    label: str
    index: int
    probability: float


class Prediction(Document):
    """What one image shows, as far as the network can tell."""

    image: str = Field(description="The part's file name.")
    index: int = Field(description="Its place among the parts, from 0.")
    label: str
    probability: float
    top: list[Likely] = Field(description="The most probable classes, best first.")


class PredictionsDocument(Document):
    """Predictions, in the order the images were sent."""

    experiment_id: int
    weights: str
    epoch: int | None = Field(description="The epoch that the weights are of.")
    predictions: list[Prediction]


async def read_upload(request: Request, caller: CallerDep, services: ServicesDep) -> AsyncIterator[list[Upload]]:
    """The images of a request, once there is room for it: a request that has to wait is not read yet."""
    num_bytes = int(request.headers.get("content-length", services.settings.max_upload_mb * 1_000_000))
    with services.predictions.place(num_bytes):
        images = await read_images(request)
        services.doorkeeper.count_upload(caller, sum(len(image.data) for image in images))
        async with services.predictions.slot():
            yield images
