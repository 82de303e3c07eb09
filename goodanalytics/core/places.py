"""
Where on earth: one value, read from the records that address databases hold and from the headers that CDNs add.

Two shapes of record are read: nested with names by language (GeoLite2-City, DB-IP lite) and flat (``country_code``, ``state1``,
``city``, as in iptoasn and the ip-location-db files). Names are the English ones. Nothing raises on an odd record:
a member of a wrong kind is as if it were not there.

Source: the reference behaviour, original-core.md, section 19; dependencies.md, section 4, for the flat shape.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from goodanalytics.core.urls import printable

COUNTRY_HEADERS: Final = (
    "cf-ipcountry",
    "cloudfront-viewer-country",
    "x-vercel-ip-country",
    "fastly-client-country",
    "x-country-code",
    "x-appengine-country",
    "x-client-geo-country",
    "fly-client-country",
)
"""Headers in which CDNs give the visitor's country. Anyone can send them, so they count only where they are configured."""

# Cloudflare's words for an unknown country and for Tor, and those of others; none is a country of ISO 3166-1.
_NO_COUNTRY: Final = frozenset({"XX", "T1", "ZZ", "A1", "A2", "O1", "AP", "EU"})
_TWO_LETTERS: Final = re.compile(r"[A-Z]{2}")
_UP_TO_THREE: Final = re.compile(r"[A-Z0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Place:
    """
    A place as far as it is known.

    Attributes:
        country: ISO 3166-1 alpha-2, upper case.
        country_name: English name.
        region: English name of the largest subdivision.
        city: English name.
        continent: Two letters: ``EU``, ``NA``, …
        timezone: IANA name.
        latitude: Degrees, -90 to 90.
        longitude: Degrees, -180 to 180.
        region_code: The second part of ISO 3166-2 for the region, upper case: ``CA``.
    """

    country: str | None = None
    country_name: str | None = None
    region: str | None = None
    city: str | None = None
    continent: str | None = None
    timezone: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    region_code: str | None = None

    def to_json(self) -> dict[str, str | float]:
        """
        Return the members that are known.

        >>> Place(country="DE", city="Berlin").to_json()
        {'country': 'DE', 'city': 'Berlin'}
        """
        return {
            field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any] | None) -> "Place":
        """Read what `to_json` wrote; unknown members and values of a wrong kind are passed over."""
        written = written or {}
        texts = {
            name: _text(written.get(name))
            for name in ("country", "country_name", "region", "city", "continent", "timezone")
        }
        return cls(
            **texts,
            latitude=_degrees(written.get("latitude"), 90),
            longitude=_degrees(written.get("longitude"), 180),
            region_code=_subdivision(_text(written.get("region_code"))),
        )


def from_record(record: object) -> Place | None:
    """
    Return the place that a database's *record* tells; ``None`` when it tells nothing.

    >>> from_record({"country_code": "de", "state1": "Berlin"})
    Place(country='DE', country_name=None, region='Berlin', city=None, continent=None, timezone=None, latitude=None, longitude=None, region_code=None)
    """
    if not isinstance(record, Mapping):
        return None
    country, continent, location = (
        _mapping(record.get(name)) for name in ("country", "continent", "location")
    )
    subdivisions = record.get("subdivisions")
    largest = _mapping(subdivisions[0] if isinstance(subdivisions, list) and subdivisions else None)
    place = Place(
        country=_country(_first(country.get("iso_code"), record.get("country_code"), record.get("country"))),
        country_name=_first(_english(country), record.get("country_name")),
        region=_first(
            _english(largest), record.get("state1"), record.get("region"), record.get("region_name")
        ),
        city=_first(_english(_mapping(record.get("city"))), record.get("city")),
        continent=_country(
            _first(continent.get("code"), record.get("continent_code"), record.get("continent")), {}
        ),
        timezone=_first(location.get("time_zone"), record.get("timezone"), record.get("time_zone")),
        latitude=_degrees(location.get("latitude", record.get("latitude", record.get("lat"))), 90),
        longitude=_degrees(location.get("longitude", record.get("longitude", record.get("lng"))), 180),
        region_code=_subdivision(_first(largest.get("iso_code"), record.get("region_code"))),
    )
    return None if place == Place() else place


def from_headers(headers: Mapping[str, str], names: Iterable[str]) -> Place | None:
    """
    Return the country that the first of the headers *names* with a real one gives; *headers* have lower-case names.

    >>> from_headers({"cf-ipcountry": "nl"}, ["CF-IPCountry"]).country
    'NL'
    """
    for name in names:
        if country := _country(headers.get(name.lower())):
            return Place(country=country)
    return None


def _country(code: str | None, refused: Iterable[str] = _NO_COUNTRY) -> str | None:
    upper = (code or "").strip().upper()
    return upper if _TWO_LETTERS.fullmatch(upper) and upper not in refused else None


def _subdivision(code: str | None) -> str | None:
    """A code of ISO 3166-2, which some databases write with its country before it, without that."""
    upper = (code or "").strip().upper().rpartition("-")[2]
    return upper if _UP_TO_THREE.fullmatch(upper) else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _english(member: Mapping[str, Any]) -> object:
    return _mapping(member.get("names")).get("en")


def _first(*values: object) -> str | None:
    """Return the first of *values* that is a text with something in it."""
    return next((text for value in values if (text := _text(value))), None)


def _text(value: object) -> str | None:
    return (printable(value).strip()[:255] or None) if isinstance(value, str) else None


def _degrees(value: object, most: int) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if -most <= number <= most else None
