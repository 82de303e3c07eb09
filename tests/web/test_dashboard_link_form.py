"""A link as a form and back: every field, every row, and every wrong text in its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

from goodanalytics.core.link_fields import FIELDS
from goodanalytics.core.links import Hours, Link, Rule, Variant, When
from goodanalytics.errors import InvalidInput
from goodanalytics.web.dashboard import link_form
from goodanalytics.web.dashboard.link_words import LABELS

BERLIN = ZoneInfo("Europe/Berlin")
MADE = datetime(2026, 11, 1, 12, tzinfo=UTC)
FULL = Link(
    workspace_id=UUID(int=1), id=UUID(int=2), domain="go.example", key="spring", url="https://shop.example/a?b=1#c",
    link_type="campaign", title="Spring", notes="One\nand “two”", folder="Letters", utm_source="news", utm_medium="email",
    utm_campaign="Spring & more", utm_content="top", utm_term="lamp", ios_url="https://apps.example/i",
    android_url="https://apps.example/a",
    rules=[
        Rule(
            url="https://shop.example/r", name="Everything",
            when=When(
                devices=["mobile", "tv"], os=["ios"], browsers=["safari", "instagram"], languages=["de", "pt-BR"],
                countries=["DE", "AT"], regions=["US-CA", "US-New York"], query={"plan": "5", "any": None, "none": ""},
                ip_ranges=["192.0.2.0/24", "2001:db8::/32"], after=MADE, before=MADE + timedelta(days=1, seconds=5),
                hours=Hours(start="22:00", end="06:00", timezone="Asia/Tokyo", weekdays=[1, 7]), returning=False,
                statuses=["lead", "customer"],
                traits={"plan": "pro", "seats": 5, "text": "5", "share": 0.5, "beta": True, "word": "true", "any": None},
            ),
        ),
        Rule(url="https://shop.example/s", when=When(returning=True)),
    ],
    variants=[Variant(url="https://shop.example/1", weight=3, name="A"), Variant(url="https://shop.example/2", name="Bee")],
    starts_at=MADE, expires_at=MADE + timedelta(days=2, seconds=1, microseconds=123_456), expired_url="https://shop.example/over",
    max_clicks=1_000, redirect_status=307, forward_path=True, forward_query=False, cloaked=True, indexed=True, og_title="T",
    og_description="D", og_image="https://shop.example/i.png", partner_id=UUID(int=3), external_id="crm-1", tags=["x", "y z"],
    metadata={"a": {"b": [1, None]}}, created_at=MADE, updated_at=MADE,
)  # fmt: skip
PLAIN = Link(
    workspace_id=UUID(int=1), id=UUID(int=2), domain="go.example", key="a", url="https://shop.example/",
    created_at=MADE, updated_at=MADE,
)  # fmt: skip


@pytest.mark.parametrize("link", [FULL, PLAIN], ids=["full", "plain"])
def test_a_link_is_its_form_and_the_form_its_link(link):
    """What `written` writes, `read` reads back as a new link's fields: everything, to the millisecond."""
    found = link_form.read(link_form.written(link, BERLIN), BERLIN)
    expected = {name: getattr(link, name) for name in FIELDS if name != "password"}
    if link.expires_at is not None:
        expected["partner_id"] = str(link.partner_id)
        expected["expires_at"] = link.expires_at.replace(microsecond=123_000)
    told = {name: value for name, value in expected.items() if value not in (None, [], {})}

    assert found.errors == {}
    assert {name: value for name, value in found.fields.items() if value not in (None, [], {})} == told


def test_the_form_knows_every_field():
    """A field, condition or part of a variant that is added to links must be added to the form and to its words."""
    written = link_form.written(FULL, BERLIN)
    conditions = {*When.__struct_fields__, *Hours.__struct_fields__} - {"hours", "weekdays"}

    assert set(FIELDS) - {"rules", "variants", "password"} - {"forward_query"} <= set(written)
    assert set(FIELDS) <= set(LABELS)
    assert conditions | {"name", "url", *link_form.DAYS} == set(link_form.RULE)
    assert set(Variant.__struct_fields__) == set(link_form.VARIANT)


