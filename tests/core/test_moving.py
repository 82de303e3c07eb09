"""Other shorteners' exports, understood: one sample of each with the columns that it really has."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from goodanalytics.core.link_fields import checked_fields
from goodanalytics.core.moving import Moving, Refused, understand
from goodanalytics.core.moving_files import read
from goodanalytics.core.moving_meanings import READERS, moment
from goodanalytics.core.moving_rivals import DROP, RIVALS
from goodanalytics.errors import InvalidInput

AT = datetime(2026, 6, 1, 8, 30, tzinfo=UTC)


def moved(name: str, file: str | list[Any] | dict[str, Any], **how: Any) -> Any:
    text = file if isinstance(file, str) else json.dumps(file)
    return understand(RIVALS[name], read(text.encode()), **how)


DUB = (
    "Short link,Destination URL,Clicks,Leads,Conversions,Revenue,Created at,Link ID,Updated at,Tags,Archived\n"
    "https://go.example/Spring,https://shop.example/?a=1,1204,3,1,$12.00,2026-06-01T08:30:00.000Z,link_1,"
    '2026-06-02T08:30:00.000Z,"sale, spring",No\n'
)
BITLY = (
    "Link,Custom Link,Date created,Title,Destination URL,Engagements,Status\n"
    'https://bit.ly/3xYz,https://go.example/Spring,2026-06-01T08:30:00+0000,"Spring, all of it",https://shop.example/?a=1,'
    '"1,204",Active\n'
)
SHORTIO = (
    "idString,shortURL,originalPath,originalURL,title,clicks,createdAt,updatedAt,expiresAt,createdBy,tags\n"
    "lnk_1,https://go.example/Spring,Spring,https://shop.example/?a=1,Spring,1204,2026-06-01T08:30:00.000Z,,"
    '2030-06-01T08:30:00.000Z,ann@example.com,"sale,spring"\n'
)
REBRANDLY = (
    "id,createdAt,shortUrl,domain,slashtag,destination,title,clicks,favourite\n"
    "abc1,2026-06-01T08:30:00.000Z,go.example/Spring,go.example,Spring,https://shop.example/?a=1,Spring,1204,true\n"
)
SHLINK = (
    '"createdAt","domain","shortCode","shortUrl","longUrl","title","tags","visits"\n'
    '"2026-06-01T08:30:00+00:00","go.example","Spring","https://go.example/Spring","https://shop.example/?a=1","Spring",'
    '"sale|spring","1204"\n'
)
YOURLS = "source,target,hits\r\n/Spring/,https://shop.example/?a=1,1204\r\n"

SHLINK_JSON = {
    "shortUrls": {
        "data": [
            {
                "shortCode": "Spring", "shortUrl": "https://go.example/Spring", "longUrl": "https://shop.example/?a=1",
                "dateCreated": "2026-06-01T08:30:00+00:00", "tags": ["sale", "spring"], "domain": "go.example",
                "title": "Spring", "crawlable": True, "forwardQuery": False, "hasRedirectRules": True,
                "meta": {"validSince": "2026-06-01T08:30:00Z", "validUntil": "2030-06-01T08:30:00Z", "maxVisits": 2000},
                "visitsSummary": {"total": 1204, "nonBots": 1200, "bots": 4},
                "redirectRules": [
                    {
                        "longUrl": "https://shop.example/de", "priority": 1,
                        "conditions": [
                            {"type": "geolocation-country-code", "matchKey": None, "matchValue": "DE"},
                            {"type": "device", "matchKey": None, "matchValue": "android"},
                            {"type": "query-param", "matchKey": "a", "matchValue": "1"},
                            {"type": "any-value-query-param", "matchKey": "b", "matchValue": None},
                            {"type": "before-date", "matchKey": None, "matchValue": "2030-01-01T00:00:00+00:00"},
                        ],
                    },
                    {"longUrl": "https://shop.example/m", "conditions": [{"type": "device", "matchValue": "mobile"}]},
                ],
            }
        ],
        "pagination": {"currentPage": 1, "pagesCount": 1, "totalItems": 1},
    }
}  # fmt: skip
DUB_JSON = [
    {
        "id": "link_1", "domain": "go.example", "key": "Spring", "shortLink": "https://go.example/Spring",
        "url": "https://shop.example/?a=1", "archived": False, "expiresAt": "2030-06-01T08:30:00.000Z",
        "expiredUrl": "https://shop.example/over", "password": None, "ios": "https://apps.example/i",
        "android": "https://apps.example/a", "geo": {"DE": "https://shop.example/de", "FR": "https://shop.example/fr"},
        "utm_source": "paper", "title": "Spring", "description": "All of it", "image": "https://img.example/1.png",
        "comments": "by hand", "tags": [{"id": "tag_1", "name": "sale", "color": "red"}], "doIndex": True, "clicks": 1204,
        "leads": 3, "createdAt": "2026-06-01T08:30:00.000Z", "updatedAt": "2026-06-02T08:30:00.000Z", "proxy": True,
        "testVariants": [{"url": "https://shop.example/b", "percentage": 50}], "qrCode": "https://api.dub.co/qr",
    }
]  # fmt: skip
KUTT_JSON = {
    "limit": 10, "skip": 0, "total": 1,
    "data": [
        {
            "id": "6b1d", "address": "Spring", "banned": False, "created_at": "2026-06-01T08:30:00.000Z",
            "updated_at": "2026-06-01T08:30:00.000Z", "expire_in": "2030-06-01T08:30:00.000Z", "password": False,
            "description": "by hand", "domain": "go.example", "link": "https://go.example/Spring",
            "target": "https://shop.example/?a=1", "visit_count": 1204,
        }
    ],
}  # fmt: skip
YOURLS_JSON = {
    "links": {
        "link_1": {
            "shorturl": "https://go.example/Spring", "url": "https://shop.example/?a=1", "title": "Spring",
            "timestamp": "2026-06-01 08:30:00", "ip": "203.0.113.7", "clicks": "1204",
        }
    },
    "stats": {"total_links": "1", "total_clicks": "1204"}, "statusCode": "200", "message": "success",
}  # fmt: skip
REBRANDLY_JSON = [
    {
        "id": "abc1", "title": "Spring", "slashtag": "Spring", "destination": "https://shop.example/?a=1",
        "shortUrl": "go.example/Spring", "domain": {"id": "d1", "ref": "/domains/d1", "fullName": "go.example", "active": True},
        "createdAt": "2026-06-01T08:30:00.000Z", "updatedAt": "2026-06-01T08:30:00.000Z", "clicks": 1204,
        "favourite": False, "forwardParameters": True, "https": True, "status": "active",
    }
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "fields"),
    [
        pytest.param("dub", DUB, {"tags": ["sale", "spring"]}, id="dub"),
        pytest.param("bitly", BITLY, {"title": "Spring, all of it"}, id="bitly"),
        pytest.param(
            "shortio",
            SHORTIO,
            {"title": "Spring", "tags": ["sale", "spring"], "expires_at": AT.replace(year=2030)},
            id="shortio",
        ),
        pytest.param("rebrandly", REBRANDLY, {"title": "Spring"}, id="rebrandly"),
        pytest.param("rebrandly", REBRANDLY_JSON, {"title": "Spring", "forward_query": True}, id="rebrandly json"),
        pytest.param("shlink", SHLINK, {"title": "Spring", "tags": ["sale", "spring"]}, id="shlink"),
        pytest.param(
            "shlink",
            SHLINK_JSON,
            {
                "title": "Spring", "tags": ["sale", "spring"], "indexed": True, "forward_query": False, "starts_at": AT,
                "expires_at": AT.replace(year=2030), "max_clicks": 796,
                "rules": [
                    {
                        "url": "https://shop.example/de",
                        "when": {
                            "countries": ["DE"], "os": ["android"], "query": {"a": "1", "b": None},
                            "before": "2030-01-01T00:00:00+00:00",
                        },
                    },
                    {"url": "https://shop.example/m", "when": {"devices": ["mobile"]}},
                ],
            },
            id="shlink json",
        ),
        pytest.param("yourls", YOURLS, {}, id="yourls"),
        pytest.param("yourls", YOURLS_JSON, {"title": "Spring"}, id="yourls json"),
        pytest.param(
            "yourls",
            "keyword,url,title,timestamp,ip,clicks\nSpring,https://shop.example/?a=1,Spring,2026-06-01 08:30:00,::1,1204\n",
            {"title": "Spring"},
            id="yourls table",
        ),
        pytest.param(
            "kutt", KUTT_JSON, {"notes": "by hand", "expires_at": AT.replace(year=2030)}, id="kutt json"
        ),
        pytest.param(
            "dub",
            DUB_JSON,
            {
                "title": "Spring", "notes": "by hand", "tags": ["sale"], "indexed": True, "utm_source": "paper",
                "og_description": "All of it", "og_image": "https://img.example/1.png", "expires_at": AT.replace(year=2030),
                "expired_url": "https://shop.example/over", "ios_url": "https://apps.example/i",
                "android_url": "https://apps.example/a",
                "rules": [
                    {"url": "https://shop.example/de", "when": {"countries": ["DE"]}},
                    {"url": "https://shop.example/fr", "when": {"countries": ["FR"]}},
                ],
            },
            id="dub json",
        ),
    ],
)  # fmt: skip
def test_a_link_of_each_shortener_is_understood(name, file, fields):
    """Key with its case, destination, clicks apart, time of birth, and all that a link of ours can hold; the catalogue takes it."""
    found = moved(name, file, default_domain="go.example")

    (link,) = found.links
    assert isinstance(link, Moving), link
    told = dict(link.fields)
    metadata = told.pop("metadata")
    source_id = told.pop("external_id")
    assert told == {"domain": "go.example", "key": "Spring", "url": "https://shop.example/?a=1"} | fields
    assert (metadata["imported_from"], metadata["imported_clicks"]) == (name, 1204)
    assert source_id == link.source_id
    assert source_id.startswith(f"{name}:")
    assert link.created_at in (AT, None)
    assert (link.created_at is None) == (file is YOURLS)
    assert found.unknown == []
    assert checked_fields(link.fields)


@pytest.mark.parametrize(
    ("name", "file", "left_out"),
    [
        ("shortio", SHORTIO, ["updatedAt", "createdBy"]),
        ("yourls", YOURLS_JSON, ["ip"]),
        ("kutt", KUTT_JSON, ["updated_at"]),
        ("dub", DUB, ["Updated at"]),
        ("bitly", BITLY, []),
    ],
)
def test_what_is_left_out_on_purpose_is_told(name, file, left_out):
    """Who made a link is a person's name or address."""
    assert moved(name, file, default_domain="go.example").left_out == left_out


