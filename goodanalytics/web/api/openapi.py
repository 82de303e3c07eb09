"""
The OpenAPI 3.1 document of the REST room, made from the same declarations as its routes.

Rules of this file
1. Nothing is written twice: paths, names and statuses come from `Operation`, shapes from the msgspec structs that read
   and write the bodies.
2. `servers` is our `root_path`, relative to where the document was fetched, so that it is right behind every proxy.

Source: https://spec.openapis.org/oas/v3.1.0; its schemas are JSON Schema 2020-12, which is what msgspec writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from goodanalytics.version import __version__
from goodanalytics.web.api.operations import Answer, Operation
from goodanalytics.web.api.problems import MEDIA_TYPE, TITLES, Problem

_REF = "#/components/schemas/{name}"
_PATH_NAME = re.compile(r"\{(\w+)(?::\w+)?\}")

_ALWAYS: Mapping[int, str] = {
    401: "There is no credential, or one that is not known.",
    403: "A right credential that may not do this.",
    500: "Something failed here; nothing of it is told but the `request_id`.",
    429: "This key was used too often. `Retry-After` says when to come again.",
    503: "The database does not answer, or there is more work in flight than is kept safe. Try again.",
}
_OF_QUERIES: Mapping[int, str] = {422: "A query parameter is unknown or out of its bounds."}
_OF_BODIES: Mapping[int, str] = {
    400: "The body is not JSON.",
    413: "The body is too large.",
    415: "The body does not claim to be JSON.",
    422: "A value is unknown, missing or out of its bounds; `errors` says where.",
}

_OF_FILES: Mapping[int, str] = {
    400: "The file cannot be read.",
    413: "The file is too large.",
    415: "The body claims to be something else than a file, or is compressed.",
}


def document(operations: Iterable[Operation], server: str) -> dict[str, Any]:
    """
    The OpenAPI document.

    Args:
        server: The `root_path` that the operations live below; empty for the root.
    """
    operations = tuple(operations)
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PATH_NAME.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "goodanalytics",
            "version": __version__,
            "description": "First-party analytics and attribution. Every refusal is an `application/problem+json` "
            "(RFC 9457). Unknown names in bodies and queries are refused, never ignored.",
        },
        "servers": [{"url": server or "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer …`"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
    }


def _types(operations: Sequence[Operation]) -> list[Any]:
    """Every type that the document describes, once each, in the order of the operations."""
    found: list[Any] = [Problem]
    for operation in operations:
        found += [kind for kind in (operation.body, operation.query) if kind is not None]
        found += [given.body for given in operation.answers.values() if given.body is not None]
        found += operation.path_types.values()
    return list(dict.fromkeys(found))


def _operation(operation: Operation, schema_of: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _description(operation),
        "parameters": [*_path_parameters(operation, schema_of), *_query_parameters(operation)],
        "responses": _responses(operation, schema_of),
    }
    if operation.keyed:
        whole["parameters"].append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Your own name for this request; the same key and body is done once.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        )
    if operation.body is not None:
        content: dict[str, Any] = {"schema": schema_of[operation.body]}
        if operation.example is not None:
            content["example"] = dict(operation.example)
        whole["requestBody"] = {"required": True, "content": {"application/json": content}}
    elif operation.file:
        whole["requestBody"] = {"required": True, "content": _files(operation.file)}
    return whole


def _files(kinds: Sequence[str]) -> dict[str, Any]:
    """A body that is a file of one of *kinds*: any text, of which no schema says more."""
    return {kind: {"schema": {"type": "string"}} for kind in kinds}


def _description(operation: Operation) -> str:
    keys = "a secret or a publishable key" if operation.access == "any" else "a secret key"
    return f"{operation.description} Takes {keys}.".strip()


def _path_parameters(
    operation: Operation, schema_of: Mapping[Any, dict[str, Any]]
) -> Iterable[dict[str, Any]]:
    for name in _PATH_NAME.findall(operation.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schema_of[operation.path_types[name]],
        }


def _query_parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    if operation.query is None:
        return
    shape = msgspec.json.schema(operation.query)["$defs"][operation.query.__name__]
    for name, schema in shape["properties"].items():
        yield {
            "name": name,
            "in": "query",
            "required": name in shape.get("required", ()),
            "schema": _without_null(schema),
        }


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A query parameter is left out, never null."""
    kept = {name: value for name, value in schema.items() if name != "anyOf"}
    if "anyOf" not in schema:
        return kept
    kept.pop("default", None)
    (only,) = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
    return {**only, **kept}


def _content(given: Answer, schema_of: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    return (
        _files(given.file) if given.body is None else {"application/json": {"schema": schema_of[given.body]}}
    )


def _responses(operation: Operation, schema_of: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {
        str(status): {
            "description": given.description,
            **({"content": content} if (content := _content(given, schema_of)) else {}),
        }
        for status, given in operation.answers.items()
    }
    refusals = {
        **_ALWAYS,
        **(_OF_BODIES if operation.body is not None else _OF_FILES if operation.file else {}),
        **(_OF_QUERIES if operation.query is not None else {}),
        **operation.problems,
    }
    for status, cause in sorted(refusals.items()):
        told[str(status)] = {
            "description": f"{TITLES[status]}. {cause}",
            "content": {MEDIA_TYPE: {"schema": schema_of[Problem]}},
        }
    return told
