"""Links made, changed, archived and found: one, and a thousand in a call."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert

from goodanalytics.config import Config
from goodanalytics.core.link_conditions import Rule, Variant, When
from goodanalytics.core.links import opens
from goodanalytics.core.partners import PartnerStatus
from goodanalytics.errors import Conflict, InvalidInput, NotFound
from goodanalytics.facade.links import Links
from goodanalytics.facade.partners import Partners
from goodanalytics.link_registry import MAX_MANY
from goodanalytics.store.database import Database
from goodanalytics.store.listening import links_channel

SHOP = "https://shop.example/"
AT = datetime(2026, 11, 1, tzinfo=UTC)
ELSEWHERE = uuid.UUID(int=9)


@pytest.fixture
def links(config: Config, database: Database) -> Links:
    """The links of an app that answers every path of go.example, and has a page /login."""
    settings = dataclasses.replace(config, link_domains=["go.example"], link_app_schemes=["myapp"])
    return Links(settings, database, lambda: {"login"})


async def partner(links: Links, status: PartnerStatus = "active") -> uuid.UUID:
    made = await Partners(links.config, links.database).create(
        code=str(uuid.uuid4()), name="Ann", status=status
    )
    return made.id


# One -----------------------------------------------------------------------------------------------------------------


async def test_a_link_keeps_everything_that_was_said_of_it(links, clock):
    """Each field comes back from the database as it was given; nothing else is set."""
    said = {
        "url": "https://shop.example/lamps?a=1", "domain": "x.example", "key": "Lamps", "external_id": "p-1",
        "link_type": "campaign", "title": "Lamps", "notes": "for spring", "folder": "2026", "tags": ["a", "b"],
        "metadata": {"n": [1, {"x": None}]}, "utm_source": "mail", "utm_medium": "email", "utm_campaign": "c",
        "utm_content": "d", "utm_term": "e", "ios_url": "myapp://lamps", "android_url": SHOP,
        "rules": [Rule(url="https://shop.example/de", when=When(languages=["de"]), name="German")],
        "variants": [Variant(url=SHOP, weight=2, name="A"), Variant(url="https://shop.example/b", weight=1, name="B")],
        "starts_at": clock(), "expires_at": clock() + timedelta(days=1), "expired_url": "https://shop.example/late",
        "max_clicks": 5, "redirect_status": 307, "forward_path": True, "forward_query": False, "cloaked": True,
        "indexed": True, "og_title": "T", "og_description": "D", "og_image": "https://shop.example/a.png",
        "partner_id": await partner(links),
    }  # fmt: skip
    made = await links.create(**said)
    found = await links.get(made.id)

    assert found == made
    assert {name: getattr(found, name) for name in said} == said
    assert (found.created_at, found.updated_at, found.archived_at, found.has_password) == (
        clock(),
        clock(),
        None,
        False,
    )


async def test_a_password_is_kept_as_its_digest_and_can_be_cleared(links):
    """Nobody can read it back, the digest opens, and the history only tells that it came and went."""
    link = await links.create(url=SHOP, password="open sesame")
    kept = (await links.get(link)).password_hash
    cleared = await links.update(link, password=None)
    told = [one.changes for one in (await links.history(link)).items]

    assert kept.startswith("scrypt$")
    assert "sesame" not in kept
    assert opens("open sesame", kept)
    assert cleared.password_hash is None
    assert [(c["password"].old, c["password"].new) for c in told] == [(True, False), (False, True)]
    assert "scrypt" not in repr(told)


async def test_an_address_and_an_external_id_are_used_once(links):
    """The error names what is in use; another workspace and an archived link are not in the way."""
    first = await links.create(url=SHOP, key="a", external_id="e")
    with pytest.raises(Conflict, match=r"go\.example/a is in use"):
        await links.create(url=SHOP, key="a")
    with pytest.raises(Conflict, match="external_id 'e' is in use"):
        await links.create(url=SHOP, key="b", external_id="e")
    await links.create(url=SHOP, key="a", external_id="e", workspace_id=ELSEWHERE)
    await links.archive(first)
    second = await links.create(url=SHOP, key="a", external_id="e")

    assert (await links.find("GO.example", "a")).id == second.id
    assert (await links.get(first)).archived_at is not None


async def test_a_link_never_leads_to_itself(links):
    """Refused when it is made, changed, renamed or imported, below its app's path too; what is so already can still be retitled."""
    own = "https://go.example/lamps"
    with pytest.raises(InvalidInput, match="this short link itself"):
        await links.create(url=own, key="lamps")
    with pytest.raises(InvalidInput, match="this short link itself"):
        await links.create(url="https://shop.example/l/lamps", key="lamps", domain="shop.example")
    other = await links.create(url=own, key="sofas")
    for changes in (
        {"key": "lamps"},
        {"url": "https://go.example/sofas"},
        {"expired_url": "https://go.example/sofas?a=1"},
    ):
        with pytest.raises(InvalidInput, match="this short link itself"):
            await links.update(other, **changes)
    rows = [
        f"go.example/lamps,{own}",
        "shop.example/lamps,https://shop.example/l/lamps",
        "shop.example/sofas,https://shop.example/sofas",
    ]
    file = "\n".join(["ShortURL,DestinationURL", *rows])
    report = await links.import_(file.encode(), "rebrandly", dry_run=True)
    async with links.database.begin() as conn:
        row = {**other.to_row(), "id": links.config.new_id(), "key": "lamps"}
        await conn.execute(insert(links.database.tables.links), row)

    assert all("this short link itself" in one.text for one in report.refused)
    assert [one.address for one in report.refused] == ["go.example/lamps", "shop.example/lamps"]
    assert (await links.update(row["id"], title="Lamps")).title == "Lamps"