def test_a_column_that_means_nothing_is_told():
    """Whatever a shortener adds tomorrow."""
    found = moved("dub", DUB.replace("Leads", "Applause").replace("Short link", "SHORT_LINK"))

    assert found.unknown == ["Applause"]
    assert isinstance(found.links[0], Moving)


@pytest.mark.parametrize(
    ("name", "file", "changes"),
    [
        pytest.param("dub", DUB_JSON, ["proxy is kept", "testVariants is kept"], id="what ours cannot do"),
        pytest.param("shlink", SHLINK_JSON, ["of 2000 clicks 1204 were made there; 796 are left"], id="limits"),
        pytest.param(
            "dub", DUB.replace("go.example/Spring", "go.example/blog/Spring 🌷!"),
            ["key 'blog/Spring 🌷!' became 'blog-Spring'; its old address does not lead here"], id="a key",
        ),
        pytest.param("dub", DUB.replace(",No\n", ",Yes\n"), ["Archived is 'Yes' there; the link leads on here"], id="hidden"),
        pytest.param("dub", DUB.replace("1204", "many"), ["Clicks 'many' is no number"], id="clicks"),
        pytest.param("dub", DUB.replace("2026-06-01T08", "in June"), ["Created at 'in June"], id="a time of birth"),
        pytest.param(
            "bitly", BITLY.replace("Spring, all of it", "x" * 300), ["title was cut to 255 characters"], id="a long title"
        ),
        pytest.param(
            "shlink", SHLINK.replace("sale|spring", "|".join(f"t{n}" for n in range(60))), ["10 of 60 tags"], id="tags"
        ),
        pytest.param(
            "shlink",
            [{"shortCode": "a", "shortUrl": "https://s.example/a", "longUrl": "https://x.example", "hasRedirectRules": True}],
            ["has redirect rules, which the file does not hold"],
            id="rules that are elsewhere",
        ),
        pytest.param(
            "shortio",
            [{"path": "a", "shortURL": "https://s.example/a", "originalURL": "https://x.example", "redirectType": 303}],
            ["redirectType '303' is none of ours"],
            id="a status",
        ),
    ],
)  # fmt: skip
def test_what_is_changed_is_told(name, file, changes):
    """One sentence for each."""
    (link,) = moved(name, file).links

    assert isinstance(link, Moving), link
    assert len(link.changes) == len(changes), link.changes
    for told, expected in zip(link.changes, changes, strict=True):
        assert expected in told


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        pytest.param("kutt", {"password": True}, "asks for a password", id="a password"),
        pytest.param("dub", {"password": "secret"}, "asks for a password", id="a password in words"),
        pytest.param("kutt", {"banned": True}, "is banned there", id="banned"),
        pytest.param("bitly", {"Status": "Deleted"}, "is deleted there", id="deleted"),
        pytest.param("kutt", {"expire_in": "soon"}, "would never end", id="an end that cannot be read"),
        pytest.param(
            "shlink", {"meta": {"maxVisits": "few"}}, "would never end", id="a limit that cannot be read"
        ),
        pytest.param("shlink", {"meta": {"maxVisits": 3}, "visitsCount": 3}, "used up", id="used up"),
        pytest.param("shlink", {"meta": {"maxVisits": 0}}, "used up", id="never usable"),
        pytest.param("dub", {"key": "_root"}, "root of its domain", id="dub's root"),
        pytest.param("dub", {"key": "🌷"}, "nothing is left", id="a key of flowers"),
        pytest.param("dub", {"key": "x" * 300}, "has the key", id="a key too long"),
        pytest.param(
            "dub", {"shortLink": "ftp://b.example/x", "domain": ""}, "none on the web", id="another scheme"
        ),
        pytest.param(
            "dub", {"shortLink": "javascript:alert(1)", "domain": ""}, "which is none", id="a script"
        ),
        pytest.param("dub", {"domain": "<script>"}, "which is none", id="a host that is none"),
        pytest.param(
            "dub", {"shortLink": "https://a@b.example/x", "key": ""}, "none on the web", id="a user"
        ),
        pytest.param(
            "dub", {"shortLink": "https://[::1/x", "key": ""}, "which is none", id="half an address"
        ),
        pytest.param(
            "shlink",
            {
                "redirectRules": [
                    {"longUrl": "https://x.example", "conditions": [{"type": "moon", "matchValue": "full"}]}
                ]
            },
            "which ours cannot say",
            id="a condition of its own",
        ),
        pytest.param("shlink", {"redirectRules": ["x"]}, "cannot be read", id="a rule that is none"),
        pytest.param(
            "shlink",
            {
                "redirectRules": [
                    {
                        "longUrl": "https://x.example",
                        "conditions": [{"type": "device", "matchValue": d} for d in ("ios", "android")],
                    }
                ]
            },
            "two os at once",
            id="conditions that exclude each other",
        ),
    ],
)
def test_a_link_that_would_do_something_else_is_refused(name, row, reason):
    """It names its old address, its row and why; the others go on."""
    plain = {
        "kutt": {"address": "b", "link": "https://go.example/b", "target": "https://x.example"},
        "dub": {
            "key": "b",
            "domain": "go.example",
            "shortLink": "https://go.example/b",
            "url": "https://x.example",
        },
        "bitly": {"Link": "https://go.example/b", "Destination URL": "https://x.example"},
        "shlink": {"shortCode": "b", "shortUrl": "https://go.example/b", "longUrl": "https://x.example"},
    }[name]

    wrong, right = moved(name, [plain | row, plain]).links

    assert isinstance(wrong, Refused), wrong
    assert (wrong.number, reason in wrong.reason) == (1, True), wrong.reason
    assert isinstance(right, Moving)


