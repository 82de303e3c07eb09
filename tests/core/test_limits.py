"""Token buckets as values, and who counts as one client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goodanalytics.core.limits import (
    HEAVIEST,
    Allowed,
    Buckets,
    Exceeded,
    Limit,
    RateLimits,
    network_of,
    take,
)
from goodanalytics.errors import ConfigError

NOW = 1_795_000_000.0
LIMIT = Limit("beacons", per_second=2.0, burst=5)


def let_in(
    buckets: Buckets, times: list[float], limit: Limit = LIMIT, who: str = "203.0.113.7"
) -> list[bool]:
    return [isinstance(buckets.take(limit, who, NOW + at), Allowed) for at in times]


def test_a_client_that_was_quiet_may_come_as_often_as_the_burst_at_once():
    """And not once more."""
    assert let_in(Buckets(), [0] * 6) == [True] * 5 + [False]


def test_tokens_come_back_at_the_rate():
    """Two a second: after half a second one request is let in, and not two."""
    buckets = Buckets()
    let_in(buckets, [0] * 5)

    assert let_in(buckets, [0.5, 0.5, 1.5, 1.5, 1.5]) == [True, False, True, True, False]


def test_a_bucket_never_holds_more_than_the_burst():
    """A week of silence buys nothing."""
    buckets = Buckets()
    let_in(buckets, [0] * 5)

    assert let_in(buckets, [604_800] * 6) == [True] * 5 + [False]


def test_a_refused_request_costs_nothing():
    """Who goes on knocking is let in as soon as who waits."""
    buckets = Buckets()
    let_in(buckets, [0] * 50)

    assert let_in(buckets, [0.5]) == [True]


def test_the_wait_is_told_exactly():
    """Coming after `retry_in` is early enough, and coming a little before is not."""
    buckets = Buckets()
    let_in(buckets, [0] * 5)
    decision = buckets.take(LIMIT, "203.0.113.7", NOW)
    assert decision == Exceeded(retry_in=0.5)

    assert let_in(buckets, [decision.retry_in - 0.01, decision.retry_in]) == [False, True]


def test_what_is_left_is_told():
    """Counted down to nothing, with the seconds until the bucket is full."""
    buckets = Buckets()

    told = [buckets.take(LIMIT, "a", NOW) for _ in range(5)]

    assert told == [Allowed(left, (5 - left) / 2) for left in (4, 3, 2, 1, 0)]


def test_a_heavy_request_is_let_in_and_paid_for_afterwards():
    """One token is enough to come in; what the request weighs beyond the bucket is waited for."""
    buckets = Buckets()

    first = buckets.take(LIMIT, "a", NOW, cost=9)

    assert first == Allowed(0, 4.5)
    assert buckets.take(LIMIT, "a", NOW) == Exceeded(retry_in=2.5)


def test_no_request_costs_more_than_the_heaviest():
    """A debt is bounded by what one body can hold."""
    full_at, _ = take(LIMIT, None, NOW, cost=1_000_000)

    assert full_at == NOW + HEAVIEST / LIMIT.per_second


@pytest.mark.parametrize("back", [1.0, 3_600.0, 10**8], ids=["a second", "an hour", "years"])
def test_a_clock_that_is_set_back_shuts_nobody_out_for_long(back):
    """The bucket is at most empty by its heaviest debt, whatever it was in the other time."""
    full_at, _ = take(LIMIT, None, NOW)

    _, decision = take(LIMIT, full_at, NOW - back)

    worst = (1 + HEAVIEST) / LIMIT.per_second
    assert isinstance(decision, Allowed) or decision.retry_in <= worst


def test_a_clock_that_is_set_back_pays_no_debt():
    """Neither does it fill a bucket."""
    full_at, _ = take(LIMIT, None, NOW, cost=5)

    _, decision = take(LIMIT, full_at, NOW - 1)

    assert decision == Exceeded(retry_in=1.5)


def test_clients_and_limits_have_buckets_of_their_own():
    """One client's flood takes nothing from another, nor from its own other limit."""
    buckets = Buckets()
    let_in(buckets, [0] * 6)

    assert let_in(buckets, [0], who="203.0.113.8") == [True]
    assert let_in(buckets, [0], limit=Limit("redirects", 2.0, 5)) == [True]


