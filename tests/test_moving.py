"""Moving house, on a real database: what a file holds is here afterwards, once, and all of it can leave again."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from goodanalytics import Analytics, Config, moving
from goodanalytics.core.links import Link, password_hash
from goodanalytics.errors import InvalidInput
from goodanalytics.store import catalog
from tests.conftest import FrozenClock
from tests.core.test_moving_own import FULL

AT = datetime(2026, 6, 1, 8, 30, tzinfo=UTC)


@pytest.fixture
async def analytics(shared_database_url: str, config: Config) -> AsyncIterator[Analytics]:
    own = dataclasses.replace(config, workspace=uuid.uuid4(), link_domains=["go.example"], worker=False)
    analytics = Analytics(shared_database_url, own)
    yield analytics
    await analytics.stop()


def dub(*rows: tuple[str, str] | tuple[str, str, str]) -> bytes:
    """A Dub export of short addresses and destinations, and ids where they are given."""
    lines = ["Short link,Destination URL,Clicks,Created at,Link ID"]
    lines += [f"{row[0]},{row[1]},7,2026-06-01T08:30:00Z,{row[2] if len(row) > 2 else ''}" for row in rows]
    return "\n".join(lines).encode()


async def here(analytics: Analytics) -> list[Link]:
    """All links of the workspace, archived ones too, by key."""
    found = [json.loads(line) async for piece in analytics.links.export() for line in piece.splitlines()]
    ids = [uuid.UUID(one["id"]) for one in found if one["kind"] == "link"]
    return sorted([await analytics.links.get(one) for one in ids], key=lambda link: link.key)


async def test_links_are_brought_in_with_what_they_had(analytics):
    """Key, destination, time of birth, clicks apart; the first row of its history tells who."""
    report = await analytics.links.import_(
        dub(("https://go.example/Spring", "https://shop.example/", "l1")), "dub"
    )

    (link,) = await here(analytics)
    assert (report.total, report.created, report.already, report.refused) == (1, 1, 0, [])
    assert (link.domain, link.key, link.url) == ("go.example", "Spring", "https://shop.example/")
    assert (link.created_at, link.external_id) == (AT, "dub:l1")
    assert link.metadata == {"imported_from": "dub", "imported_id": "l1", "imported_clicks": 7}


async def test_a_second_run_changes_nothing(analytics, clock: FrozenClock):
    """Not the links, not their times, and not what was done to them here since."""
    file = dub(*((f"https://go.example/k{n}", f"https://shop.example/{n}") for n in range(5)))
    await analytics.links.import_(file, "dub")
    first = await here(analytics)
    await analytics.links.update(first[1], url="https://shop.example/new", key="moved")
    await analytics.links.archive(first[2])
    before = await here(analytics)
    clock.advance(timedelta(days=1))

    report = await analytics.links.import_(file, "dub")

    assert (report.created, report.already, report.refused) == (0, 5, [])
    assert await here(analytics) == before


async def test_a_file_with_ids_finds_the_links_of_one_without(analytics):
    """And the other way round: the same shortener's link at the same address is the same link."""
    without = dub(
        ("https://go.example/a", "https://shop.example/a"), ("https://go.example/b", "https://shop.example/b")
    )
    with_ids = dub(
        ("https://go.example/a", "https://shop.example/a", "l1"),
        ("https://go.example/c", "https://shop.example/c", "l3"),
    )

    await analytics.links.import_(without, "dub")
    second = await analytics.links.import_(with_ids, "dub")
    third = await analytics.links.import_(dub(("https://go.example/c", "https://shop.example/c")), "dub")

    assert (second.created, second.already) == (1, 1)
    assert (third.created, third.already) == (0, 1)
    assert [link.key for link in await here(analytics)] == ["a", "b", "c"]


MIXED = dub(
    ("https://go.example/fine", "https://shop.example/"),
    ("https://go.example/blog/post", "https://shop.example/post"),
    ("https://go.example/taken", "https://shop.example/taken"),
    ("https://go.example/robots", "https://shop.example/robots"),
    ("https://go.example/script", "javascript:alert(1)"),
    ("https://go.example/fine", "https://shop.example/other", "l6"),
    ("https://go.example/fine", "https://shop.example/", ""),
    ("https://go.example", "https://shop.example/root"),
)


