"""A link that leads to itself, however its address is written."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import msgspec
import pytest

from goodanalytics.core.link_conditions import Rule, Variant, When
from goodanalytics.core.links import Domain, Link
from goodanalytics.core.own_address import check_domain_leads_on, check_link_leads_on, prefix_of
from goodanalytics.errors import InvalidInput

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SHOP = "https://shop.example/"
OWN = "https://go.example/lamps"
LINK = Link(
    workspace_id=uuid.UUID(int=0), id=uuid.UUID(int=1), domain="go.example", key="lamps", url=SHOP,
    created_at=NOW, updated_at=NOW,
)  # fmt: skip
DOMAIN = Domain(workspace_id=LINK.workspace_id, host="go.example")
FOLDED = msgspec.structs.replace(DOMAIN, case_sensitive=False)
SPLIT = [Variant(url=SHOP, name="A"), Variant(url=OWN, name="B")]
RULES = [Rule(url=url, when=When(os=["ios"])) for url in (SHOP, OWN)]


@pytest.mark.parametrize(
    ("url", "link", "domain", "prefix"),
    [
        pytest.param(OWN, {}, DOMAIN, "", id="as it is shared"),
        pytest.param("http://GO.example:80/lamps/?a=1#b", {}, DOMAIN, "", id="other scheme and case, with query and fragment"),
        pytest.param("https://go.example:8443/lamps", {}, DOMAIN, "", id="a port, which the link's host answers on too"),
        pytest.param("https://go.example:8443/lamps", {"domain": "go.example:8443"}, DOMAIN, "", id="the host's own port"),
        pytest.param("https://go.example/%6Camps", {}, DOMAIN, "", id="percent-encoded"),
        pytest.param("https://go.example/a/%2e%2e/./lamps", {}, DOMAIN, "", id="after steps up"),
        pytest.param("https://go.example/lamps/blue", {}, DOMAIN, "", id="below its key"),
        pytest.param("https://go.example/LAMPS", {}, FOLDED, "", id="other letters where case does not matter"),
        pytest.param("https://go.example/l/lamps", {}, DOMAIN, "/l", id="below the path of links"),
        pytest.param("https://xn--mller-kva.example/lamps", {"domain": "müller.example"}, DOMAIN, "", id="the host in punycode"),
        pytest.param("https://[2001:db8::1]:8443/lamps", {"domain": "[2001:db8::1]:8443"}, DOMAIN, "", id="a numeric host"),
    ],
)  # fmt: skip
def test_a_link_to_itself_is_refused(url, link, domain, prefix):
    """However a browser would come back to it."""
    with pytest.raises(InvalidInput, match="this short link itself"):
        check_link_leads_on(msgspec.structs.replace(LINK, url=url, **link), domain, prefix)


@pytest.mark.parametrize(
    ("url", "domain", "prefix"),
    [
        pytest.param("https://go.example/sofas", DOMAIN, "", id="another link"),
        pytest.param("https://go.example/", DOMAIN, "", id="the root"),
        pytest.param("https://go.example/LAMPS", DOMAIN, "", id="other letters where case matters"),
        pytest.param("https://go.example/lamps.qr", DOMAIN, "", id="its own QR code"),
        pytest.param("https://go.example/lamps+", DOMAIN, "", id="the page that says where it leads"),
        pytest.param("https://www.go.example/lamps", DOMAIN, "", id="a sub-domain"),
        pytest.param("https://go.example/lamps", DOMAIN, "/l", id="the app's own page of that name"),
        pytest.param("https://go.example/l", DOMAIN, "/l", id="the path of links alone"),
        pytest.param("https://go.example/L/lamps", DOMAIN, "/l", id="a path whose case the app tells apart"),
        pytest.param("myapp://go.example/lamps", DOMAIN, "", id="an app"),
        pytest.param("https://shop.example/?next=https://go.example/lamps", DOMAIN, "", id="itself in a parameter"),
    ],
)  # fmt: skip
def test_every_other_address_is_let_pass(url, domain, prefix):
    """What is merely near, or similar."""
    check_link_leads_on(msgspec.structs.replace(LINK, url=url), domain, prefix)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"url": OWN}, "url", id="the link's own"),
        pytest.param({"ios_url": OWN}, "ios_url", id="for iOS"),
        pytest.param({"android_url": OWN}, "android_url", id="for Android"),
        pytest.param({"expired_url": OWN}, "expired_url", id="when it is over"),
        pytest.param({"rules": RULES}, "rules[1].url", id="a rule's"),
        pytest.param({"variants": SPLIT}, "variants[1].url", id="a variant's"),
    ],
)
def test_every_address_of_a_link_is_looked_at(changes, where):
    """The error names the one that is wrong."""
    with pytest.raises(InvalidInput) as refused:
        check_link_leads_on(msgspec.structs.replace(LINK, **changes), DOMAIN, "")

    assert refused.value.where == where


@pytest.mark.parametrize(
    ("said", "prefix", "where"),
    [
        pytest.param({"root_url": "https://go.example"}, "", "root_url", id="the root to the root"),
        pytest.param({"root_url": "https://go.example/welcome"}, "", None, id="the root to a link"),
        pytest.param({"root_url": "https://go.example/"}, "/l", None, id="the root of an app, which we do not answer"),
        pytest.param({"not_found_url": "https://go.example/404"}, "", "not_found_url", id="what is not found to a key"),
        pytest.param({"not_found_url": "https://go.example/"}, "", "not_found_url", id="what is not found to the root"),
        pytest.param({"not_found_url": "https://go.example/l/404"}, "/l", "not_found_url", id="to a key below the path of links"),
        pytest.param({"not_found_url": "https://go.example/404"}, "/l", None, id="to a page of the app"),
        pytest.param({"not_found_url": SHOP, "root_url": SHOP}, "", None, id="elsewhere"),
    ],
)  # fmt: skip
def test_a_domain_leads_away_from_itself(said, prefix, where):
    """Its root not to the root, and what no link is called not to what may be no link either."""
    domain = msgspec.structs.replace(DOMAIN, **said)
    if where is None:
        check_domain_leads_on(domain, prefix)
        return
    with pytest.raises(InvalidInput) as refused:
        check_domain_leads_on(domain, prefix)

    assert refused.value.where == where


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        pytest.param("go.example", "", id="a link domain"),
        pytest.param("go.example:8443", "", id="with a port"),
        pytest.param("shop.example", "/l", id="any other host"),
    ],
)
def test_links_are_at_the_root_of_link_domains_alone(domain, expected):
    """Elsewhere they live below a path."""
    assert prefix_of(domain, ["go.example"], "/l") == expected
