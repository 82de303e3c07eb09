"""
The reference page of the REST room, drawn from its OpenAPI document; it needs no script and nothing from another host.

The one style sheet stands in the page, and the policy names its hash, so that nothing else can style or run there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

_STYLE = files("goodanalytics.web").joinpath("static", "reference.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The page's Content-Security-Policy."""


def page(document: Mapping[str, Any], source: str) -> str:
    """
    The page, as HTML.

    Args:
        document: What `openapi.document` made.
        source: Where the document itself is served.
    """
    schemas: Mapping[str, Any] = document["components"]["schemas"]
    return _environment.get_template("reference.html").render(
        info=document["info"],
        server=document["servers"][0]["url"].rstrip("/"),
        source=source,
        operations=[
            (method.upper(), path, operation, f"{method}-{path.strip('/').translate(_AS_ANCHOR)}")
            for path, of_path in document["paths"].items()
            for method, operation in of_path.items()
        ],
        schemas=sorted(schemas.items()),
        style=_STYLE,
    )


def kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words: `string (uuid) or null`, `list of TimelineEntry`."""
    match schema:
        case {"$ref": str(ref)}:
            return ref.rpartition("/")[2]
        case {"anyOf": list(choices)}:
            return " or ".join(dict.fromkeys(kind(choice) for choice in choices))
        case {"enum": list(words)}:
            return " | ".join(str(word) for word in words)
        case {"type": "array", "items": dict(item)}:
            return f"list of {kind(item)}"
        case {"type": "object", "additionalProperties": dict(value)}:
            return f"object of {kind(value)}"
        case {"type": str(name), "format": str(form)}:
            return f"{name} ({form})"
        case {"type": str(name)}:
            return name
        case _:
            return "any"


_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "minLength": "characters, at least",
    "maxLength": "characters, at most",
    "minItems": "items, at least",
    "maxItems": "items, at most",
}


def bounds(schema: Mapping[str, Any]) -> str:
    """The bounds of a schema, or of its one choice that is not null, in words; empty for none."""
    return "; ".join(f"{words} {schema[name]}" for name, words in _BOUNDS.items() if name in schema) or next(
        (found for choice in schema.get("anyOf", ()) if (found := bounds(choice))), ""
    )


def described(schema: Mapping[str, Any]) -> str:
    """The description of a schema, or of its one choice that is not null; empty for none."""
    here: Iterable[Mapping[str, Any]] = (schema, *schema.get("anyOf", ()))
    return next((str(choice["description"]) for choice in here if "description" in choice), "")


def marked(words: str) -> Markup:
    """*words* with what stands between backticks as code; everything else in it is text."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(words))))  # noqa: S704  # escaped the moment before


def pretty(value: Any) -> str:
    """*value* as JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value)).decode()


_CODE = re.compile(r"`([^`]+)`")
_AS_ANCHOR = str.maketrans({"/": "-", "{": None, "}": None})
_environment = Environment(
    loader=PackageLoader("goodanalytics.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {
    "kind": kind,
    "bounds": bounds,
    "described": described,
    "marked": marked,
    "pretty": pretty,
}
