"""Places are read from nested and flat databases, which may be replaced while they are read."""

import logging

import maxminddb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from goodanalytics.core.places import COUNTRY_HEADERS, Place, from_headers, from_record
from goodanalytics.errors import ConfigError
from goodanalytics.geo import GeoReader

NESTED = {
    "continent": {"code": "EU", "names": {"en": "Europe", "de": "Europa"}},
    "country": {"iso_code": "DE", "names": {"en": "Germany", "de": "Deutschland"}},
    "subdivisions": [{"iso_code": "BY", "names": {"en": "Bavaria"}}, {"names": {"en": "Upper Bavaria"}}],
    "city": {"names": {"en": "Munich", "de": "München"}},
    "location": {"latitude": 48.1, "longitude": 11.6, "time_zone": "Europe/Berlin"},
}
MUNICH = Place("DE", "Germany", "Bavaria", "Munich", "EU", "Europe/Berlin", 48.1, 11.6, "BY")
FLAT = {
    "country_code": "nl",
    "state1": "North Holland",
    "city": "Amsterdam",
    "latitude": "52.4",
    "longitude": "4.9",
}
AMSTERDAM = Place("NL", None, "North Holland", "Amsterdam", None, None, 52.4, 4.9)


def write(path, networks, *, ip_version=6):
    """Put a database of *networks* in the place of *path*, as an update does it."""
    writer = MMDBWriter(
        ip_version, "test", ipv4_compatible=ip_version == 6, languages=["en"], description="test"
    )
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    new = path.with_suffix(".new")
    writer.to_db_file(str(new))
    new.replace(path)
    return path


@pytest.fixture
def database(tmp_path):
    """A database with a nested, a flat and an odd record."""
    return write(
        tmp_path / "places.mmdb",
        {
            "203.0.113.0/24": NESTED,
            "198.51.100.0/24": FLAT,
            "192.0.2.0/24": {"country": "x", "city": 7},
            "10.0.0.0/8": NESTED,
            "2001:db8::/32": FLAT,
        },
    )


LOOKUPS = {
    "nested": ("203.0.113.7", MUNICH),
    "flat": ("198.51.100.1", AMSTERDAM),
    "IPv6": ("2001:db8::1", AMSTERDAM),
    "IPv4 mapped into IPv6": ("::ffff:203.0.113.7", MUNICH),
    "spaces around": (" 203.0.113.7 ", MUNICH),
    "a record that tells nothing": ("192.0.2.1", None),
    "not in the database": ("8.8.8.8", None),
    "private, though the database has it": ("10.1.2.3", None),
    "loopback": ("127.0.0.1", None),
    "loopback of IPv6": ("::1", None),
    "carrier NAT": ("100.64.0.1", None),
    "link-local with its zone": ("fe80::1%eth0", None),
    "octets out of range": ("300.1.1.1", None),
    "with a port": ("203.0.113.7:80", None),
    "a hundred characters": ("1" * 100, None),
    "empty": ("", None),
    "a name": ("localhost", None),
}


@pytest.mark.parametrize(("ip", "place"), LOOKUPS.values(), ids=LOOKUPS)
def test_lookup(database, ip, place):
    """An address has the place that the database tells, or none."""
    assert GeoReader(database).lookup(ip) == place


def test_an_ipv6_address_in_a_database_of_ipv4(tmp_path):
    """A database that cannot hold the address does not tell its place."""
    reader = GeoReader(write(tmp_path / "v4.mmdb", {"203.0.113.0/24": NESTED}, ip_version=4))

    assert reader.lookup("2001:db8::1") is None
    assert reader.lookup("203.0.113.1") == MUNICH


def test_a_missing_file(tmp_path):
    """The error names the file and says what to do."""
    with pytest.raises(ConfigError, match=r"geo_path is .*absent\.mmdb, where there is no file\. Download"):
        GeoReader(tmp_path / "absent.mmdb")


def test_a_file_that_is_no_database(tmp_path):
    """A broken download stops the start."""
    path = tmp_path / "broken.mmdb"
    path.write_text("<html>not found</html>")

    with pytest.raises(ConfigError, match=r"cannot be read as a MaxMind database"):
        GeoReader(path)


def test_a_replaced_file_is_taken_into_use(database):
    """A new file counts from the look-up at which the reader looks again, not before."""
    reader = GeoReader(database, check_every=3)
    write(database, {"203.0.113.0/24": FLAT})
    first = [reader.lookup("203.0.113.7") for _ in range(3)]
    write(database, {"203.0.113.0/24": NESTED})
    second = [reader.lookup("203.0.113.7") for _ in range(3)]

    assert (first, second) == ([MUNICH, MUNICH, AMSTERDAM], [AMSTERDAM, AMSTERDAM, MUNICH])


def test_the_old_reader_is_not_closed(database):
    """Another thread may be reading in the old database at the moment of the change."""
    reader = GeoReader(database, check_every=1)
    old = reader._reader
    write(database, {"203.0.113.0/24": FLAT})
    reader.lookup("203.0.113.7")

    assert reader._reader is not old
    assert old.get("203.0.113.7") == NESTED


