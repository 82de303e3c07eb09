"""Which addresses a stranger's webhook may lead to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from goodanalytics.core.addresses import is_public, is_within

PUBLIC = [
    "1.1.1.1",
    "9.9.9.9",
    "100.63.255.255",
    "172.32.0.1",
    "223.255.255.255",
    "2620:fe::9",
    "2a00:1450::1",
]
NOT_PUBLIC = {
    "this network": "0.0.0.0",
    "private, of companies": "10.1.2.3",
    "private, of containers": "172.17.0.1",
    "private, of homes": "192.168.1.1",
    "carrier-grade NAT": "100.64.0.1",
    "loopback": "127.0.0.1",
    "loopback, all of it": "127.255.255.254",
    "link-local, where clouds keep credentials": "169.254.169.254",
    "documentation": "203.0.113.9",
    "benchmarks": "198.19.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "nowhere in IPv6": "::",
    "loopback in IPv6": "::1",
    "link-local in IPv6": "fe80::1",
    "link-local with its interface": "fe80::1%eth0",
    "unique local": "fd00::1",
    "multicast in IPv6": "ff02::1",
    "IPv4-mapped": "::ffff:127.0.0.1",
    "IPv4-mapped of a public one": "::ffff:1.1.1.1",
    "IPv4-compatible": "::127.0.0.1",
    "NAT64": "64:ff9b::7f00:1",
    "NAT64 of one's own": "64:ff9b:1::7f00:1",
    "6to4 of a private one": "2002:a00:1::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "documentation in IPv6": "2001:db8::1",
    "newer documentation in IPv6": "3fff::1",
    "segment routing": "5f00::1",
    "site-local, which is history": "fec0::1",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_machine_on_the_internet_is_public(address):
    """Also the neighbours of what is not."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC.values(), ids=NOT_PUBLIC)
def test_what_is_special_is_not_public(address):
    """Neither ours nor anybody's inside, in whatever clothes it comes."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    ("address", "expected"), [("10.1.2.3", True), ("10.1.3.3", False), ("::ffff:10.1.2.3", False)]
)
def test_a_network_has_its_own_addresses_and_no_others(address, expected):
    """An IPv4-mapped address is another one."""
    assert is_within(ip_address(address), [ip_network("fd00::/8"), ip_network("10.1.2.0/24")]) is expected
