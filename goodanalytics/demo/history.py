"""
Lay the demo's history into a database, once.

1. The history's end must stay what it was, or a second run would lay another history over the first: it is written into the
   first short link's metadata together with what else chose the history. So a run that was broken off goes on where it
   stopped (hits that are known are passed over), and one that is complete adds nothing.
2. Links and partner are made as of the history's beginning: what is told of a split begins where its sides were last changed.
3. Ad platforms and webhooks are switched on (`before_newest`) when all but the last `NEWEST` is in. So they hear of the newest
   leads, sales and refunds and of no others: enough to look at, and nobody is sent two months of sales at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import exists, select, text

from goodanalytics.core.conversions import is_told_as_one
from goodanalytics.core.hits import Hit
from goodanalytics.core.link_conditions import Rule, Variant, When
from goodanalytics.core.links import Link
from goodanalytics.core.partners import Commission
from goodanalytics.demo.crowd import LINKS, Fork, ShortLink
from goodanalytics.demo.figures import Figures
from goodanalytics.demo.trade import PARTNER
from goodanalytics.demo.traffic import generate
from goodanalytics.errors import Conflict
from goodanalytics.facade.links import Links
from goodanalytics.facade.partners import Partners

if TYPE_CHECKING:
    from goodanalytics.analytics import Analytics

CHUNK: Final = 1_000  # hits

DAYS: Final = 60
VISITORS: Final = 1_500
SEED: Final = 7

EDITION: Final = 2
"""Of the generator. Another one makes another history of the same arguments, so it adds nothing to what this one began."""

NEWEST: Final = timedelta(days=2)


async def _nobody() -> None:
    """For a history that nobody is told of."""


async def load(
    analytics: Analytics,
    *,
    until: datetime,
    seed: int = SEED,
    days: int = DAYS,
    visitors: int = VISITORS,
    shop_host: str = "127.0.0.1:8000",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    before_newest: Callable[[], Awaitable[None]] = _nobody,
) -> Figures:
    """
    Create the demo's short links and its partner, write its history, and return what is true of it.

    Where there is a history already, that one is completed, whatever the arguments say.

    Args:
        until: The end of the history; usually now.
        seed, days, visitors, shop_host: See `traffic.generate`. The short links lead to *shop_host*, always.
        progress: Called with how many hits are done and how many there are, at the beginning and after each chunk.
        before_newest: Awaited once, before what happened in the last `NEWEST` of the history is told.

    Raises:
        Conflict: A link or partner of the demo's name is there, but the demo did not make it; or another edition of it did.
        InvalidInput: See `traffic.generate`.
    """
    asked: dict[str, Any] = {
        "edition": EDITION,
        "seed": seed,
        "days": days,
        "visitors": visitors,
        "until": until.isoformat(),
        "shop_host": shop_host,
    }
    known = await _known_links(analytics, shop_host)
    chosen = _choice(known[next(iter(LINKS))]) if known else asked
    end = datetime.fromisoformat(chosen["until"])
    since = end - timedelta(days=chosen["days"])
    then = replace(analytics.config, clock=lambda: since)
    await _partner(replace(analytics.partners, config=then))
    links = replace(analytics.links, config=then)
    made = generate(
        seed=chosen["seed"],
        until=end,
        days=chosen["days"],
        visitors=chosen["visitors"],
        workspace_id=analytics.config.workspace,
        links={
            key: (await _link(links, wanted, known.get(key), shop_host, asked)).id
            for key, wanted in LINKS.items()
        },
        shop_host=chosen["shop_host"],
    )
    # Hits are processed in their order, so the last one stands for all; conversions have no receipt.
    if await _is_known(analytics, next(hit.id for hit in reversed(made.hits) if not is_told_as_one(hit))):
        await before_newest()
        progress(len(made.hits), len(made.hits))
    else:
        await _tell(analytics, made.hits, end - NEWEST, progress, before_newest)
        await _analyze(analytics)
    return made.figures


async def _tell(
    analytics: Analytics,
    hits: Sequence[Hit],
    newest: datetime,
    progress: Callable[[int, int], None],
    before_newest: Callable[[], Awaitable[None]],
) -> None:
    """Process *hits*, part by part; *before_newest* is awaited before those from *newest* on."""
    done, total = 0, len(hits)
    progress(done, total)
    for chunk in _chunks(hits, newest):
        if chunk.is_first_of_newest:
            await before_newest()
        await analytics.log.append(chunk.hits)
        await analytics.drain()
        done += len(chunk.hits)
        progress(done, total)


async def _analyze(analytics: Analytics) -> None:
    """Count what is there: autovacuum would come to it in a minute, and the first look at the dashboard comes sooner."""
    async with analytics.database.begin() as connection:
        for table in ("events", "sessions", "visitors"):
            await connection.execute(text(f"ANALYZE {getattr(analytics.database.tables, table)}"))


@dataclass(frozen=True, slots=True)
class _Chunk:
    hits: Sequence[Hit]
    is_first_of_newest: bool


def _chunks(hits: Sequence[Hit], newest: datetime) -> Iterator[_Chunk]:
    """*hits* in their order, in parts that are processed one after the other; what happened in the *newest* time begins a part."""
    older = sum(hit.occurred_at < newest for hit in hits)
    start = 0
    for end in range(1, len(hits)):
        if end in (older, start + CHUNK):
            yield _Chunk(hits[start:end], is_first_of_newest=start == older)
            start = end
    yield _Chunk(hits[start:], is_first_of_newest=start == older)
    if older == len(hits):
        yield _Chunk((), is_first_of_newest=True)


async def _partner(partners: Partners) -> None:
    """Make the demo's partner, if there is none."""
    known = await partners.by_code(PARTNER.code)
    if known is None:
        await partners.create(
            code=PARTNER.code,
            name=PARTNER.name,
            email=PARTNER.email,
            commission=Commission(value=PARTNER.percent * 100, window_days=PARTNER.days),
            metadata={"demo": True},
        )
    elif "demo" not in known.metadata:
        raise Conflict(
            f"The partner {PARTNER.code} is there, but the demo did not make it. Run the demo on a database of its own"
        )


