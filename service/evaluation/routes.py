"""Routes of the best weights' evaluation: confusion matrix, ROC curves, mistakes, calibration, images."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from models.evaluation.confusion import confusion_matrix
from models.evaluation.probabilities import softmax
from models.evaluation.roc import macro_curve, roc_by_class
from service.drawing.canvas import DPI, png
from service.evaluation.documents import (
    CalibrationDocument,
    ConfusionDocument,
    MistakesDocument,
    RocDocument,
    calibration_document,
    confusion_document,
    mistakes_document,
    roc_document,
)
from service.evaluation.draw_confusion import render_confusion
from service.evaluation.draw_mistakes import MAX_SHOWN, render_mistakes
from service.evaluation.draw_roc import render_roc
from service.evaluation.images import ImageSplit, open_split, read_image
from service.evaluation.read import (
    EvaluatedSplit,
    OutputsSource,
    class_number,
    find_mistakes,
    find_outputs,
    predicted_classes,
)
from service.http.dependencies import DrawPlace, RenderingsDep, SettingsDep, StoreDep
from service.http.documents import API, Document
from service.http.errors import problems
from service.http.pictures import BINARY, ETAG, MEDIA_TYPES, NOT_MODIFIED, Picture, picture_headers, picture_responses
from service.http.prefix import with_prefix
from service.http.routing import MAX_ID, Id, StrictRoute

router = APIRouter(prefix="/experiments", tags=["evaluation"], route_class=StrictRoute)

Split = Annotated[EvaluatedSplit, Query(description="validation, or test where the spec had it measured.")]
LabelOf = Annotated[str | None, Query(max_length=1000, description="Only images of this class: its name or number.")]
PredictedAs = Annotated[str | None, Query(max_length=1000, description="Only images predicted as this class.")]
PROBLEMS = problems(401, 404, 409, 422)
FIGURES = {200: {"headers": ETAG}, **NOT_MODIFIED, **PROBLEMS}
PICTURE = {**picture_responses(), **PROBLEMS}


JSON_TYPE = "application/json"


def as_json(document: Document) -> bytes:
    """A document as bytes, to be kept with its ETag."""
    return document.model_dump_json().encode()


def _find(
    experiment_id: Id, store: StoreDep, settings: SettingsDep, split: Split = EvaluatedSplit.VALIDATION
) -> OutputsSource:
    with store.reading() as session:
        return find_outputs(session, experiment_id, split, settings.experiments_dir)


Source = Annotated[OutputsSource, Depends(_find)]


@router.get("/{experiment_id}/confusion", response_model=ConfusionDocument, responses=FIGURES)
def get_confusion(source: Source, renderings: RenderingsDep, request: Request) -> Response:
    """Read the confusion matrix: counts, precision, recall and F1 of each class, the most confused pairs."""

    def make() -> bytes:
        outputs = source.read()
        matrix = confusion_matrix(outputs.labels, predicted_classes(outputs), len(outputs.about.class_names))
        return as_json(confusion_document(source, outputs.about, matrix))

    return renderings.respond(request, ("confusion", *source.key), JSON_TYPE, make)


@router.get("/{experiment_id}/confusion.{picture}", response_class=Response, responses=PICTURE)
def draw_confusion(
    source: Source, picture: Picture, renderings: RenderingsDep, request: Request, _: Annotated[None, DrawPlace]
) -> Response:
    """Draw the confusion matrix."""

    def make() -> bytes:
        outputs = source.read()
        names = outputs.about.class_names
        matrix = confusion_matrix(outputs.labels, predicted_classes(outputs), len(names))
        return render_confusion(matrix, names, title=source.title(outputs.about), format=picture.value)

    return renderings.respond(request, ("confusion", *source.key), MEDIA_TYPES[picture], make, picture_headers(picture))


@router.get("/{experiment_id}/roc", response_model=RocDocument, responses=FIGURES)
def get_roc(source: Source, renderings: RenderingsDep, request: Request) -> Response:
    """Read the ROC curve of each class against the others, and their areas."""

    def make() -> bytes:
        outputs = source.read()
        curves = roc_by_class(softmax(outputs.logits), outputs.labels)
        return as_json(roc_document(source, outputs, curves, macro_curve(curves)))

    return renderings.respond(request, ("roc", *source.key), JSON_TYPE, make)


@router.get("/{experiment_id}/roc.{picture}", response_class=Response, responses=PICTURE)
def draw_roc(
    source: Source, picture: Picture, renderings: RenderingsDep, request: Request, _: Annotated[None, DrawPlace]
) -> Response:
    """Draw the ROC curves."""

    def make() -> bytes:
        outputs = source.read()
        curves = roc_by_class(softmax(outputs.logits), outputs.labels)
        return render_roc(
            curves,
            macro_curve(curves),
            outputs.about.class_names,
            title=source.title(outputs.about),
            format=picture.value,
        )

    return renderings.respond(request, ("roc", *source.key), MEDIA_TYPES[picture], make, picture_headers(picture))


@router.get("/{experiment_id}/mistakes", response_model=MistakesDocument, responses=FIGURES)
def get_mistakes(
    source: Source,
    renderings: RenderingsDep,
    request: Request,
    label: LabelOf = None,
    predicted: PredictedAs = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many are listed.")] = 50,
) -> Response:
    """Read the wrong predictions of the highest confidence, with the addresses of their images."""
    names = source.about().class_names
    pair = class_number("label", label, names), class_number("predicted", predicted, names)
    root = with_prefix(f"{API}/experiments/{source.experiment_id}/images/{source.split}")

    def make() -> bytes:
        outputs = source.read()
        return as_json(mistakes_document(source, outputs, find_mistakes(outputs, *pair), limit, root))

    return renderings.respond(request, ("mistakes", *pair, limit, root, *source.key), JSON_TYPE, make)


@router.get("/{experiment_id}/mistakes.{picture}", response_class=Response, responses=PICTURE)
def draw_mistakes(
    source: Source,
    picture: Picture,
    store: StoreDep,
    settings: SettingsDep,
    renderings: RenderingsDep,
    request: Request,
    _: Annotated[None, DrawPlace],
    label: LabelOf = None,
    predicted: PredictedAs = None,
    limit: Annotated[int, Query(ge=1, le=MAX_SHOWN, description="How many are drawn.")] = 24,
) -> Response:
    """Draw the wrong predictions of the highest confidence."""
    names = source.about().class_names
    pair = class_number("label", label, names), class_number("predicted", predicted, names)

    def make() -> bytes:
        outputs = source.read()
        mistakes = find_mistakes(outputs, *pair)
        with store.reading() as session:
            images = open_split(session, source.experiment_id, ImageSplit(source.split), settings)
        shown = mistakes[:limit]
        return render_mistakes(
            shown,
            [images.pixels(one.position) for one in shown],
            names,
            num_wrong=len(mistakes),
            title=source.title(outputs.about),
            label=pair[0],
            predicted=pair[1],
            format=picture.value,
        )

    key = ("mistakes", *pair, limit, *source.key)
    return renderings.respond(request, key, MEDIA_TYPES[picture], make, picture_headers(picture))


@router.get("/{experiment_id}/calibration", response_model=CalibrationDocument, responses=FIGURES)
def get_calibration(
    source: Source, store: StoreDep, settings: SettingsDep, renderings: RenderingsDep, request: Request
) -> Response:
    """Read how well probabilities agree with the accuracy, as they are and calibrated."""
    with store.reading() as session:
        fitted = find_outputs(session, source.experiment_id, EvaluatedSplit.VALIDATION, settings.experiments_dir)

    def make() -> bytes:
        return as_json(calibration_document(source, source.read(), fitted.about()))

    return renderings.respond(request, ("calibration", fitted.record.sha256, *source.key), JSON_TYPE, make)


@router.get(
    "/{experiment_id}/images/{split}/{index}.png",
    response_class=Response,
    responses={
        200: {"description": "The image.", "content": {"image/png": BINARY}, "headers": ETAG},
        **NOT_MODIFIED,
        **PROBLEMS,
    },
)
def get_image(
    experiment_id: Id,
    split: ImageSplit,
    index: Annotated[int, Path(ge=0, le=MAX_ID, description="Its position in the split, from 0.")],
    store: StoreDep,
    settings: SettingsDep,
    renderings: RenderingsDep,
    request: Request,
    scale: Annotated[int, Query(ge=1, le=64, description="Pixels a side that each of its pixels becomes.")] = 1,
) -> Response:
    """Read one image of the experiment's dataset."""
    with store.reading() as session:
        images = open_split(session, experiment_id, split, settings)
    pixels = read_image(images, split, index, scale)
    key = ("image", hashlib.sha256(pixels.tobytes()).hexdigest(), pixels.shape)
    return renderings.respond(request, key, "image/png", lambda: png(pixels, DPI))
