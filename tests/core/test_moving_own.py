"""Our own export: each field comes back exactly, and a password is never lost on the way."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from goodanalytics.core.link_conditions import Rule, Variant, When
from goodanalytics.core.links import Domain, Link, password_hash
from goodanalytics.core.moving_files import Writer, read
from goodanalytics.core.moving_own import COLUMNS, KNOWN, PASSWORD, link_of, row_of
from goodanalytics.core.partners import Partner
from goodanalytics.errors import InvalidInput

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
WORKSPACE = UUID(int=7)
PLAIN = Link(
    workspace_id=WORKSPACE, id=UUID(int=1), domain="go.example", key="a", url="https://a.example/?x=1#y",
    created_at=AT, updated_at=AT,
)  # fmt: skip
FULL = Link(
    workspace_id=WORKSPACE,
    id=UUID(int=2),
    domain="go.example:8000",
    key="B_-9",
    url="https://ü.example/ä?q=%20",
    link_type="campaign",
    title='=HYPERLINK("https://evil.example")',
    notes="-1; 'quoted', \"twice\"",
    folder="@home",
    utm_source="a",
    utm_medium="b",
    utm_campaign="c",
    utm_content="d",
    utm_term="e",
    ios_url="https://apps.example/ios",
    android_url="https://apps.example/android",
    rules=[
        Rule(url="https://de.example", when=When(countries=["DE"], query={"a": None, "b": "1"}, after=AT), name="Germany"),
        Rule(url="https://vip.example", when=When(traits={"plan": "pro", "seats": 3, "paid": True})),
    ],
    variants=[Variant(url="https://a.example", weight=3, name="A"), Variant(url="https://b.example", weight=1, name="B")],
    starts_at=AT,
    expires_at=datetime(2030, 1, 1, tzinfo=UTC),
    expired_url="https://over.example",
    max_clicks=1,
    password_hash=password_hash("open sesame", b"0123456789abcdef"),
    redirect_status=308,
    forward_path=True,
    forward_query=False,
    cloaked=True,
    indexed=True,
    og_title="t",
    og_description="d",
    og_image="https://img.example/a.png",
    partner_id=UUID(int=3),
    external_id="crm:1",
    tags=["a,b", "c|d", "=e"],
    metadata={"n": 1, "deep": {"list": [1, None, "x"]}, "text": "'=1"},
    archived_at=AT,
    created_at=AT,
    updated_at=AT,
)  # fmt: skip


def test_the_example_has_every_field():
    """So that a field that is added later is added here, and is known to come back."""
    defaults = {f.name: f.default for f in msgspec.structs.fields(Link) if not f.required}

    assert [name for name in defaults if getattr(FULL, name) == defaults[name]] == []


@pytest.mark.parametrize(("kind", "struct"), [("link", Link), ("domain", Domain), ("partner", Partner)])
def test_the_rows_of_each_kind_have_all_its_fields(kind, struct):
    """But the workspace: a field that is added later is written and read, or this fails."""
    fields = {one.name for one in msgspec.structs.fields(struct)}

    assert KNOWN[kind] - {"kind", "has_password"} == fields - {"workspace_id"}


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("link", [PLAIN, FULL], ids=["plain", "full"])
def test_a_link_comes_back_exactly(kind, link):
    """Through the file, with its id, its times, its archive and its password's digest."""
    writer = Writer([*COLUMNS, PASSWORD], kind)
    data = writer.start() + writer.row(row_of(link, passwords=True)) + writer.end()

    (row,) = read(data, is_ours=True).rows
    assert link_of(row.values, WORKSPACE) == link


def test_the_workspace_is_the_one_that_it_is_brought_into():
    """Not the one that it came from."""
    assert link_of(row_of(PLAIN), UUID(int=9)).workspace_id == UUID(int=9)
    assert "workspace_id" not in row_of(PLAIN)


def test_a_password_is_not_in_a_plain_export_and_its_link_does_not_come_back_open():
    """The file says that there is one; whoever reads it must not make a link without."""
    row = row_of(FULL)

    assert PASSWORD not in row
    assert row["has_password"] is True
    assert "scrypt" not in str(row)
    with pytest.raises(InvalidInput, match="export it with its passwords"):
        link_of(row, WORKSPACE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"id": "nonsense"}, "id", id="an id that is none"),
        pytest.param({"id": None}, "id", id="no id"),
        pytest.param({"url": "javascript:alert(1)"}, "url", id="a script"),
        pytest.param({"url": None}, "url", id="no url"),
        pytest.param({"key": "a/b"}, "key", id="a key that is none"),
        pytest.param({"created_at": "2026-01-01T00:00:00"}, "time zone", id="a time without its zone"),
        pytest.param({"redirect_status": 200}, "redirect_status", id="a status that does not redirect"),
        pytest.param({"rules": "[{"}, "rules", id="rules that are no JSON"),
        pytest.param(
            {"rules": [{"url": "https://x.example", "when": {"nonsense": 1}}]}, "rules", id="an unknown rule"
        ),
        pytest.param({"metadata": "[1]"}, "metadata", id="metadata that are no object"),
        pytest.param({"has_password": True}, "password", id="a password that is not there"),
        pytest.param(
            {PASSWORD: "scrypt$2$8$1$" + "0" * 32 + "$" + "0" * 64}, "password", id="a password unsaid"
        ),
        pytest.param(
            {PASSWORD: "scrypt$4194304$8$1$" + "0" * 32 + "$" + "0" * 64, "has_password": True},
            "password",
            id="a digest that takes 4 GiB to check",
        ),
        pytest.param({PASSWORD: "md5$x", "has_password": True}, "password", id="another digest"),
        pytest.param({"indexed": "perhaps"}, "indexed", id="a mark that is none"),
    ],
)
def test_what_comes_in_is_checked(changes, reason):
    """A file of ours may have been written by somebody else."""
    with pytest.raises(InvalidInput, match=reason):
        link_of(row_of(PLAIN) | changes, WORKSPACE)


def test_a_digest_of_ours_is_taken():
    """The one check above that must not refuse too much."""
    assert link_of(row_of(FULL, passwords=True), WORKSPACE).password_hash == FULL.password_hash
