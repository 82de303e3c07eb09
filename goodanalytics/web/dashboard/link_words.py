"""
Links in plain English: their fields, rules, changes and results.

Pure. Every function takes values and returns texts; the templates escape them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from goodanalytics.core import experiments
from goodanalytics.core.links import Hours, Link, Rule
from goodanalytics.store.link_experiments import Experiment
from goodanalytics.store.link_history import Revision
from goodanalytics.web.dashboard import words

LABELS: Final[Mapping[str, str]] = {
    "url": "Leads to",
    "domain": "Domain",
    "key": "Short name",
    "title": "Title",
    "notes": "Notes",
    "folder": "Folder",
    "tags": "Tags",
    "external_id": "Your own id",
    "link_type": "Kind",
    "utm_source": "Source",
    "utm_medium": "Medium",
    "utm_campaign": "Campaign",
    "utm_content": "Content",
    "utm_term": "Term",
    "ios_url": "On an iPhone or iPad",
    "android_url": "On Android",
    "rules": "Rules",
    "variants": "Variants",
    "starts_at": "Works from",
    "expires_at": "Works until",
    "expired_url": "Afterwards it leads to",
    "max_clicks": "How often it may be used",
    "password": "Password",
    "redirect_status": "Kind of redirect",
    "forward_path": "Pass on what stands behind the short name",
    "forward_query": "Pass on parameters of the short link",
    "cloaked": "Keep the short address in the address bar",
    "indexed": "Let search engines list the short address",
    "og_title": "Title of the card",
    "og_description": "Text of the card",
    "og_image": "Picture of the card",
    "partner_id": "Partner",
    "metadata": "Your own data",
    "archived_at": "Archived",
}
"""What the fields of a link are called on pages."""

NETWORKS: Final[Mapping[str, str]] = {
    "email": "E-mail",
    "whatsapp": "WhatsApp",
    "telegram": "Telegram",
    "x": "X",
    "bluesky": "Bluesky",
    "mastodon": "Mastodon",
    "threads": "Threads",
    "linkedin": "LinkedIn",
    "facebook": "Facebook",
    "reddit": "Reddit",
    "pinterest": "Pinterest",
}
"""Where a link can be shared, in the order in which it is offered."""

NOTHING: Final = "nothing"

Local = Callable[[datetime], datetime]
"""Turns a time into that of the page's zone."""


@dataclass(frozen=True, slots=True)
class State:
    """
    Something to know about a link before it is used.

    Attributes:
        is_over: Whether the link does not work because of it.
    """

    text: str
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """
    One field of one change.

    Attributes:
        old: `None` where nothing was said before.
    """

    label: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Side:
    """
    One variant's row.

    Attributes:
        rate, spread: Share of visitors who converted, and what it may be in truth.
        by_rate, by_revenue: How it does against the first variant, in a sentence.
        mood: Of each sentence.
    """

    name: str
    visitors: int
    leads: int
    sales: int
    conversions: int
    rate: str
    spread: str
    revenue: str
    by_rate: str
    by_revenue: str
    moods: tuple[str, str]


def states(link: Link, now: datetime, uses: int | None = None) -> list[State]:
    """
    What is special about *link* now.

    Args:
        uses: How often it was used, if that is limited and known.
    """
    found = []
    if link.archived_at is not None:
        found.append(State("archived", is_over=True))
    elif link.is_expired(now):
        found.append(State("ended", is_over=True))
    elif link.starts_at is not None and now < link.starts_at:
        found.append(State("not yet", is_over=True))
    if link.max_clicks is not None:
        if uses is not None:
            found.append(
                State(
                    f"{words.count(uses)} of {words.count(link.max_clicks)} uses",
                    is_over=uses >= link.max_clicks,
                )
            )
        else:
            found.append(State("one use" if link.max_clicks == 1 else f"{words.count(link.max_clicks)} uses"))
    if link.has_password:
        found.append(State("password"))
    if link.variants:
        found.append(State(f"{len(link.variants)} variants"))
    if link.rules:
        found.append(State("1 rule" if len(link.rules) == 1 else f"{len(link.rules)} rules"))
    return found


def changes(revision: Revision, local: Local) -> list[Changed]:
    """What *revision* says of each field, in the order of the form."""
    order = list(LABELS)
    named = sorted(
        revision.changes.items(), key=lambda one: order.index(one[0]) if one[0] in LABELS else len(order)
    )
    return [
        Changed(
            LABELS.get(name, name),
            _value(name, change.old, local) if change.old else None,
            _value(name, change.new, local),
        )
        for name, change in named
    ]


def _value(name: str, value: Any, local: Local) -> str:
    match name, value:
        case "password", _:
            return "set" if value else "none"
        case _, None | "" | [] | {}:
            return NOTHING
        case _, bool():
            return "yes" if value else "no"
        case "starts_at" | "expires_at" | "archived_at", str():
            try:
                return words.moment(local(datetime.fromisoformat(value)))
            except ValueError:
                return value
        case "rules" | "variants", list():
            return "; ".join(str(one.get("name") or one.get("url")) for one in value)
        case _, list():
            return ", ".join(map(str, value))
        case _, dict():
            return ", ".join(f"{key}: {one}" for key, one in value.items())
        case _:
            return str(value)