async def test_a_domain_never_leads_to_itself(links):
    """Neither its root to the root nor what is not found to what may not be found either."""
    for said in ({"root_url": "https://go.example/"}, {"not_found_url": "https://go.example/missing"}):
        with pytest.raises(InvalidInput, match="go round in circles"):
            await links.set_domain("go.example", **said)
    found = await links.set_domain("shop.example", not_found_url="https://shop.example/missing")

    assert found.not_found_url == "https://shop.example/missing"


async def test_a_taken_random_key_is_made_anew(links):
    """Whoever names no key never hears that one is taken."""
    ids = itertools.chain([uuid.UUID(int=n) for n in (5, 6, 5, 7, 8, 9)], iter(uuid.uuid4, None))
    lucky = dataclasses.replace(links, config=dataclasses.replace(links.config, new_id=lambda: next(ids)))
    taken = await links.create(url=SHOP, key="gaaaaaa")  # the key that the number 6 makes
    made = await lucky.create(url=SHOP)

    assert made.key not in ("", taken.key)


@pytest.mark.parametrize("key", ["login", "LOGIN", "apple-app-site-association"])
async def test_a_key_that_something_else_answers_is_refused(links, key):
    """On a link domain the host's own paths, and everywhere what browsers ask for; elsewhere /l/login clashes with nothing."""
    with pytest.raises(InvalidInput) as refused:
        await links.create(url=SHOP, key=key)
    elsewhere = await links.create(url=SHOP, key="login", domain="shop.example")
    with pytest.raises(InvalidInput):
        await links.update(elsewhere, domain="go.example")

    assert refused.value.where == "key"
    assert links.short_url(elsewhere) == "https://shop.example/l/login"