def test_memory_is_bounded_and_the_longest_idle_client_is_forgotten():
    """Who came lately is remembered, whoever was first; the forgotten one begins anew."""
    buckets = Buckets(most=2)
    for who in ("a", "b", "a", "c"):
        buckets.take(LIMIT, who, NOW, cost=5)

    assert len(buckets) == 2
    assert [let_in(buckets, [0], who=who) for who in ("a", "c")] == [[False], [False]]
    assert let_in(buckets, [0], who="b") == [True]


@given(
    st.floats(0.01, 1_000),
    st.integers(1, 2_000),
    st.lists(st.floats(0, 20), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_what_came_back(rate, burst, gaps):
    """In any stretch of time that begins with a full bucket."""
    limit, buckets, now, allowed = Limit("beacons", rate, burst), Buckets(), NOW, 0
    for gap in gaps:
        now += gap
        allowed += isinstance(buckets.take(limit, "a", now), Allowed)

    assert allowed <= burst + (now - NOW) * rate + 1


@given(st.floats(0.01, 1_000), st.integers(1, 50), st.lists(st.floats(0, 20), max_size=50))
def test_whoever_waits_as_long_as_told_is_let_in(rate, burst, gaps):
    """`Retry-After` is no empty promise."""
    limit, buckets, now = Limit("beacons", rate, burst), Buckets(), NOW
    for gap in gaps:
        now += gap
        decision = buckets.take(limit, "a", now)
        if isinstance(decision, Exceeded):
            now += decision.retry_in
            assert isinstance(buckets.take(limit, "a", now), Allowed)


@pytest.mark.parametrize(
    ("address", "client"),
    [
        pytest.param("203.0.113.7", "203.0.113.7", id="IPv4, whole"),
        pytest.param("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", id="IPv6, by its /64"),
        pytest.param("2001:db8:1:2::9", "2001:db8:1:2::/64", id="a neighbour in the same /64"),
        pytest.param("2001:db8:1:3::9", "2001:db8:1:3::/64", id="another /64"),
        pytest.param("::ffff:203.0.113.7", "203.0.113.7", id="IPv4 in IPv6's clothes"),
        pytest.param("127.0.0.1", None, id="this machine"),
        pytest.param("::1", None, id="this machine, IPv6"),
        pytest.param("10.1.2.3", None, id="private"),
        pytest.param("172.31.255.255", None, id="private, the middle one"),
        pytest.param("172.32.0.1", "172.32.0.1", id="just beside it"),
        pytest.param("192.168.1.1", None, id="at home"),
        pytest.param("::ffff:192.168.1.1", None, id="at home, mapped"),
        pytest.param("fd00::1", None, id="unique local"),
        pytest.param("fe80::1", None, id="link local"),
        pytest.param("100.64.0.1", None, id="between a cloud's own machines"),
        pytest.param("testclient", None, id="no address"),
    ],
)
def test_who_counts_as_one_client(address, client):
    """What one household or machine has; nobody where an undeclared proxy may hide everybody."""
    assert network_of(address) == client


def test_private_addresses_count_where_the_host_says_so():
    """An intranet's machines are its visitors."""
    assert network_of("10.1.2.3", private=True) == "10.1.2.3"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        pytest.param({"beacons": 0}, "rate_limits.beacons is 0", id="no rate"),
        pytest.param({"redirects": -1}, "rate_limits.redirects is -1", id="below nothing"),
        pytest.param({"api": "100/s"}, "rate_limits.api is '100/s'", id="a word"),
        pytest.param({"api": float("inf")}, "rate_limits.api is inf", id="endless"),
        pytest.param({"burst": 0}, "rate_limits.burst is 0", id="no burst"),
        pytest.param({"burst": 1.5}, "rate_limits.burst is 1.5", id="half a request"),
    ],
)
def test_a_wrong_limit_is_refused_with_its_cure(settings, named):
    """At the start, not at the first visitor."""
    with pytest.raises(ConfigError, match=f"^{named}; write"):
        RateLimits(**settings)


def test_none_is_no_limit():
    """Each can be switched off alone."""
    limits = RateLimits(beacons=None)

    assert (limits.limit("beacons"), limits.limit("api")) == (None, Limit("api", 100, 1_000))


def test_the_window_is_the_time_to_fill_an_empty_bucket():
    """Whole seconds, as the header field wants them."""
    assert (Limit("a", 100, 1_000).window, Limit("a", 3, 10).window, Limit("a", 100, 1).window) == (10, 4, 1)