def test_a_row_with_too_few_cells_is_refused_with_its_number():
    """The header is row 1, as in a spreadsheet."""
    found = moved("dub", DUB + "https://go.example/b,https://x.example\n")

    assert found.links[1] == Refused(3, "", "has 2 cells where the header has 11")


def test_a_link_without_a_host_needs_one():
    """YOURLS' tables name none: the caller's choice, then the first link domain, else it is refused."""
    assert (
        moved("yourls", YOURLS, domain="a.example", default_domain="b.example").links[0].fields["domain"]
        == "a.example"
    )
    assert moved("yourls", YOURLS, default_domain="b.example").links[0].fields["domain"] == "b.example"
    assert "--domain" in moved("yourls", YOURLS).links[0].reason


def test_links_can_be_moved_to_another_host():
    """It is told, for the old address then leads nowhere; the id stays that of the old address."""
    (link,) = moved("shlink", SHLINK, domain="new.example").links

    assert link.fields["domain"] == "new.example"
    assert link.changes == ("moved from go.example to new.example",)
    assert link.source_id == moved("shlink", SHLINK).links[0].source_id == "shlink:go.example/Spring"


def test_hosts_that_stay_with_the_rival_are_told():
    """bit.ly does not move with anybody."""
    (note,) = moved("bitly", BITLY.replace("https://go.example/Spring", "")).notes

    assert "1 links are at bit.ly, which stays with Bitly" in note
    assert moved("bitly", BITLY, domain="go.example").notes == []
    assert moved("bitly", BITLY).links[0].fields["metadata"]["imported_address"] == "https://bit.ly/3xYz"