async def test_update_changes_every_field_and_leaves_the_others(links, clock):
    """Domain and key too; what is the same is no change and leaves no trace."""
    link = await links.create(url=SHOP, key="a", title="T", tags=["x"])
    clock.advance(timedelta(minutes=1))
    moved = await links.update(link, domain="x.example", key="b", url="https://shop.example/new", title=None)
    clock.advance(timedelta(minutes=1))
    same = await links.update(moved, title=None, tags=["x"])

    assert (moved.domain, moved.key, moved.url, moved.title, moved.tags) == (
        "x.example", "b", "https://shop.example/new", None, ["x"],
    )  # fmt: skip
    assert same == moved == await links.find("x.example", "b")
    assert await links.find("go.example", "a") is None
    assert len((await links.history(link)).items) == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"key": "taken"}, Conflict, id="a key in use"),
        pytest.param({"external_id": "taken"}, Conflict, id="an external id in use"),
        pytest.param({"url": None}, InvalidInput, id="no destination"),
        pytest.param({"key": None}, InvalidInput, id="no key"),
        pytest.param({"created_at": 1}, InvalidInput, id="what nobody may change"),
        pytest.param({"partner_id": uuid.UUID(int=3)}, InvalidInput, id="a partner that is none"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_whole(links, changes, error):
    """Nothing of it is written."""
    await links.create(url=SHOP, key="taken", external_id="taken")
    link = await links.create(url=SHOP, key="a")
    with pytest.raises(error):
        await links.update(link, title="T", **changes)

    assert await links.get(link) == link


async def test_an_archived_link_cannot_be_changed_or_archived(links):
    """It is read only: its address may be somebody else's."""
    link = await links.archive(await links.create(url=SHOP))
    for act in (links.update(link, title="T"), links.archive(link)):
        with pytest.raises(NotFound):
            await act


async def test_what_is_no_key_finds_nothing(links):
    """Whatever comes out of an address is asked for in peace."""
    assert [await links.find("go.example", key) for key in ("", "a/b", "\0", "x" * 300)] == [None] * 4


async def test_a_key_and_a_domain_that_are_none_are_left_out(links):
    """A form's empty field is none."""
    made = await links.create(url=SHOP, domain=None, key=None)
    same = await links.upsert("e", url=SHOP, domain=None, key=None)

    assert (made.domain, len(made.key), same.domain) == ("go.example", 7, "go.example")


async def test_a_closed_partner_gets_no_new_links(links):
    """A link that it has already stays its own."""
    closed = await partner(links, "closed")
    with pytest.raises(InvalidInput, match="closed"):
        await links.create(url=SHOP, partner_id=closed)


async def test_upsert_makes_once_and_then_changes(links):
    """By the external id; what is not given stays as it is."""
    with pytest.raises(InvalidInput) as refused:
        await links.upsert("p-1", title="T")
    made = await links.upsert("p-1", url=SHOP, title="T")
    changed = await links.upsert("p-1", url="https://shop.example/new")

    assert refused.value.where == "url"
    assert (changed.id, changed.key, changed.title, changed.url) == (
        made.id,
        made.key,
        "T",
        "https://shop.example/new",
    )


async def test_twenty_upserts_at_once_make_one_link(links):
    """Whoever loses the race finds the link that the winner made."""
    done = await asyncio.gather(*(links.upsert("p-1", url=f"{SHOP}{n}") for n in range(20)))

    assert len({link.id for link in done}) == 1
    assert len((await links.list()).items) == 1


async def test_a_request_key_makes_one_link(links):
    """The same again is handed out as it is now, another link under the key is a conflict."""
    first = await links.create(url=SHOP, request_key="k")
    await links.update(first, title="T")
    again = await links.create(url=SHOP, request_key="k")
    with pytest.raises(Conflict, match="used before"):
        await links.create(url="https://shop.example/other", request_key="k")

    assert (again.id, again.title) == (first.id, "T")
    assert len((await links.list()).items) == 1


# Many ----------------------------------------------------------------------------------------------------------------


async def test_one_bad_item_does_not_sink_the_others(links):
    """Each gets its result in its place: a link, or what is wrong with it."""
    await links.create(url=SHOP, key="taken")
    done = await links.create_many(
        [
            {"url": SHOP, "key": "a"},
            {"url": "nonsense"},
            {"url": SHOP, "key": "taken"},
            {"url": SHOP, "key": "a"},
            {"key": "no-url"},
            {"url": SHOP, "external_id": "e"},
            {"url": SHOP, "external_id": "e"},
            {"url": SHOP, "uri": SHOP},
        ]
    )

    assert [one.status for one in done] == ["created", *["refused"] * 4, "created", *["refused"] * 2]
    assert [type(one.error) for one in done if one.error] == [
        InvalidInput, Conflict, Conflict, InvalidInput, type(done[6].error), InvalidInput,
    ]  # fmt: skip
    assert isinstance(done[6].error, Conflict)
    assert {link.key for link in (await links.list()).items} == {"taken", "a", done[5].link.key}


async def test_many_are_changed_upserted_and_archived(links):
    """The results stand in the order of the items."""
    a, b, c = [one.link for one in await links.create_many([{"url": SHOP, "external_id": n} for n in "abc"])]
    changed = await links.update_many(
        [
            {"id": a.id, "key": "x"},
            {"id": b.id, "key": "x"},
            {"id": c.id, "external_id": "a"},
            {"id": uuid.UUID(int=1), "title": "T"},
            {"id": "nonsense", "title": "T"},
            {"id": a.id, "title": "twice"},
            {"id": c.id, "link_type": "long"},
        ]
    )
    upserted = await links.upsert_many(
        [{"external_id": "d", "url": SHOP}, {"external_id": "b", "title": "B"}, {"title": "nameless"}]
    )
    archived = await links.archive_many([a, b, uuid.UUID(int=1), "nonsense", a])

    assert [one.status for one in changed] == ["updated", *["refused"] * 6]
    assert [type(one.error).__name__ for one in changed[1:]] == [
        "Conflict", "NameTaken", "NotFound", "InvalidInput", "InvalidInput", "InvalidInput",
    ]  # fmt: skip
    assert [one.status for one in upserted] == ["created", "updated", "refused"]
    assert [one.status for one in archived] == ["archived", "archived", *["refused"] * 3]
    assert {link.external_id for link in (await links.list()).items} == {"c", "d"}


async def test_a_bulk_call_under_a_key_is_finished_and_not_done_twice(links):
    """What was made is handed out again, what was refused is tried again."""
    items = [{"url": SHOP, "key": "a"}, {"url": SHOP, "key": "taken"}, {"url": SHOP}]
    taken = await links.create(url=SHOP, key="taken")
    first = await links.create_many(items, request_key="k")
    await links.archive(taken)
    second = await links.create_many(items, request_key="k")

    assert [one.status for one in first] == ["created", "refused", "created"]
    assert [one.status for one in second] == ["repeated", "created", "repeated"]
    assert [first[n].link.id for n in (0, 2)] == [second[n].link.id for n in (0, 2)]


async def test_a_call_costs_the_same_statements_for_one_and_for_hundreds(links):
    """Making, changing, upserting and archiving are set-based."""
    seen: list[str] = []
    event.listen(
        links.database.engine.sync_engine, "before_cursor_execute", lambda _c, _cur, sql, *_: seen.append(sql)
    )

    async def counted(call: Any) -> tuple[list[Any], int]:
        seen.clear()
        return await call, len(seen)

    costs = {}
    for size in (1, 300):
        items = [{"url": SHOP, "external_id": f"{size}-{n}"} for n in range(size)]
        made, create = await counted(links.create_many(items))
        _, update = await counted(
            links.update_many([{"id": d.link.id, "key": f"k{size}-{n}"} for n, d in enumerate(made)])
        )
        mixed = [{"external_id": f"{size}-0", "title": "T"}] + [
            {"url": SHOP, "external_id": f"new-{size}-{n}"} for n in range(size)
        ]
        _, upsert = await counted(links.upsert_many(mixed))
        _, archive = await counted(links.archive_many([d.link for d in made]))
        costs[size] = (create, update, upsert, archive)

    assert costs[1] == costs[300]
    assert max(costs[1]) <= 14


async def test_a_call_has_a_greatest_size(links):
    """A thousand are taken, one more is not."""
    with pytest.raises(InvalidInput, match="at most 1000"):
        await links.create_many([{"url": SHOP}] * (MAX_MANY + 1))
    with pytest.raises(InvalidInput, match="passwords"):
        await links.create_many([{"url": SHOP, "password": "p"}] * 51)


# Case ----------------------------------------------------------------------------------------------------------------


async def test_a_domain_decides_whether_case_matters(links):
    """Where it does not, keys are folded when they are made, moved and looked up; where it does, A and a are two."""
    await links.create(url=SHOP, key="A")
    await links.create(url=SHOP, key="a")
    await links.set_domain("x.example", case_sensitive=False)
    folded = await links.create(url=SHOP, domain="x.example", key="Spring")
    with pytest.raises(Conflict):
        await links.create(url=SHOP, domain="x.example", key="SPRING")
    moved = await links.update(await links.create(url=SHOP, key="Sale"), domain="x.example")
    random = await links.create(url=SHOP, domain="x.example")

    assert (folded.key, moved.key) == ("spring", "sale")
    assert (await links.find("x.example", "sPRING")).id == folded.id
    assert random.key == random.key.lower()


async def test_keys_are_folded_when_case_ceases_to_matter(links):
    """Unless two of them would then be one; archived links stay as they were."""
    link = await links.create(url=SHOP, key="Spring")
    clash = await links.create(url=SHOP, key="spring")
    with pytest.raises(Conflict, match=r"Spring and spring|spring and Spring"):
        await links.set_domain("go.example", case_sensitive=False)
    await links.archive(clash)
    await links.set_domain("go.example", case_sensitive=False)

    assert (await links.get(link)).key == "spring"
    assert (await links.find("go.example", "SPRING")).id == link.id


async def test_a_domain_keeps_what_was_said_of_it(links, clock):
    """What is not given stays; a host of which nothing was said has the defaults."""
    await links.set_domain("GO.example", root_url=SHOP, ios_app_ids=["ABCDE12345.com.example.app"])
    clock.advance(timedelta(hours=1))
    found = await links.set_domain("go.example", not_found_url=f"{SHOP}404", root_url=None)
    unknown = await links.get_domain("other.example")

    assert (found.root_url, found.not_found_url, found.ios_app_ids, found.case_sensitive) == (
        None, f"{SHOP}404", ["ABCDE12345.com.example.app"], True,
    )  # fmt: skip
    assert found.updated_at - found.created_at == timedelta(hours=1)
    assert [domain.host for domain in await links.domains()] == ["go.example"]
    assert (unknown.root_url, unknown.created_at) == (None, None)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"root_url": "ftp://x"}, id="a root that is not on the web"),
        pytest.param({"case_sensitive": "no"}, id="a flag that is a text"),
        pytest.param({"colour": "red"}, id="an unknown name"),
        pytest.param({"ios_app_ids": ["nonsense"]}, id="an app that is none"),
    ],
)
async def test_a_wrong_word_of_a_domain_is_refused(links, said):
    """Nothing is written."""
    with pytest.raises(InvalidInput):
        await links.set_domain("go.example", **said)

    assert await links.domains() == []


