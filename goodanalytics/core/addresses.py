"""
Which IP addresses are on the public Internet.

1. What is refused stands here and not in `ipaddress.is_global`, whose answers differ between versions of Python, and which
   calls multicast and the translators of IPv6 global.
2. IPv4 is public unless it is in IANA's table of special purposes; globally reachable services in that table, such as the
   anycast relays, are no receivers of anybody: https://www.iana.org/assignments/iana-ipv4-special-registry (read 2026-11).
3. IPv6 is public only within 2000::/3, which is all that is given out, less what is special there:
   https://www.iana.org/assignments/iana-ipv6-special-registry. That leaves out loopback, link-local, unique local, multicast,
   `::ffff:0:0/96` (IPv4-mapped) and `64:ff9b::/96` (NAT64), behind which any IPv4 address may stand.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

SPECIAL_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; clouds answer here with their machines' credentials
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnelling
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
GIVEN_OUT_V6: Final = IPv6Network("2000::/3")
SPECIAL_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """
    Whether *address* is that of one machine on the public Internet.

    >>> from ipaddress import ip_address
    >>> [is_public(ip_address(text)) for text in ("9.9.9.9", "2620:fe::9", "169.254.169.254", "::ffff:9.9.9.9")]
    [True, True, False, False]
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in SPECIAL_V4)
    return address in GIVEN_OUT_V6 and not any(address in network for network in SPECIAL_V6)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether *address* is in one of *networks*; an IPv4-mapped one is not in any of IPv4."""
    return any(address.version == network.version and address in network for network in networks)


__all__ = ["Address", "Network", "is_public", "is_within"]