def test_an_unchanged_file_is_not_opened_again(database):
    """Looking costs one stat."""
    reader = GeoReader(database, check_every=1)
    old = reader._reader
    reader.lookup("203.0.113.7")

    assert reader._reader is old


@pytest.mark.parametrize("broken", [True, False], ids=["broken", "gone"])
def test_a_bad_replacement_is_logged_and_the_old_one_serves_on(database, caplog, broken):
    """A failed download does not take the places away."""
    reader = GeoReader(database, check_every=1)
    if broken:
        new = database.with_suffix(".new")
        new.write_text("x")
        new.replace(database)
    else:
        database.unlink()

    with caplog.at_level(logging.WARNING):
        assert reader.lookup("203.0.113.7") == MUNICH
    assert "serves on" in caplog.text


def test_a_damaged_record_is_logged(database, caplog, monkeypatch):
    """Damage inside the file costs the place, not the visit."""

    class Damaged:
        def get(self, _):
            raise maxminddb.InvalidDatabaseError("bad pointer")

    reader = GeoReader(database)
    reader._reader = Damaged()

    with caplog.at_level(logging.WARNING):
        assert reader.lookup("203.0.113.7") is None
    assert "bad pointer" in caplog.text


def test_check_every_counts_lookups(database):
    """A reader that would look every zero look-ups is refused."""
    with pytest.raises(ConfigError, match=r"check_every is 0"):
        GeoReader(database, check_every=0)


RECORDS = {
    "a name without English": ({"country": {"iso_code": "DE", "names": {"de": "Deutschland"}}}, Place(country="DE")),
    "the first subdivision": ({"subdivisions": [{"names": {"en": "A"}}, {"names": {"en": "B"}}]}, Place(region="A")),
    "a region's code after its country's": ({"country_code": "us", "region_code": "us-ca"}, Place("US", region_code="CA")),
    "a region's code that is none": ({"city": "A", "subdivisions": [{"iso_code": "FLEVOLAND"}]}, Place(city="A")),
    "as ipinfo writes it": ({"country": "US", "country_name": "United States", "continent": "NA"}, Place("US", "United States", continent="NA")),
    "Europe is a continent but no country": ({"country_code": "EU", "continent_code": "EU"}, Place(continent="EU")),
    "not a number": ({"latitude": "x", "longitude": "nan", "city": "A"}, Place(city="A")),
    "out of range": ({"latitude": 91, "longitude": True, "city": "A"}, Place(city="A")),
    "no mapping": ([1], None),
    "nothing": (None, None),
    "an empty record": ({}, None),
    "odd members": ({"country": [1], "city": {"names": 7}, "subdivisions": {}, "location": "x"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("record", "place"), RECORDS.values(), ids=RECORDS)
def test_records(record, place):
    """Whatever a database holds is read without raising."""
    assert from_record(record) == place


HEADERS = {
    "cloudflare": ({"cf-ipcountry": "NL"}, ["CF-IPCountry"], Place(country="NL")),
    "in small letters": ({"cf-ipcountry": "nl"}, ["cf-ipcountry"], Place(country="NL")),
    "unknown": ({"cf-ipcountry": "XX"}, ["cf-ipcountry"], None),
    "tor": ({"cf-ipcountry": "T1"}, ["cf-ipcountry"], None),
    "a word": ({"cf-ipcountry": "Netherlands"}, ["cf-ipcountry"], None),
    "two signs that are no letters": ({"cf-ipcountry": "1é"}, ["cf-ipcountry"], None),
    "absent": ({}, ["cf-ipcountry"], None),
    "not configured": ({"cf-ipcountry": "NL"}, [], None),
    "the first that knows": ({"cf-ipcountry": "XX", "x-vercel-ip-country": "FR"}, COUNTRY_HEADERS, Place(country="FR")),
    "cloudfront": ({"cloudfront-viewer-country": "DE"}, COUNTRY_HEADERS, Place(country="DE")),
}  # fmt: skip


@pytest.mark.parametrize(("headers", "names", "place"), HEADERS.values(), ids=HEADERS)
def test_headers(headers, names, place):
    """A CDN's country counts where its header is configured, and only if it is one."""
    assert from_headers(headers, names) == place


@pytest.mark.parametrize("place", [MUNICH, AMSTERDAM, Place()], ids=["nested", "flat", "nowhere"])
def test_json(place):
    """A place comes back from its JSON, which has no empty members."""
    assert Place.from_json(place.to_json()) == place
    assert None not in place.to_json().values()


@pytest.mark.parametrize("written", [None, {}, {"country": 7, "latitude": "x"}], ids=["none", "empty", "odd"])
def test_odd_json_is_nowhere(written):
    """What nobody of ours wrote is passed over."""
    assert Place.from_json(written) == Place()


@given(ip=st.one_of(st.text(), st.ip_addresses().map(str)))
def test_any_text_is_looked_up(reader, ip):
    """Nothing that calls itself an address raises."""
    assert reader.lookup(ip) in {None, MUNICH}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A reader for the law above, which needs no fresh one for each text."""
    return GeoReader(write(tmp_path_factory.mktemp("geo") / "p.mmdb", {"203.0.113.0/24": NESTED}))
