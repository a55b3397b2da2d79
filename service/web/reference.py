"""Context of the API reference page, from the OpenAPI document: operations by tag, and kinds of problems."""

import json

from models import errors
from models.plain import JsonObject
from service.http import errors as service_errors
from service.http import protocol
from service.http.prefix import with_prefix_in

METHODS = ("get", "post", "put", "patch", "delete")


def reference_context(document: JsonObject) -> JsonObject:
    """Operations grouped by tag, in the order of the routes, and every kind of problem."""
    schemas = document["components"]["schemas"]
    groups: dict[str, list[JsonObject]] = {}
    for path, operations in document["paths"].items():
        for method in METHODS:
            if operation := operations.get(method):
                tag = (operation.get("tags") or ["other"])[0]
                groups.setdefault(tag, []).append(_operation(path, method, operation, schemas))
    return {"groups": groups, "problems": _problems(), "version": document["info"]["version"]}


def _operation(path: str, method: str, operation: JsonObject, schemas: JsonObject) -> JsonObject:
    return {
        "method": method.upper(),
        "path": path,
        "text": _plain(operation.get("description") or operation.get("summary", "")),
        "parameters": [
            {
                "name": parameter["name"],
                "where": parameter["in"],
                "text": _plain(parameter.get("description", "")),
                "kind": _kind(parameter.get("schema", {}), schemas),
            }
            for parameter in operation.get("parameters", ())
            if parameter["in"] != "path"
        ],
        "takes": list(operation.get("requestBody", {}).get("content", {})),
        "gives": [
            {"status": status, "text": _plain(answer["description"]), "types": list(answer.get("content", {}))}
            for status, answer in sorted(operation["responses"].items())
            if status.isdigit() and int(status) < 400
        ],
    }


def _kind(schema: JsonObject, schemas: JsonObject) -> str:
    choices = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    part = choices[0] if choices else {}
    part = schemas.get(part.get("$ref", "").rpartition("/")[2], part)
    if "enum" in part:
        return " | ".join(map(str, part["enum"]))
    default = schema.get("default")
    return f"{part.get('type', '')}, {json.dumps(default)} by default" if default is not None else part.get("type", "")


def _plain(text: str) -> str:
    return with_prefix_in(text.replace("`", ""))


def _problems() -> list[JsonObject]:
    known = {
        kind.code: kind
        for module in (errors, service_errors, protocol)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, errors.EpochalError) and kind.code != "lease-lost"
    }
    kinds = sorted(known.values(), key=lambda kind: (kind.status, kind.code))
    return [
        {"code": kind.code, "status": kind.status, "title": kind.title, "text": kind.__doc__ or ""} for kind in kinds
    ]
