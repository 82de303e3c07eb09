"""Shapes and hashes, against the vectors that the platforms publish."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.platforms import normalize
from goodanalytics.platforms.normalize import hashed

# https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters
META_VECTORS = {
    "email": (
        normalize.email,
        "John_Smith@gmail.com",
        "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
    ),
    "phone": (
        normalize.phone_digits,
        "1 (650)555-1212",
        "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
    ),
    "name": (
        normalize.name,
        "Mary",
        "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec",
    ),
    "name in Hangul": (
        normalize.name,
        "정",
        "8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14",
    ),
    "name with an accent": (
        normalize.name,
        "Valéry",
        "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c",
    ),
    "name with a combining accent": (
        normalize.name,
        "Vale\u0301ry",
        "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c",
    ),
}


@pytest.mark.parametrize(("shape", "given_text", "digest"), META_VECTORS.values(), ids=META_VECTORS)
def test_metas_published_vectors(shape, given_text, digest):
    """What Meta's page hashes, we hash to the same digits."""
    actual = hashed(given_text, shape)

    assert actual == digest


SHAPES = {
    "an address is trimmed": (normalize.email, "  ada@example.org\n", "ada@example.org"),
    "an address without a domain is none": (normalize.email, "ada@localhost", None),
    "two addresses are none": (normalize.email, "ada@example.org, bob@example.org", None),
    "Gmail has no dots": (
        normalize.google_email,
        "cloudy.sanfrancisco@gmail.com",
        "cloudysanfrancisco@gmail.com",
    ),
    "Gmail has no plus": (normalize.google_email, "Ada+shop@googlemail.com", "ada@googlemail.com"),
    "other mail keeps its dots": (normalize.google_email, "a.l+shop@example.org", "a.l+shop@example.org"),
    "only a tag is no address": (normalize.google_email, "+shop@gmail.com", None),
    "a number with its plus": (normalize.phone_digits, "+44 20 7946 0018", "442079460018"),
    "a number with two zeros": (normalize.phone_digits, "0049/30-901820", "4930901820"),
    "a trunk zero in brackets": (normalize.phone_digits, "+44 (0)20 7946 0018", "442079460018"),
    "a number with an extension": (normalize.phone_digits, "+1 (555) 123-4567 ext. 89", None),
    "a national number": (normalize.phone_digits, "020 7946 0018", None),
    "a number too short": (normalize.phone_digits, "+49 110", None),
    "a number too long": (normalize.phone_digits, "+1234567890123456", None),
    "other digits are no number": (normalize.phone_digits, "+٤٤٢٠٧٩٤٦٠٠١٨", None),
    "E.164 keeps the plus": (normalize.phone_e164, "+44 20 7946 0018", "+442079460018"),
    "Google's names keep their punctuation": (normalize.google_name, "  O'NEIL-Smith ", "o'neil-smith"),
    "Google's names have single spaces": (normalize.google_name, "Mary   Ann\t", "mary ann"),
    "a name of nothing is none to Google": (normalize.google_name, "  ", None),
    "a name of punctuation is none": (normalize.name, " -.- ", None),
    "a city has no spaces": (normalize.letters, "New York", "newyork"),
    "a city in another script": (normalize.letters, "東京", "東京"),
    "a city keeps its vowel signs": (normalize.letters, "मुंबई", "मुंबई"),
    "a state of the USA": (normalize.region, "New Jersey", "nj"),
    "a state by its letters": (normalize.region, "NJ", "nj"),
    "another region": (normalize.region, "Île-de-France", "îledefrance"),
    "a postcode of the USA": (normalize.postcode("us"), "94035-1234", "94035"),
    "another postcode": (normalize.postcode("GB"), "NW1 6XE", "nw16xe"),
    "a country by name": (normalize.country, "Germany", None),
    "a country by letters": (normalize.country, " DE ", "de"),
    "an id": (normalize.plain, " Customer-42 ", "customer-42"),
    "an empty id": (normalize.plain, "  ", None),
}


@pytest.mark.parametrize(("shape", "text", "expected"), SHAPES.values(), ids=SHAPES)
def test_a_shape(shape, text, expected):
    """Each shape is the documented one; what does not fit it is nothing."""
    actual = shape(text)

    assert actual == expected


@pytest.mark.parametrize("given_hash", ["a1" * 32, "A1" * 32, f" {'a1' * 32} "])
@pytest.mark.parametrize("shape", [normalize.email, normalize.phone_e164, normalize.name])
def test_a_hash_is_not_hashed_again(shape, given_hash):
    """64 hexadecimal digits are the host's own hash and go out in lower case."""
    actual = hashed(given_hash, shape)

    assert actual == "a1" * 32


@given(text=st.text(max_size=40))
@pytest.mark.parametrize(
    "shape",
    [
        normalize.email,
        normalize.google_email,
        normalize.phone_e164,
        normalize.name,
        normalize.google_name,
        normalize.letters,
        normalize.region,
    ],
)
def test_hashing_twice_is_hashing_once(shape, text):
    """Whatever comes in, a second pass changes nothing."""
    once = hashed(text, shape)

    assert hashed(once, shape) == once


def test_nothing_has_no_hash():
    """What is not known stays unknown."""
    assert hashed(None, normalize.email) is None


AMOUNTS = {
    "two decimals": (4900, "EUR", Decimal("49.00")),
    "lower case": (4901, "usd", Decimal("49.01")),
    "no decimals": (4900, "JPY", Decimal(4900)),
    "three decimals": (4900, "KWD", Decimal("4.900")),
    "four decimals": (4900, "CLF", Decimal("0.4900")),
    "a cent": (1, "EUR", Decimal("0.01")),
    "beyond what a float holds": (9_007_199_254_740_993, "EUR", Decimal("90071992547409.93")),
}


@pytest.mark.parametrize(("cents", "currency", "expected"), AMOUNTS.values(), ids=AMOUNTS)
def test_an_amount_in_major_units(cents, currency, expected):
    """Minor units become major by the currency's own exponent, exactly."""
    actual = normalize.major(cents, currency)

    assert (actual, actual.as_tuple().exponent) == (expected, expected.as_tuple().exponent)


PAGES = {
    "query and fragment": ("https://shop.example/thanks?email=a@b.co#x", "https://shop.example/thanks"),
    "credentials": ("https://ada:secret@shop.example/", "https://shop.example/"),
    "an address in the path": ("https://shop.example/u/ada@example.org", "https://shop.example/"),
    "a port": ("http://127.0.0.1:8000/x", "http://127.0.0.1:8000/x"),
    "IPv6": ("http://[::1]:8000/x", "http://[::1]:8000/x"),
    "no path": ("https://shop.example", "https://shop.example/"),
    "another scheme": ("javascript:alert(1)", None),
    "no address": ("thanks", None),
    "a broken port": ("https://shop.example:x/", None),
    "nothing": (None, None),
}


@pytest.mark.parametrize(("url", "expected"), PAGES.values(), ids=PAGES)
def test_a_page(url, expected):
    """A page is told without what may name a person."""
    actual = normalize.page(url)

    assert actual == expected