# Finding -------------------------------------------------------------------------------------------------------------


async def pages(links: Links, **wanted: Any) -> list[str]:
    """The keys of every page."""
    found: list[str] = []
    cursor = None
    while True:
        page = await links.list(cursor=cursor, limit=2, **wanted)
        found += [link.key for link in page.items]
        if (cursor := page.next_cursor) is None:
            return found


@pytest.fixture
async def shelf(links: Links, clock: Any) -> Links:
    """Five links, made a minute apart; `old` is archived, `b` was changed last."""
    made = {}
    for key, said in {
        "b": {"tags": ["x", "y"], "folder": "f"},
        "A": {"title": "100% Wool", "tags": ["x"]},
        "c": {"notes": "under_score", "domain": "x.example"},
        "old": {},
        "d": {"url": "https://other.example/Path"},
    }.items():
        made[key] = await links.create(**{"url": SHOP, "key": key, **said})
        clock.advance(timedelta(minutes=1))
    await links.archive(made["old"])
    await links.update(made["b"], notes="changed")
    return links


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        pytest.param({}, ["d", "c", "A", "b"], id="newest first"),
        pytest.param({"sort": "created_at"}, ["b", "A", "c", "d"], id="oldest first"),
        pytest.param(
            {"sort": "-updated_at", "archived": None}, ["old", "b", "d", "c", "A"], id="changed last"
        ),
        pytest.param({"sort": "key"}, ["A", "b", "d", "c"], id="by address"),
        pytest.param({"sort": "-key"}, ["c", "d", "b", "A"], id="by address, downwards"),
        pytest.param({"archived": True}, ["old"], id="archived"),
        pytest.param({"tag": "x"}, ["A", "b"], id="a tag"),
        pytest.param({"folder": "f"}, ["b"], id="a folder"),
        pytest.param({"domain": "X.example"}, ["c"], id="a domain"),
        pytest.param({"search": "OTHER.example/path"}, ["d"], id="search for a destination"),
        pytest.param({"search": "100%"}, ["A"], id="search for a wildcard"),
        pytest.param({"search": "r_s"}, ["c"], id="search for another wildcard"),
        pytest.param({"search": "go.example/b"}, ["b"], id="search for a short address"),
    ],
)
async def test_lists_are_walked_in_their_order(shelf, wanted, keys):
    """Page by page each link comes once."""
    found = await pages(shelf, **wanted)

    assert sorted(found) == sorted(keys) if wanted.get("sort") == "-updated_at" else found == keys


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"sort": "luck"}, id="an unknown order"),
        pytest.param(
            {"sort": "key", "period": (AT, AT + timedelta(days=1))}, id="a period for what is not counted"
        ),
        pytest.param({"sort": "-clicks", "period": (AT, AT)}, id="a period without an end"),
        pytest.param(
            {"sort": "-clicks", "period": (AT, (AT + timedelta(days=1)).replace(tzinfo=None))},
            id="a naive time",
        ),
        pytest.param({"limit": 0}, id="no links"),
        pytest.param({"cursor": "nonsense"}, id="no cursor"),
    ],
)
async def test_a_list_refuses_what_it_cannot_answer(links, wanted):
    """With an error that says what would do."""
    with pytest.raises(InvalidInput):
        await links.list(**wanted)