async def test_every_row_is_accounted_for(analytics):
    """What is created, was here and is refused are all rows, and each that was refused has its number, address and reason."""
    await analytics.links.create(url="https://own.example", domain="go.example", key="taken")

    report = await analytics.links.import_(MIXED, "dub")

    assert (report.total, report.done, report.created, report.already, len(report.refused)) == (8, 8, 2, 0, 6)
    assert [(note.row, note.address, note.text.partition(" ")[0]) for note in report.changed] == [
        (3, "go.example/blog/post", "key")
    ]
    told = {note.row: (note.address, note.text) for note in report.refused}
    assert sorted(told) == [4, 5, 6, 7, 8, 9]
    assert "go.example/taken is in use" in told[4][1]
    assert "browsers and crawlers" in told[5][1]
    assert "must be an absolute http or https address" in told[6][1]
    assert "go.example/fine is in use" in told[7][1]
    assert told[8] == ("go.example/fine", "is the same link as row 2")
    assert told[9] == ("https://go.example", "is the root of its domain; set the domain's root_url instead")
    assert [link.key for link in await here(analytics)] == ["blog-post", "fine", "taken"]


async def test_a_dry_run_reports_what_a_run_would_and_leaves_everything(analytics):
    """Also what only the database knows."""
    await analytics.links.create(url="https://own.example", domain="go.example", key="taken")
    before = await here(analytics)

    dry = await analytics.links.import_(MIXED, "dub", dry_run=True)
    after = await here(analytics)
    wet = await analytics.links.import_(MIXED, "dub")

    assert after == before
    assert dry.is_dry_run
    assert dataclasses.replace(dry, is_dry_run=False) == wet


async def test_where_case_does_not_matter_keys_are_folded_and_clashes_refused(analytics):
    """Folding is told, for the link list shows another key than the file; of two that become one the first is kept."""
    await analytics.links.set_domain("go.example", case_sensitive=False)

    report = await analytics.links.import_(
        dub(
            ("https://go.example/Promo", "https://a.example"),
            ("https://go.example/PROMO", "https://b.example"),
        ),
        "dub",
    )

    (link,) = await here(analytics)
    assert (link.key, link.url) == ("promo", "https://a.example")
    assert [note.text for note in report.changed] == [
        "key 'Promo' is kept as 'promo': case does not matter on go.example"
    ]
    assert [(note.row, note.address) for note in report.refused] == [(3, "go.example/PROMO")]


async def test_keys_of_the_hosts_own_routes_are_refused(analytics):
    """On a link domain, where the key would hide the route."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    analytics.wrap(Starlette(routes=[Route("/login", lambda _: None)]))

    report = await analytics.links.import_(dub(("https://go.example/Login", "https://a.example")), "dub")

    assert ["route" in note.text for note in report.refused] == [True]


async def test_many_links_come_in_batches_with_their_progress(analytics, monkeypatch):
    """Each batch is a transaction: what was brought in before a break stays, and the next run goes on behind it."""
    monkeypatch.setattr(moving, "BATCH", 10)
    file = dub(*((f"https://go.example/k{n:02}", f"https://shop.example/{n}") for n in range(25)))
    seen = []
    create_many = catalog.create_many

    async def failing(conn, t, drafts, by):
        if len(seen) == 3:
            raise RuntimeError("the cable")
        return await create_many(conn, t, drafts, by)

    monkeypatch.setattr(catalog, "create_many", failing)
    with pytest.raises(RuntimeError):
        await analytics.links.import_(file, "dub", progress=lambda report: seen.append(report.done))
    assert seen == [0, 10, 20]
    assert len(await here(analytics)) == 20
    monkeypatch.undo()

    report = await analytics.links.import_(file, "dub")

    assert (report.created, report.already) == (5, 20)


async def test_a_batch_takes_the_same_number_of_statements_however_large_it_is(analytics):
    """Links are never brought in one by one."""
    from sqlalchemy import event

    counted: list[str] = []

    async def statements(file: bytes) -> int:
        counted.clear()
        await analytics.links.import_(file, "dub")
        return len(counted)

    engine = analytics.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: counted.append(statement))
    few = await statements(dub(*((f"https://go.example/a{n}", "https://a.example") for n in range(2))))
    many = await statements(dub(*((f"https://go.example/b{n}", "https://a.example") for n in range(400))))

    assert few == many


async def stored(analytics: Analytics, *links: Link) -> list[Link]:
    """*links*, in the analytics' workspace."""
    by = catalog.Change(
        workspace_id=analytics.config.workspace, now=analytics.config.clock(), actor=None, new_id=uuid.uuid4
    )
    own = [msgspec.structs.replace(link, workspace_id=by.workspace_id, partner_id=None) for link in links]
    async with analytics.database.begin() as conn:
        done = await catalog.create_many(
            conn, analytics.database.tables, [catalog.Draft(one) for one in own], by
        )
    return [one.given() for one in done]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
