"""
Looks up addresses in a MaxMind database (``.mmdb``) that the host provides; no data is shipped.

The rules of this file:

* The file is mapped into memory and a look-up is two microseconds of arithmetic, so it is called directly, without a thread.
* A new file is picked up by itself: every 1,000 look-ups the file's (mtime, inode) is compared, and on a change a new reader
  takes the old one's place. The old one is never closed, because another thread may be reading in it; it goes when nobody holds it.
* Replace the file with ``mv`` (an atomic rename). Writing into the mapped file changes what readers see half way.
* A file that cannot be read at the start is a `ConfigError`; one that cannot be read later is logged, and the old one serves on.
* Addresses that are nobody's place (private, loopback, link-local, carrier NAT) are not looked up.

Source of the measurements: dependencies.md, section 4.
"""

import logging
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

import maxminddb

from goodanalytics.core.places import COUNTRY_HEADERS, Place, from_headers, from_record
from goodanalytics.errors import ConfigError

__all__ = ["COUNTRY_HEADERS", "GeoReader", "Place", "from_headers"]

log = logging.getLogger(__name__)

# Not `is_private`: that also covers the documentation ranges, which databases for tests are made of.
_NOWHERE: Final = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
        "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip


class GeoReader:
    """
    A database of addresses that renews itself.

    Args:
        path: The ``.mmdb`` file.
        check_every: Look-ups between two looks at whether the file was replaced; at least 1.

    Raises:
        ConfigError: The file is missing or is no MaxMind database.
    """

    def __init__(self, path: Path, *, check_every: int = 1000) -> None:
        if check_every < 1:
            raise ConfigError(f"check_every is {check_every}; it counts look-ups and must be at least 1.")
        self._path = Path(path)
        self._check_every = check_every
        self._lookups = 0
        try:
            self._identity = self._on_disk()
            self._reader = maxminddb.open_database(self._path)
        except FileNotFoundError as error:
            raise ConfigError(
                f"geo_path is {self._path}, where there is no file. Download a .mmdb database (GeoLite2-City, DB-IP lite) to it, "
                "or leave geo_path empty to do without places."
            ) from error
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise ConfigError(
                f"geo_path is {self._path}, which cannot be read as a MaxMind database ({error}). Give the path of a whole .mmdb file "
                "that this process may read."
            ) from error

    def lookup(self, ip: str) -> Place | None:
        """
        Return the place of *ip*; ``None`` when it is no address, nobody's place, or not in the database.

        Every `check_every` look-ups this also looks at the file, and takes a new one into use.
        """
        self._lookups += 1
        if self._lookups >= self._check_every:
            self._lookups = 0
            self._renew()
        address = _address(ip)
        if address is None or any(address in network for network in _NOWHERE):
            return None
        try:
            return from_record(self._reader.get(address))
        except ValueError:
            # An IPv6 address in a database that holds IPv4 only.
            return None
        except maxminddb.InvalidDatabaseError as error:
            log.warning("The geo database %s is damaged (%s); download it again.", self._path, error)
            return None

    def _on_disk(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino

    def _renew(self) -> None:
        """Take a replaced file into use; keep the present one when the new one cannot be read."""
        try:
            identity = self._on_disk()
            if identity == self._identity:
                return
            reader = maxminddb.open_database(self._path)
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            log.warning(
                "The new geo database %s cannot be read (%s); the one in memory serves on.", self._path, error
            )
            return
        self._reader, self._identity = reader, identity


def _address(ip: str) -> IPv4Address | IPv6Address | None:
    """Return *ip* as an address, an IPv4 one that is mapped into IPv6 as itself; ``None`` when it is none."""
    try:
        address = ip_address(ip.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address