@pytest.mark.parametrize("link", [FULL, PLAIN], ids=["full", "plain"])
def test_a_form_that_is_sent_back_as_it_was_changes_nothing(link):
    """Not even what a text cannot say, such as microseconds; a browser may write times in another form."""
    before = link_form.written(link, BERLIN)
    sent = {**before, "seen": "x", "do": "save"}
    if "expires_at" in sent:
        sent["expires_at"] = sent["expires_at"] + "0"
        sent["starts_at"] += ":00"
        sent["rules-0-before"] += ".000"

    assert link_form.read(sent, BERLIN, before=before) == link_form.Read({}, {})


@pytest.mark.parametrize(
    ("typed", "fields"),
    [
        pytest.param({"title": ""}, {"title": None}, id="a text is cleared"),
        pytest.param({"tags": "y z,  x,, x"}, {"tags": ["y z", "x", "x"]}, id="tags"),
        pytest.param({"forward_query": "on"}, {"forward_query": True}, id="a box is ticked"),
        pytest.param({"cloaked": ""}, {"cloaked": False}, id="a box is not ticked"),
        pytest.param({"max_clicks": "1,500"}, {"max_clicks": 1_500}, id="a number"),
        pytest.param({"starts_at": "2026-12-01T10:00"}, {"starts_at": datetime(2026, 12, 1, 9, tzinfo=UTC)}, id="a time"),
        pytest.param({"password": " s p "}, {"password": " s p "}, id="a password is as it was typed"),
        pytest.param({"remove_password": "on"}, {"password": None}, id="no password"),
        pytest.param({"variants-0-url": "", "variants-0-name": "", "variants-0-weight": "", "variants-1-url": "",
                      "variants-1-name": "", "variants-1-weight": ""}, {"variants": []}, id="no variants"),
        pytest.param({"metadata": ""}, {"metadata": None}, id="metadata is cleared"),
    ],
)  # fmt: skip
def test_only_what_was_changed_is_read(typed, fields):
    """Everything else stays as it is, whoever changed it meanwhile."""
    before = link_form.written(FULL, BERLIN)

    assert link_form.read({**before, **typed}, BERLIN, before=before) == link_form.Read(fields, {})


