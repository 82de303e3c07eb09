"""
Lay the demo's history into a database, once.

The history's end must stay what it was, or a second run would lay another history over the first: it is written into the
first short link's metadata together with what else chose the history. So a run that was broken off goes on where it
stopped (hits that are known are passed over), and one that is complete adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import exists, select, text

from goodanalytics.core.links import Link
from goodanalytics.demo.crowd import LINKS, ShortLink
from goodanalytics.demo.figures import Figures
from goodanalytics.demo.traffic import generate
from goodanalytics.errors import Conflict

if TYPE_CHECKING:
    from goodanalytics.analytics import Analytics

CHUNK: Final = 1_000  # hits

DAYS: Final = 60
VISITORS: Final = 1_500
SEED: Final = 7


async def load(
    analytics: Analytics,
    *,
    until: datetime,
    seed: int = SEED,
    days: int = DAYS,
    visitors: int = VISITORS,
    shop_host: str = "127.0.0.1:8000",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Figures:
    """
    Create the demo's short links, write its history, and return what is true of it.

    Where there is a history already, that one is completed, whatever the arguments say.

    Args:
        until: The end of the history; usually now.
        seed, days, visitors, shop_host: See `traffic.generate`. The short links lead to *shop_host*, always.
        progress: Called with how many hits are done and how many there are, at the beginning and after each chunk.

    Raises:
        Conflict: A link of the demo's name is there, but the demo did not make it.
        InvalidInput: See `traffic.generate`.
    """
    asked = {
        "seed": seed,
        "days": days,
        "visitors": visitors,
        "until": until.isoformat(),
        "shop_host": shop_host,
    }
    links = {key: await _link(analytics, wanted, asked) for key, wanted in LINKS.items()}
    chosen = _choice(links[next(iter(LINKS))])
    made = generate(
        seed=chosen["seed"],
        until=datetime.fromisoformat(chosen["until"]),
        days=chosen["days"],
        visitors=chosen["visitors"],
        workspace_id=analytics.config.workspace,
        links={key: link.id for key, link in links.items()},
        shop_host=chosen["shop_host"],
    )
    total = len(made.hits)
    if await _is_known(analytics, made.hits[-1].id):
        progress(total, total)
        return made.figures
    progress(0, total)
    for start in range(0, total, CHUNK):
        chunk = made.hits[start : start + CHUNK]
        await analytics.log.append(chunk)
        await analytics.drain()
        progress(start + len(chunk), total)
    async with analytics.database.begin() as connection:
        # Autovacuum would come to it within a minute; the first look at the dashboard comes sooner.
        for table in ("events", "sessions", "visitors"):
            await connection.execute(text(f"ANALYZE {getattr(analytics.database.tables, table)}"))
    return made.figures


async def _link(analytics: Analytics, wanted: ShortLink, asked: Mapping[str, Any]) -> Link:
    """
    The demo's link of this key; made, with the choice of history in it, if it is not there.

    Its domain is the bare host, which serves any port, so that a demo on another port finds it again and only turns it.
    """
    domain = asked["shop_host"].partition(":")[0]
    url = f"http://{asked['shop_host']}{wanted.path}"
    link = await analytics.links.find(domain, wanted.key)
    if link is not None and link.url != url and "demo" in link.metadata:
        link = await analytics.links.update(link, url=url)
    if link is None:
        link = await analytics.links.create(
            domain=domain,
            key=wanted.key,
            url=url,
            utm_source=wanted.utm_source,
            utm_medium=wanted.utm_medium,
            utm_campaign=wanted.utm_campaign,
            metadata={"demo": dict(asked)},
        )
    return link


def _choice(link: Link) -> dict[str, Any]:
    """What chose the history that belongs to *link*."""
    chosen = link.metadata.get("demo")
    if not isinstance(chosen, dict):
        raise Conflict(
            f"The link {link.domain}/{link.key} is there, but the demo did not make it. Run the demo on a database of its own"
        )
    return chosen


async def _is_known(analytics: Analytics, hit_id: UUID) -> bool:
    """Whether a hit was processed. Hits are processed in their order, so the last one stands for all."""
    receipts = analytics.database.tables.receipts
    known = exists().where(receipts.c.workspace_id == analytics.config.workspace, receipts.c.hit_id == hit_id)
    async with analytics.database.connect() as connection:
        return bool(await connection.scalar(select(known)))


__all__ = ["DAYS", "SEED", "VISITORS", "load"]
