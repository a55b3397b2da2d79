"""The OpenAPI document, completed with what FastAPI cannot infer: request bodies and problem documents."""

import json
from collections.abc import Sequence

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.routing import BaseRoute

from models.plain import JsonObject
from models.spec.details import Details
from models.spec.experiment import ExperimentSpec
from models.spec.model import FAMILIES
from models.spec.presets import experiment_presets, model_presets, study_presets
from models.spec.study import StudySpec
from service.http.errors import Problem

REF = "#/components/schemas/{model}"
DESCRIPTION = """\
POST an experiment; a worker trains it; GET its curves, kernels, a verdict in plain words, and predictions.

Errors are `application/problem+json` (RFC 9457) with a `code` for programs and a `fix` for people. Where keys are
required, send `Authorization: Bearer KEY`.
"""
EXAMPLE = {"name": "first try", "model": "baseline", "epochs": 3, "optimizer": {"name": "sgd", "lr": 0.01}}

PRESET_SCHEMA: JsonObject = {
    "type": "object",
    "title": "Preset",
    "description": "A preset with changes: any field of a spec may be given beside `preset`.",
    "properties": {"preset": {"type": "string", "description": "A name listed by GET /api/v1/presets."}},
    "required": ["preset"],
}
SHORT_SCHEMA: JsonObject = {
    "type": "object",
    "title": "Short form",
    "description": 'A spec whose parts may be names: {"model": "wide", "optimizer": "adam"}.',
    "properties": {"model": {"type": "string", "description": "A network's name."}},
    "required": ["model"],
}


def _body(schema: JsonObject, example: JsonObject) -> JsonObject:
    content = {"schema": schema, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content, "application/yaml": content}}}


def json_body(kind: type[BaseModel], example: JsonObject) -> JsonObject:
    """Describe a small body by its Pydantic model, for a route's `openapi_extra`."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, inner in definitions.items():
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(inner))
    return _body(json.loads(text), example)


SPEC_SCHEMA = {"anyOf": [{"$ref": REF.format(model="ExperimentSpec")}, PRESET_SCHEMA, SHORT_SCHEMA]}
SPEC_REQUEST_BODY = _body(SPEC_SCHEMA, EXAMPLE)
LEARNING_RATE_TEST_REQUEST_BODY = _body(
    {
        "allOf": [
            SPEC_SCHEMA,
            {
                "type": "object",
                "properties": {
                    "lr_min": {"type": "number", "minimum": 1e-12, "maximum": 100, "default": 1e-6},
                    "lr_max": {"type": "number", "minimum": 1e-12, "maximum": 100, "default": 1.0},
                    "steps": {"type": "integer", "minimum": 10, "maximum": 2000, "default": 100},
                },
            },
        ]
    },
    {"model": "baseline", "lr_min": 1e-5, "lr_max": 1.0, "steps": 100},
)
MODEL_REQUEST_BODY = _body(
    {
        "type": "object",
        "title": "Assignment",
        "description": "Which weights the model's next version is.",
        "properties": {
            "experiment_id": {
                "type": "integer",
                "minimum": 1,
                "maximum": 2**31 - 1,
                "description": "An experiment that has ended.",
            },
            "weights": {"type": "string", "enum": ["best", "last"], "default": "best"},
        },
        "required": ["experiment_id"],
        "additionalProperties": False,
    },
    {"experiment_id": 7, "weights": "best"},
)
DETAILS_REQUEST_BODY = _body(
    {"$ref": REF.format(model="Details")}, {"name": "first try", "tags": ["lab-1"], "notes": "the rate was too high"}
)
STUDY_REQUEST_BODY = _body(
    {
        "anyOf": [
            {"$ref": REF.format(model="StudySpec")},
            {
                "type": "object",
                "title": "Study preset",
                "properties": {"preset": {"type": "string", "enum": list(study_presets())}},
                "required": ["preset"],
            },
        ]
    },
    {
        "title": "How wide?",
        "base": {"model": "baseline", "epochs": 5},
        "variants": [{"key": "wide", "title": "More channels", "overrides": {"model": "wide"}}],
        "seeds": 3,
    },
)
STUDY_CHANGES_REQUEST_BODY = _body(
    {"type": "object", "title": "Changes", "description": "Keys of a study with their new values."}, {"seeds": 3}
)
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/gif")
IMAGES_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "PNG, JPEG, WebP, BMP, GIF, TIFF, HEIC or AVIF; one part an image.",
                        }
                    },
                    "required": ["image"],
                },
                "encoding": {"image": {"contentType": ", ".join(IMAGE_TYPES)}},
            },
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
            "application/zip": {
                "schema": {"type": "string", "format": "binary", "description": "Image files, in folders or not."}
            },
        },
    }
}
IMAGE_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary", "description": "One image."}},
                    "required": ["image"],
                }
            },
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES},
        },
    }
}


def spec_schema() -> JsonObject:
    """Return the JSON schema of a spec, for GET /schema, with the names that `model` accepts."""
    schema = ExperimentSpec.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "x-model-names": [*model_presets(), *FAMILIES],
        "x-presets": list(experiment_presets()),
        "x-studies": list(study_presets()),
    }


def openapi_document(title: str, version: str, routes: Sequence[BaseRoute]) -> JsonObject:
    """Build the OpenAPI document of routes, with the spec's schemas, the problem document and the security schemes."""
    document = get_openapi(title=title, version=version, description=DESCRIPTION, routes=routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (ExperimentSpec, StudySpec, Details, Problem):
        schema = model.model_json_schema(ref_template=REF)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same."},
    }
    document["security"] = [{"bearer": []}, {"header": []}, {}]
    return document