@pytest.mark.parametrize(
    ("typed", "place", "says"),
    [
        pytest.param({"url": ""}, "url", "Say where the link leads", id="no address"),
        pytest.param({"url": "ftp://x"}, "url", "This is 'ftp://x'", id="address"),
        pytest.param({"key": "a b"}, "key", "This is 'a b'", id="key"),
        pytest.param({"key": ""}, "key", "Say what stands behind the slash", id="no key"),
        pytest.param({"domain": "a/b"}, "domain", "host name", id="domain"),
        pytest.param({"max_clicks": "many"}, "max_clicks", "whole number", id="number"),
        pytest.param({"max_clicks": "0"}, "max_clicks", "whole number from 1", id="zero"),
        pytest.param({"max_clicks": "1" * 13}, "max_clicks", "whole number", id="huge number"),
        pytest.param({"starts_at": "tomorrow"}, "starts_at", "a date and a time", id="time"),
        pytest.param({"starts_at": "0001-01-01T00:00"}, "starts_at", "a date and a time", id="time out of the calendar"),
        pytest.param({"metadata": "{"}, "metadata", "no JSON", id="JSON"),
        pytest.param({"metadata": "[" * 5_000}, "metadata", "no JSON", id="deep JSON"),
        pytest.param({"metadata": "[1]"}, "metadata", "JSON object", id="no object"),
        pytest.param({"partner_id": "me"}, "partner_id", "UUID", id="partner"),
        pytest.param({"redirect_status": "200"}, "redirect_status", "301", id="redirect"),
        pytest.param({"link_type": "long"}, "link_type", "short", id="type"),
        pytest.param({"rules-0-url": ""}, "rules-0-url", "Say where the rule leads", id="rule without address"),
        pytest.param({"rules-1-countries": "DE, Germany"}, "rules-1-countries", "'Germany'", id="country"),
        pytest.param({"rules-1-returning": ""}, "rules-1", "no condition", id="rule without condition"),
        pytest.param({"rules-0-start": "9"}, "rules-0-start", "hours and minutes", id="hour"),
        pytest.param({"rules-0-timezone": "Mars"}, "rules-0-timezone", "IANA", id="zone"),
        pytest.param({"rules-0-after": "x"}, "rules-0-after", "a date and a time", id="rule's time"),
        pytest.param({"rules-7-name": "Far", "rules-7-devices": "brick", "rules-7-url": "https://a.example/"},
                     "rules-7-devices", "'brick'", id="rule after empty ones"),
        pytest.param({"variants-1-weight": "x"}, "variants-1-weight", "whole number", id="weight"),
        pytest.param({"variants-1-weight": "0"}, "variants-1-weight", "1 to 1000", id="weight of nothing"),
        pytest.param({"variants-1-url": "", "variants-1-name": "", "variants-1-weight": ""}, "variants", "two or more", id="one variant"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_beside_its_field(typed, place, says):
    """In words that do not name the field as programs do."""
    before = link_form.written(FULL, BERLIN)
    found = link_form.read({**before, **typed}, BERLIN, before=before)

    assert list(found.errors) == [place]
    assert says in found.errors[place]
    assert found.errors[place].endswith(".")


def test_everything_that_is_wrong_is_told_at_once():
    """One error does not hide another one."""
    values = link_form.blank(domain="a b", key="a b", max_clicks="x", starts_at="y")

    assert set(link_form.read(values, UTC).errors) == {"url", "domain", "key", "max_clicks", "starts_at"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param({"url": "https://a.example"}, "https://a.example", id="plain"),
        pytest.param({"url": "https://a.example/?x=1#f", "utm_source": "a b&c"}, "https://a.example/?x=1&utm_source=a+b%26c#f", id="utm"),
        pytest.param({"url": "https://a.example/?utm_source=x&y", "utm_source": "z"}, "https://a.example/?y&utm_source=z", id="replaced"),
        pytest.param({"url": "a.example"}, None, id="no address"),
        pytest.param({}, None, id="nothing"),
    ],
)  # fmt: skip
def test_the_preview_is_what_a_click_leads_to(values, expected):
    """But for the click's own id."""
    assert link_form.destination(values) == expected


@pytest.mark.parametrize(
    ("form", "names", "told"),
    [
        pytest.param(link_form.Form(link_form.blank()), ("redirect_status", "forward_query"), False, id="defaults"),
        pytest.param(link_form.Form({"folder": "x"}), ("folder", "notes"), True, id="said"),
        pytest.param(link_form.Form({}, {"rules-0": "wrong"}), ("rules",), True, id="wrong"),
        pytest.param(link_form.Form({"rules-0-url": "x"}), ("variants",), False, id="another list"),
    ],
)  # fmt: skip
def test_a_group_is_open_when_something_stands_in_it(form, names, told):
    """So that nothing that was said, or is wrong, is hidden."""
    assert form.is_told(*names) is told


def test_rows_are_bounded():
    """A form cannot make us draw more rows than anybody needs."""
    form = link_form.Form(
        {"rules-99-url": "https://a.example/", "variants-2-url": ""}, more={"rules": 1, "variants": 1}
    )

    assert len(form.rows("rules")) == link_form.MOST_ROWS
    assert len(form.rows("variants", 2)) == 4
    assert len(link_form.Form({}).rows("variants", 2)) == 2


def test_an_unknown_place_stays_as_it_is():
    """An error whose place is no field of a row keeps its name."""
    assert link_form.place("url") == "url"
    assert link_form.place("rules[3].when.hours.weekdays[0]", [0, 2, 4, 8]) == "rules-8-day1"
    assert link_form.in_plain(InvalidInput("something is wrong", where="")) == "something is wrong."


def test_numbers_survive_json():
    """Numbers and truths among traits are not made texts."""
    row = link_form.written(FULL, BERLIN)["rules-0-traits"].split("\n")

    assert row == ["plan=pro", "seats=5", 'text="5"', "share=0.5", "beta=true", 'word="true"', "any"]
    assert msgspec.json.decode(link_form.written(FULL, BERLIN)["metadata"]) == FULL.metadata