async def test_everything_that_leaves_comes_back_exactly(analytics, kind):
    """Every field of every link, archived and protected ones too, into another workspace; a second time changes nothing."""
    links = await stored(
        analytics,
        FULL,
        msgspec.structs.replace(FULL, id=uuid.uuid4(), key="live", archived_at=None, external_id=None),
        *(Link(
            workspace_id=uuid.uuid4(), id=uuid.uuid4(), domain="go.example", key=f"k{n}", url="https://a.example",
            created_at=AT + timedelta(minutes=n % 7), updated_at=AT,
        ) for n in range(450)),
    )  # fmt: skip
    other = uuid.uuid4()

    file = b"".join([piece async for piece in analytics.links.export(kind, passwords=True)])
    report = await analytics.links.import_(file, "goodanalytics", workspace_id=other)
    again = await analytics.links.import_(file, "goodanalytics", workspace_id=other)

    assert (report.created, report.refused, report.unknown_columns) == (452, [], [])
    assert (again.created, again.already, again.refused) == (0, 452, [])
    back = {link.id: await analytics.links.get(link, workspace_id=other) for link in links[:20]}
    assert back == {link.id: msgspec.structs.replace(link, workspace_id=other) for link in links[:20]}
    assert (
        b"".join([p async for p in analytics.links.export(kind, passwords=True, workspace_id=other)]) == file
    )


PIXEL = {
    "root_url": "https://shop.example/",
    "not_found_url": "https://shop.example/missing",
    "expired_url": "https://shop.example/over",
    "case_sensitive": False,
    "ios_app_ids": ["ABCDE12345.com.example.app"],
    "android_apps": [{"package_name": "com.example.app", "sha256_fingerprints": [":".join(["AB"] * 32)]}],
}


async def furnished(analytics: Analytics) -> None:
    """Two domains, two partners, of whom one is closed, and a link of each."""
    await analytics.links.set_domain("go.example", **PIXEL)
    await analytics.links.set_domain("other.example", root_url="https://other.example/away")
    ada = await analytics.partners.create(
        code="Ada", name="Ada", email="ada@a.example", external_id="u1", visitor_id=uuid.uuid4(),
        commission={"kind": "fixed", "value": 500, "currency": "EUR", "on": "lead", "window_days": 30},
        metadata={"tier": 2},
    )  # fmt: skip
    bob = await analytics.partners.create(code="bob", name="Bob", commission={"value": 1_000})
    await analytics.links.create(url="https://a.example", key="ada", partner_id=ada.id)
    await analytics.links.create(url="https://b.example", key="bob", partner_id=bob.id)
    await analytics.partners.close(bob)


async def held(analytics: Analytics, workspace_id: uuid.UUID) -> dict[str, list[object]]:
    """All links, domains and partners of a workspace, as though they were in another one."""
    links = await analytics.links.list(archived=None, sort="key", limit=200, workspace_id=workspace_id)
    partners = await analytics.partners.list(limit=200, workspace_id=workspace_id)
    domains = await analytics.links.domains(workspace_id=workspace_id)
    found = {"links": links.items, "partners": partners.items, "domains": domains}
    return {
        name: [msgspec.structs.replace(one, workspace_id=uuid.UUID(int=0)) for one in items]
        for name, items in found.items()
    }


@pytest.mark.parametrize("kind", ["jsonl", "json"])
async def test_domains_and_partners_move_with_their_links(analytics, kind):
    """Into an empty workspace: all three are equal there, the link of a closed partner too; a second time changes nothing."""
    await furnished(analytics)
    other = uuid.uuid4()
    before = await held(analytics, analytics.config.workspace)

    file = b"".join([piece async for piece in analytics.links.export(kind)])
    dry = await analytics.links.import_(file, "goodanalytics", workspace_id=other, dry_run=True)
    nothing = await held(analytics, other)
    report = await analytics.links.import_(file, "goodanalytics", workspace_id=other)
    again = await analytics.links.import_(file, "goodanalytics", workspace_id=other)

    assert nothing == {"links": [], "partners": [], "domains": []}
    assert dataclasses.replace(dry, is_dry_run=False) == report
    assert (report.total, report.created, report.domains, report.partners) == (6, 2, 2, 2)
    assert (report.refused, report.changed, report.unknown_columns) == ([], [], [])
    assert (again.created, again.domains, again.partners, again.already) == (0, 0, 0, 6)
    assert await held(analytics, other) == before
    assert [len(items) for items in before.values()] == [2, 2, 2]