async def test_a_cursor_belongs_to_its_order(shelf):
    """Another order would go on at the wrong place."""
    cursor = (await shelf.list(limit=2)).next_cursor
    with pytest.raises(InvalidInput):
        await shelf.list(limit=2, sort="key", cursor=cursor)


# What becomes known --------------------------------------------------------------------------------------------------


async def test_history_tells_who_changed_what(links, clock):
    """The newest first, page by page, each field with what it was and became; the making is the last."""
    link = await links.create(url=SHOP, key="a", actor="ann")
    for n in range(3):
        clock.advance(timedelta(minutes=1))
        await links.update(link, title=f"T{n}", actor="bob")
    clock.advance(timedelta(minutes=1))
    await links.archive(link)
    first = await links.history(link, limit=3)
    rest = await links.history(link, limit=3, cursor=first.next_cursor)
    told = [*first.items, *rest.items]

    assert [(one.actor, sorted(one.changes)) for one in told] == [
        (None, ["archived_at"]), ("bob", ["title"]), ("bob", ["title"]), ("bob", ["title"]),
        ("ann", ["domain", "key", "url"]),
    ]  # fmt: skip
    assert (told[1].changes["title"].old, told[1].changes["title"].new) == ("T1", "T2")
    assert rest.next_cursor is None