async def _known_links(analytics: Analytics, shop_host: str) -> Mapping[str, Link]:
    """
    The demo's links by their keys, none or all of them, but for a start that was broken off while it made them.

    Raises:
        Conflict: One of the keys is somebody else's.
    """
    oldest = await analytics.links.list(sort="created_at", limit=200)
    known = {link.key: link for link in oldest.items if "demo" in link.metadata}
    for key in LINKS.keys() - known.keys():
        if await analytics.links.find(shop_host, key) is not None:
            raise Conflict(
                f"The link {shop_host}/{key} is there, but the demo did not make it. Run the demo on a database of its own"
            )
    return known


async def _link(
    links: Links, wanted: ShortLink, known: Link | None, shop_host: str, asked: Mapping[str, Any]
) -> Link:
    """
    The demo's link of this key; made, with the choice of history in it, if it is not there.

    Its domain has the port, so that its address can be copied and scanned. A demo on another port turns it.
    """
    if known is not None and known.domain == shop_host:
        return known
    origin = f"http://{shop_host}"
    where: dict[str, Any] = {
        "domain": shop_host,
        "rules": [
            Rule(url=f"{origin}{fork.path}", when=conditions(fork), name=fork.name) for fork in wanted.forks
        ],
        "variants": [
            Variant(url=f"{origin}{side.path}", weight=side.weight, name=side.name) for side in wanted.sides
        ],
    }
    if known is not None:
        return await links.update(known, url=f"{origin}{wanted.path}", **where)
    return await links.create(
        url=f"{origin}{wanted.path}",
        key=wanted.key,
        title=wanted.about or None,
        utm_source=wanted.utm_source,
        utm_medium=wanted.utm_medium,
        utm_campaign=wanted.utm_campaign,
        metadata={"demo": dict(asked)},
        **where,
    )


def conditions(fork: Fork) -> When:
    """The conditions of *fork*, in the words of a link's rule."""
    words = {"phone": "smartphone", "tablet": "tablet", "desktop": "desktop"}
    return When(devices=[words[kind] for kind in fork.kinds], countries=list(fork.countries))


def _choice(link: Link) -> dict[str, Any]:
    """What chose the history that belongs to *link*."""
    chosen: dict[str, Any] = link.metadata["demo"]
    if chosen.get("edition") != EDITION:
        raise Conflict(
            f"This history was made by edition {chosen.get('edition', 1)} of the demo, and this is edition {EDITION}. "
            "Throw it away: python -m goodanalytics demo --fresh"
        )
    return chosen


async def _is_known(analytics: Analytics, hit_id: UUID) -> bool:
    """Whether a hit was processed that is no conversion."""
    receipts = analytics.database.tables.receipts
    known = exists().where(receipts.c.workspace_id == analytics.config.workspace, receipts.c.hit_id == hit_id)
    async with analytics.database.connect() as connection:
        return bool(await connection.scalar(select(known)))


__all__ = ["DAYS", "NEWEST", "SEED", "VISITORS", "conditions", "load"]