async def test_what_is_here_is_not_overwritten_and_a_clash_is_told(analytics):
    """A domain's settings and a partner's terms stay; a code that is somebody else's takes neither partner nor their link."""
    await furnished(analytics)
    file = b"".join([piece async for piece in analytics.links.export()])
    other = uuid.uuid4()
    await analytics.links.set_domain("go.example", root_url="https://mine.example/", workspace_id=other)
    await analytics.links.create(url="https://a.example", domain="other.example", key="A", workspace_id=other)
    mine = await analytics.partners.create(code="ADA", name="Another Ada", workspace_id=other)
    await analytics.partners.create(code="carl", name="Carl", external_id="u1", workspace_id=other)

    report = await analytics.links.import_(file, "goodanalytics", workspace_id=other)

    domain = await analytics.links.get_domain("go.example", workspace_id=other)
    assert (domain.root_url, domain.case_sensitive) == ("https://mine.example/", True)
    assert await analytics.partners.by_code("ada", workspace_id=other) == mine
    assert (report.created, report.domains, report.partners, report.already) == (1, 1, 1, 1)
    assert [(note.address, note.text.partition(" ")[0]) for note in report.refused] == [
        ("Ada", "code"),
        ("go.example/ada", "partner_id"),
    ]


async def test_links_that_are_here_are_folded_by_a_domain_that_comes_or_keep_it_out(analytics):
    """As by `set_domain`: two keys that would become one refuse the settings, and the links that are there stay."""
    await analytics.links.set_domain("go.example", case_sensitive=False)
    await analytics.links.set_domain("other.example", case_sensitive=False)
    file = b"".join([piece async for piece in analytics.links.export()])
    other = uuid.uuid4()
    for host, key in (("go.example", "A"), ("go.example", "a"), ("other.example", "B")):
        await analytics.links.create(url="https://a.example", domain=host, key=key, workspace_id=other)

    report = await analytics.links.import_(file, "goodanalytics", workspace_id=other)

    assert (report.domains, [note.address for note in report.refused]) == (1, ["go.example"])
    kept = await analytics.links.list(sort="key", workspace_id=other)
    assert [f"{link.domain}/{link.key}" for link in kept.items] == [
        "go.example/A",
        "go.example/a",
        "other.example/b",
    ]


async def test_settings_of_domains_stay_behind_when_all_links_get_another(analytics):
    """They are said of hosts that no link is on any more; the report says so."""
    await furnished(analytics)
    file = b"".join([piece async for piece in analytics.links.export()])
    other = uuid.uuid4()

    report = await analytics.links.import_(file, "goodanalytics", domain="new.example", workspace_id=other)

    assert await analytics.links.domains(workspace_id=other) == []
    assert (report.created, report.partners, report.refused) == (2, 2, [])
    assert report.notes == ["The settings of 2 domains stay behind, for all links go to new.example"]


HEADER = '{"kind":"goodanalytics","version":1}'
STAMP = '"created_at":"2026-06-01T00:00:00Z","updated_at":"2026-06-01T00:00:00Z"'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param(f'{{"kind":"domain","host":"a b",{STAMP}}}', "domain is", id="host"),
        pytest.param(f'{{"kind":"domain","host":"go.example","ios_app_ids":[{{}}],{STAMP}}}', "ios_app_ids", id="list"),
        pytest.param(
            f'{{"kind":"domain","host":"go.example","root_url":"https://go.example/",{STAMP}}}', "root_url", id="loop"
        ),
        pytest.param('{"kind":"domain","host":"go.example"}', "created_at", id="no times"),
        pytest.param(
            '{"kind":"domain","host":"go.example","created_at":"0001-01-01T00:00:00+14:00",'
            '"updated_at":"2026-06-01T00:00:00Z"}', "no time that can be kept", id="before all time",
        ),
        pytest.param(
            f'{{"kind":"partner","id":"{uuid.UUID(int=4)}","code":"a/b","name":"A",{STAMP}}}', "code is", id="code"
        ),
        pytest.param(
            f'{{"kind":"partner","id":"{uuid.UUID(int=4)}","code":"a","name":"A","commission":{{"value":10001}},{STAMP}}}',
            "basis points", id="terms",
        ),
        pytest.param('{"kind":"planet"}', "is a 'planet'", id="kind"),
        pytest.param('{"kind":["link"]}', "is a ['link']", id="kind that is none"),
    ],
)  # fmt: skip
async def test_a_row_that_cannot_be_taken_is_told_by_its_number(analytics, row, reason):
    """And nothing of it is here afterwards."""
    report = await analytics.links.import_(f"{HEADER}\n{row}\n".encode(), "goodanalytics")

    assert [(note.row, reason in note.text) for note in report.refused] == [(2, True)], report.refused
    assert await held(analytics, analytics.config.workspace) == {"links": [], "partners": [], "domains": []}