@pytest.mark.parametrize(
    ("name", "other"), [("dub", SHLINK), ("shlink", BITLY), ("yourls", REBRANDLY), ("kutt", SHORTIO)]
)
def test_another_ones_file_is_refused(name, other):
    """With what it has and what was looked for."""
    with pytest.raises(InvalidInput, match="so it is no export of"):
        moved(name, other)


@pytest.mark.parametrize(
    "written",
    [
        "2026-06-01T08:30:00Z", "2026-06-01T08:30:00.000Z", "2026-06-01T10:30:00+02:00", "2026-06-01T08:30:00+0000",
        "2026-06-01 08:30:00", "2026-06-01 08:30:00 UTC", "20260601T083000Z", 1780302600, 1780302600000, "1780302600",
        "1780302600000", 1780302600.0, "Mon Jun 01 2026 08:30:00 GMT+0000 (Coordinated Universal Time)",
        "Mon Jun 01 2026 10:30:00 GMT+0200",
    ],
)  # fmt: skip
def test_times_are_read_however_they_are_written(written):
    """What says no zone is UTC."""
    assert moment(written) == AT


@pytest.mark.parametrize(
    "written", ["", "soon", "06/01/2026", "2026-13-01", "0001-01-01T00:00:00+14:00", "1e99", "nan"]
)
def test_what_is_no_time_is_refused(written):
    """Also what could be two: June 1st or January 6th."""
    with pytest.raises(ValueError):  # whatever Python says of it; the reader says it anew
        moment(written)


@pytest.mark.parametrize("rival", RIVALS.values(), ids=lambda rival: rival.name)
def test_the_table_of_a_rival_holds_together(rival):
    """Every meaning is a field that the catalogue knows or one that has a reader, and the columns are described somewhere."""
    from goodanalytics.core.link_fields import FIELDS

    meanings = set(rival.columns.values())
    assert meanings - {DROP} <= set(READERS) | set(FIELDS)
    assert {"url", "clicks", "created_at"} <= meanings
    assert all(page.startswith("https://") for page in rival.pages)
    assert all(rival.meaning(column) for column in rival.columns)
