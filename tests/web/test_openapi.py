"""The reference of the REST room: the document, and the page that is drawn from it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, get_args

import httpx
import pytest

from goodanalytics.config import Config
from goodanalytics.core.hits import EventType
from goodanalytics.core.visitors import STATUS_RANK
from goodanalytics.hooks import Hooks
from goodanalytics.ingest import Ingest
from goodanalytics.store.database import Database
from goodanalytics.store.tables import build
from goodanalytics.web.api import openapi, reference
from goodanalytics.web.api import room as api
from goodanalytics.web.api.event_bodies import Kind
from goodanalytics.web.api.operations import MAX_TOKEN
from goodanalytics.web.api.visitors import Status

DOCUMENT = openapi.document(api.OPERATIONS, "/ga/api")


@pytest.fixture
def client(config: Config) -> httpx.AsyncClient:
    """A client of a room below `/proxy/ga/api` that nobody may call yet."""
    database = Database.open("postgresql://nobody@127.0.0.1:1/none", build("good_analytics"))
    room = api.app(config, database, Ingest(config, database, Hooks(config.report), None))
    transport = httpx.ASGITransport(room, root_path="/proxy/ga/api")
    return httpx.AsyncClient(transport=transport, base_url="http://internal:9/proxy/ga/api")


def everything(value: Any) -> Iterator[Any]:
    """*value* and all that is in it."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from everything(inner)


def test_every_operation_is_in_the_document():
    """The document has the operations of the room, and no other."""
    found = {
        (operation["operationId"], method.upper(), path)
        for path, of_path in DOCUMENT["paths"].items()
        for method, operation in of_path.items()
    }

    assert found == {(o.name, o.method, o.path.replace(":path", "")) for o in api.OPERATIONS}


def test_operations_of_one_path_stand_together():
    """Neighbours share a route, so that 405 names all methods of a path."""
    paths = [o.path for o in api.OPERATIONS]

    assert len(dict.fromkeys(paths)) == 1 + sum(one != other for one, other in itertools.pairwise(paths))


def test_every_reference_leads_somewhere():
    """No `$ref` of the document is broken."""
    refs = {v["$ref"] for v in everything(DOCUMENT) if isinstance(v, dict) and "$ref" in v}

    assert {ref.removeprefix("#/components/schemas/") for ref in refs} <= DOCUMENT["components"][
        "schemas"
    ].keys()


def test_every_operation_can_be_refused():
    """Each operation tells how it answers those who may not, and what goes wrong on our side."""
    missing = {
        operation["operationId"]: absent
        for of_path in DOCUMENT["paths"].values()
        for operation in of_path.values()
        if (absent := {"401", "403", "500", "503"} - operation["responses"].keys())
    }

    assert missing == {}


def test_every_path_parameter_is_described():
    """A name in a path is a required parameter of it."""
    for path, of_path in DOCUMENT["paths"].items():
        for operation in of_path.values():
            named = [p["name"] for p in operation["parameters"] if p["in"] == "path"]
            assert named == re.findall(r"\{(\w+)\}", path)


def test_query_parameters_carry_their_bounds():
    """A client can be made from the document that sends no limit which would be refused."""
    (limit,) = [p for p in DOCUMENT["paths"]["/visitors"]["get"]["parameters"] if p["name"] == "limit"]

    assert limit["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 200,
        "default": 20,
        "description": "How many, at the most.",
    }


def test_optional_query_parameters_are_never_null():
    """A query parameter is left out; a client must not be led to send the word null."""
    found = [p["schema"] for p in DOCUMENT["paths"]["/visitors"]["get"]["parameters"]]

    assert not any(None in schema.values() or {"type": "null"} in schema.get("anyOf", ()) for schema in found)


def test_security_schemes():
    """Generated clients know both ways to send a key."""
    schemes = DOCUMENT["components"]["securitySchemes"]

    assert {(s["type"], s.get("scheme"), s.get("name")) for s in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-Api-Key"),
    }
    assert {name for choice in DOCUMENT["security"] for name in choice} == schemes.keys()


def test_every_event_type_can_be_sent():
    """The words of the API are those of the core."""
    assert set(get_args(Kind)) == {str(kind) for kind in EventType}


def test_every_status_can_be_asked_for():
    """The statuses of the API are those of the core."""
    assert set(get_args(Status)) == set(STATUS_RANK)


def test_tokens_fit():
    """A token with its claims is not cut off."""
    assert MAX_TOKEN >= 4_096


async def test_document_needs_no_key_and_names_its_root(client):
    """Who has no key can still read how to use one; `servers` is what the proxy in front of us shows."""
    response = await client.get("/openapi.json")

    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
    assert response.json()["servers"] == [{"url": "/proxy/ga/api"}]
    assert "internal" not in response.text


class Seen(HTMLParser):
    """Tags, addresses and anchors of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: set[str] = set()
        self.anchors: list[str] = []
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src"):
                self.addresses.add(value or "")
            if name == "id":
                self.anchors.append(value or "")


async def test_page_needs_nothing_from_anywhere(client):
    """The reference page runs no script, fetches nothing, and every link of it leads somewhere."""
    response = await client.get("/docs")

    seen = Seen(response.text)
    assert response.headers["Content-Type"].startswith("text/html")
    assert seen.tags & {"script", "link", "img", "iframe", "form"} == set()
    assert not any(name.startswith("on") or name == "style" for name in seen.attributes)
    assert seen.addresses - {f"#{anchor}" for anchor in seen.anchors} == {"/proxy/ga/api/openapi.json"}
    assert len(seen.anchors) == len(set(seen.anchors))


async def test_page_has_every_operation(client):
    """The page shows the operations and the schemas that the document has."""
    html = (await client.get("/docs")).text

    for operation in api.OPERATIONS:
        assert operation.summary in html
    for name in DOCUMENT["components"]["schemas"]:
        assert f'id="schema-{name}"' in html


async def test_policy_allows_the_one_style_sheet(client):
    """The policy lets in the style that stands in the page, by its hash, and nothing else."""
    response = await client.get("/docs")

    (style,) = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert response.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def test_page_escapes_its_root(config):
    """A root path with markup in it is text on the page."""
    html = reference.page(openapi.document(api.OPERATIONS, '/"><script>'), '/"><script>/openapi.json')

    assert "<script" not in html


def test_backticks_become_code_and_nothing_else_does():
    """A description may set words as code; markup in it stays text."""
    assert reference.marked("use `a<b>` & <i>") == "use <code>a&lt;b&gt;</code> &amp; &lt;i&gt;"