async def test_every_change_is_told_to_every_process(links):
    """On the channel of links, when it is committed: the old and the new address, and a domain as a whole."""
    heard: list[str] = []
    async with links.database.engine.connect() as conn:
        raw = (await conn.get_raw_connection()).driver_connection
        await raw.add_listener(links_channel("good_analytics"), lambda _c, _p, _ch, word: heard.append(word))
        link = await links.create(url=SHOP, key="a")
        await links.update(link, key="b")
        await links.update(link, title="T")
        await links.archive(link)
        await links.set_domain("go.example", root_url=SHOP)
        await links.create_many([{"url": SHOP, "domain": "x.example"} for _ in range(60)])
        await raw.execute("SELECT 1")
        async with asyncio.timeout(5):
            while len(heard) < 7:
                await raw.execute("SELECT 1")
        await raw.remove_listener(links_channel("good_analytics"), lambda *_: None)
    ours = str(links.config.workspace)

    assert sorted(heard) == sorted(
        f"{ours}/{word}"
        for word in [
            "go.example/a", "go.example/a", "go.example/b", "go.example/b", "go.example/b", "go.example/", "x.example/",
        ]
    )  # fmt: skip


async def test_workspaces_see_only_their_own(links):
    """No id of another workspace's link opens anything."""
    theirs = await links.create(url=SHOP, key="a", workspace_id=ELSEWHERE)
    with pytest.raises(NotFound):
        await links.update(theirs, title="T")
    with pytest.raises(NotFound):
        await links.archive(theirs)
    with pytest.raises(NotFound):
        await links.stats(theirs)

    assert await links.get(theirs) is None
    assert await links.find("go.example", "a") is None
    assert (await links.list()).items == ()
    assert (await links.history(theirs)).items == ()
    assert (await links.clicks(theirs)).items == ()


async def test_an_archived_row_is_not_in_the_way_of_a_direct_insert(links, database):
    """The unique indexes leave archived links out."""
    link = await links.create(url=SHOP, key="a", external_id="e")
    await links.archive(link)
    row = {**link.to_row(), "id": links.config.new_id()}
    async with database.begin() as conn:
        await conn.execute(insert(database.tables.links), row)

    assert (await links.find("go.example", "a")).id == row["id"]