# Rules ---------------------------------------------------------------------------------------------------------------

_DEVICES: Final = {
    **{word: name.lower() for word, name in words.DEVICES.items()},
    "mobile": "phone or tablet",
    "smartphone": "phone",
    "tv": "television",
}
_SYSTEMS: Final = {
    "android": "Android", "chromeos": "ChromeOS", "ios": "iOS", "ipados": "iPadOS", "kaios": "KaiOS", "linux": "Linux",
    "macos": "macOS", "tizen": "Tizen", "windows": "Windows",
}  # fmt: skip


def rule(one: Rule, local: Local) -> str:
    """The conditions of a rule, in a line."""
    when = one.when
    found = [
        _any_of("on a ", [_DEVICES.get(word, word) for word in when.devices]),
        _any_of("with ", [_SYSTEMS.get(word, word) for word in when.os]),
        _any_of("with the browser ", [word.title() for word in when.browsers]),
        _any_of("whose language is ", when.languages),
        _any_of("in ", [words.country(code) for code in when.countries]),
        _any_of("in ", when.regions),
        *(f"with ?{name}{'' if value is None else f'={value}'}" for name, value in when.query.items()),
        _any_of("from the network ", when.ip_ranges),
        f"from {words.moment(local(when.after))} on" if when.after else "",
        f"until {words.moment(local(when.before))}" if when.before else "",
        _hours(when.hours) if when.hours else "",
        {True: "who were here before", False: "who are here for the first time", None: ""}[when.returning],
        _any_of("who are ", when.statuses),
        *(f"whose {name} is {'known' if value is None else value}" for name, value in when.traits.items()),
    ]
    return "People " + ", ".join(part for part in found if part)


def _any_of(before: str, said: Sequence[str]) -> str:
    return before + " or ".join(said) if said else ""


def _hours(hours: Hours) -> str:
    days = [words.DAYS[day - 1] for day in hours.weekdays]
    return f"from {hours.start} to {hours.end} ({hours.timezone}){' on ' + ', '.join(days) if days else ''}"


# Results of a split --------------------------------------------------------------------------------------------------


def sides(found: Experiment) -> list[Side]:
    """Each variant of *found*, the one that the others are compared with first."""
    first = found.outcomes[0].name if found.outcomes else ""
    return [
        Side(
            name=one.name,
            visitors=one.visitors,
            leads=one.leads,
            sales=one.sales,
            conversions=one.conversions,
            rate="–" if one.rate is None else words.percent(100 * one.rate),
            spread=(
                ""
                if one.rate_low is None or one.rate_high is None
                else f"{words.percent(100 * one.rate_low)} to {words.percent(100 * one.rate_high)}"
            ),
            revenue="–"
            if one.revenue_per_visitor is None or found.currency is None
            else words.money(round(one.revenue_per_visitor), found.currency),
            by_rate=_against(one.by_rate, first, found, "conversions"),
            by_revenue="" if found.currency is None else _against(one.by_revenue, first, found, "revenue"),
            moods=(_mood(one.by_rate, found), _mood(one.by_revenue, found)),
        )
        for one in found.outcomes
    ]


def headline(found: Experiment) -> str:
    """What the result comes to, in one or two sentences that promise no more than it shows."""
    others = found.outcomes[1:]
    if found.is_misplit:
        return (
            "The visitors did not come in the shares that you set, and chance does not explain it. Something else than the "
            "variants is at work, so do not rely on this comparison."
        )
    first = found.outcomes[0].name if found.outcomes else ""
    told = [
        f"{one.name} {'converts more people' if one.by_rate.verdict == 'better' else 'converts fewer people'} than {first}."
        for one in others
        if one.by_rate is not None and one.by_rate.verdict in ("better", "worse")
    ] + [
        f"{one.name} brings {'more' if one.by_revenue.verdict == 'better' else 'less'} revenue per visitor than {first}."
        for one in others
        if one.by_revenue is not None and one.by_revenue.verdict in ("better", "worse")
    ]
    if told:
        return " ".join(told)
    if all(one.by_rate is None or one.by_rate.verdict == "not enough yet" for one in others):
        return (
            f"Too early to say. Every variant needs {experiments.MIN_VISITORS} visitors or more, and some of them have to "
            "convert."
        )
    return "No difference has shown so far. It may be small, or there may be none."


def _against(compared: experiments.Comparison | None, first: str, found: Experiment, what: str) -> str:
    if compared is None:
        return "the others are compared with it"
    if found.is_misplit:
        return "cannot be compared"
    match compared.verdict:
        case "better" | "worse":
            much = "" if compared.lift is None else f"{abs(round(100 * compared.lift)):,}% "
            fewer = "fewer" if what == "conversions" else "less"
            return f"{much}{'more' if compared.verdict == 'better' else fewer} {what} than {first}"
        case verdict:
            return verdict


def _mood(compared: experiments.Comparison | None, found: Experiment) -> str:
    if compared is None or found.is_misplit:
        return "even"
    return {"better": "good", "worse": "bad"}.get(compared.verdict, "even")


__all__ = [
    "LABELS", "NETWORKS", "NOTHING", "Changed", "Side", "State", "changes", "headline", "rule", "sides", "states",
]  # fmt: skip
