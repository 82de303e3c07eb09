"""
ACT: bring in what holds for links and is none: the settings of domains, and partners with their terms.

Rules of this file
1. What is here already stays as it is: a domain of which something was said, a partner with the same id.
2. A domain is brought in before its links, so that these are kept by its case rule. Links that are there already are folded by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from goodanalytics.core.links import Domain
from goodanalytics.core.own_address import check_domain_leads_on
from goodanalytics.core.partners import Partner
from goodanalytics.errors import GoodAnalyticsError, InvalidInput
from goodanalytics.store import link_domains, partners
from goodanalytics.store.catalog import Change
from goodanalytics.store.tables import Tables


@dataclass(frozen=True, slots=True)
class Terms:
    """A domain or a partner that a row of the file became."""

    row: int
    address: str
    made: Domain | Partner


Outcome = Literal["created", "unchanged"] | GoodAnalyticsError


async def place(conn: AsyncConnection, t: Tables, items: Sequence[Terms], by: Change) -> dict[int, Outcome]:
    """What became of *items*, by their rows; no host and no id may be among them twice."""
    outcomes: dict[int, Outcome] = {}
    domains: dict[str, tuple[int, Domain]] = {}
    people: list[tuple[int, Partner]] = []
    for item in items:
        if isinstance(item.made, Partner):
            people.append((item.row, item.made))
            continue
        try:
            check_domain_leads_on(item.made, by.prefix(item.made.host))
        except InvalidInput as error:
            outcomes[item.row] = error
        else:
            domains[item.made.host] = (item.row, item.made)
    if domains:
        said = await link_domains.add_many(
            conn, t, by.workspace_id, {host: domain for host, (_, domain) in domains.items()}, by.now
        )
        outcomes |= {row: said[host] for host, (row, _) in domains.items()}
    if people:
        added = await partners.add_many(conn, t, by.workspace_id, [partner for _, partner in people])
        outcomes |= {row: added[partner.id] for row, partner in people}
    return outcomes


__all__ = ["Outcome", "Terms", "place"]