async def test_a_file_of_a_later_version_is_refused_and_an_empty_one_of_ours_is_not(analytics):
    """What a later version means by its rows is not known here."""
    with pytest.raises(InvalidInput, match="version 2; up to 1 is read here"):
        await analytics.links.import_(b'{"kind":"goodanalytics","version":2}', "goodanalytics")

    empty = b"".join([piece async for piece in analytics.links.export()])
    assert (await analytics.links.import_(empty, "goodanalytics")).total == 0


async def test_a_plain_export_holds_no_password_and_says_which_links_it_cannot_bring_back(analytics):
    """They are refused, not opened."""
    await stored(
        analytics,
        msgspec.structs.replace(
            FULL, id=uuid.uuid4(), archived_at=None, password_hash=password_hash("x", b"0" * 16)
        ),
    )

    file = b"".join([piece async for piece in analytics.links.export("csv")])
    report = await analytics.links.import_(file, "goodanalytics", workspace_id=uuid.uuid4())

    assert b"scrypt" not in file
    assert report.created == 0
    assert ["export it with its passwords" in note.text for note in report.refused] == [True]


async def test_no_cell_of_an_export_is_run_by_a_spreadsheet(analytics):
    """A title of somebody else's is a text to whoever opens the list."""
    import csv
    import io

    await analytics.links.create(
        url="https://a.example", key="k", title='=HYPERLINK("https://evil.example","open")'
    )

    text = b"".join([piece async for piece in analytics.links.export("csv")]).decode()

    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert """'=HYPERLINK("https://evil.example","open")""" in cells


async def test_columns_that_mean_nothing_are_told_of_our_own_files_too(analytics):
    """As of any other's."""
    file = b"id,domain,key,url,created_at,updated_at,colour\n" + (
        f"{uuid.uuid4()},go.example,a,https://a.example,2026-06-01T00:00:00Z,2026-06-01T00:00:00Z,red\n".encode()
    )

    report = await analytics.links.import_(file, "goodanalytics", domain="new.example")

    assert (report.created, report.unknown_columns) == (1, ["colour"])
    assert [link.domain for link in await here(analytics)] == ["new.example"]


@pytest.mark.parametrize(
    ("file", "source", "reason"),
    [
        (b"", "dub", "empty"),
        (b"a,b\n1,2\n", "dub", "no export of Dub"),
        (b"a,b\n1,2\n", "goodanalytics", "no export of ours"),
        (b"a,b\n1,2\n", "tinyurl", "source is 'tinyurl'"),
        (dub(), "dub", ""),
    ],
)
async def test_a_file_that_is_another_ones_is_refused_as_a_whole(analytics, file, source, reason):
    """And one without a link is none to speak of."""
    if not reason:
        assert (await analytics.links.import_(file, source)).total == 0
        return
    with pytest.raises(InvalidInput, match=reason):
        await analytics.links.import_(file, source)


async def test_a_link_of_the_future_was_made_now(analytics, clock: FrozenClock):
    """Lists by time would show it first for ever."""
    clock.now = AT - timedelta(days=1)

    report = await analytics.links.import_(dub(("https://go.example/a", "https://a.example")), "dub")

    assert [link.created_at for link in await here(analytics)] == [clock.now]
    assert ["future" in note.text for note in report.changed] == [True]


async def test_workspaces_do_not_meet(analytics):
    """The same file in two workspaces makes the links of each."""
    file = dub(("https://go.example/a", "https://a.example", "l1"))
    first = await analytics.links.import_(file, "dub", workspace_id=uuid.uuid4())
    second = await analytics.links.import_(file, "dub")

    assert (first.created, second.created) == (1, 1)
