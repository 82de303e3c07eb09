"""What goes out: whom it reaches, whom it must not reach, and how long it waits."""

from __future__ import annotations

import datetime as dt
import gzip
import logging
import ssl
import uuid
from collections.abc import Sequence
from ipaddress import ip_network

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from goodanalytics.errors import InvalidInput
from goodanalytics.outbound import AddressRefused, Limits, Outbound, Pinned, checked_address, resolved
from goodanalytics.platforms import Notice, Request, Response, Verdict, Webhook
from tests.platforms.standins import NOW
from tests.standins import Cut, Drip, Elsewhere, Endless, Instead, Silent, Stage, page, serving
from tests.standins.meta import Meta
from tests.standins.receiver import BROKEN, SECRET, Receiver, moved

LOOPBACK = (ip_network("127.0.0.0/8"),)
NOTICE = Notice(
    dispatch_id=uuid.UUID(int=7), id="msg_1", type="sale.created", occurred_at=NOW, data={"name": "Ada"}
)
PATH = "/hooks/T0p-secret"


class Names:
    """A resolver that answers in turn, the last answer for ever, and remembers what it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Wire(httpx.AsyncBaseTransport):
    """Remembers what reached it; *dead* addresses do not answer."""

    def __init__(self, *dead: str) -> None:
        self.dead = dead
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host in self.dead:
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(204)


def asked(url: str) -> Request:
    return Webhook(url=url).build([NOTICE], {"signing_secret": SECRET}, NOW)


@pytest.fixture(scope="module")
def stage():
    stage = Stage()
    with serving(stage):
        yield stage


@pytest.fixture
def receiver(stage):
    receiver = Receiver()
    stage.enter(receiver)
    return receiver


def out(receiver: Receiver | None = None, limits: Limits | None = None) -> Outbound:
    """A way out that may lead to loopback."""
    more = {} if limits is None else {"to_receivers": limits}
    return Outbound(networks=LOOPBACK, **more)


# ── whom it reaches ──


async def test_a_host_is_asked_for_once_and_what_was_found_is_connected_to():
    """A name that leads inside when it is asked a second time (DNS rebinding) never is; name and certificate stay its own."""
    names, wire = Names(["9.9.9.9"], ["127.0.0.1"]), Wire()

    answer = await Pinned(wire, names).send(httpx.Request("POST", "https://receiver.example:8443/hooks"))

    (sent,) = wire.requests
    assert (answer.status_code, names.asked) == (204, [("receiver.example", 8443)])
    assert str(sent.url) == "https://9.9.9.9:8443/hooks"
    assert (sent.headers["host"], sent.extensions["sni_hostname"]) == (
        "receiver.example:8443",
        "receiver.example",
    )


async def test_the_next_address_is_tried_when_one_does_not_answer():
    """Some hosts have an address of IPv6 that cannot be reached from here."""
    wire = Wire("2620:fe::9")

    await Pinned(wire, Names(["2620:fe::9", "9.9.9.9"])).send(
        httpx.Request("POST", "https://receiver.example/")
    )

    assert [str(request.url) for request in wire.requests] == ["https://[2620:fe::9]/", "https://9.9.9.9/"]


async def test_not_every_address_is_tried():
    """A host with a thousand dead addresses costs three tries."""
    dead = [f"9.9.9.{number}" for number in range(100)]
    wire = Wire(*dead)

    with pytest.raises(httpx.ConnectError):
        await Pinned(wire, Names(dead)).send(httpx.Request("POST", "https://receiver.example/"))

    assert len(wire.requests) == 3


REFUSED = {
    "inside": ("https://receiver.example/", ["10.1.2.3"], "not_public"),
    "one of two is inside": ("https://receiver.example/", ["9.9.9.9", "127.0.0.1"], "not_public"),
    "a cloud's own service": ("https://receiver.example/", ["169.254.169.254"], "not_public"),
    "IPv4 in IPv6": ("https://receiver.example/", ["::ffff:10.1.2.3"], "not_public"),
    "no address": ("https://receiver.example/", [], "unresolved"),
    "no address, but a word": ("https://receiver.example/", ["receiver"], "unresolved"),
    "without TLS": ("http://receiver.example/", ["9.9.9.9"], "scheme"),
    "a file": ("file:///etc/passwd", ["9.9.9.9"], "scheme"),
    "a password": ("https://ada:secret@receiver.example/", ["9.9.9.9"], "userinfo"),
    "a mail server": ("https://receiver.example:25/", ["9.9.9.9"], "port"),
}


@pytest.mark.parametrize(("url", "addresses", "code"), REFUSED.values(), ids=REFUSED)
async def test_where_nothing_is_sent(url, addresses, code):
    """Not a byte goes to an address that is not public, and the reason does not repeat it."""
    wire = Wire()

    with pytest.raises(AddressRefused) as caught:
        await Pinned(wire, Names(addresses)).send(httpx.Request("POST", url))

    assert (caught.value.code, wire.requests) == (code, [])
    assert "receiver.example" not in str(caught.value)
    assert "secret" not in str(caught.value)


DISGUISED = [
    "localhost",
    "127.0.0.1",
    "[::1]",
    "127.1",
    "0x7f.0.0.1",
    "2130706433",
    "[::ffff:127.0.0.1]",
    "0",
]


@pytest.mark.parametrize("host", DISGUISED)
async def test_loopback_in_disguise_is_refused(host, stage, receiver):
    """Whatever the operating system takes for an address of this machine is one."""
    url = f"https://{host}:{httpx.URL(stage.address).port}{PATH}"
    async with Outbound() as outbound:
        answer = await outbound.to_receiver(asked(url))

    assert isinstance(answer, Verdict)
    assert (answer.status, answer.code in {"address_not_public", "address_unresolved"}) == ("retry", True)
    assert receiver.calls == []


async def test_a_network_of_ones_own_may_be_named(stage, receiver):
    """Only for development and for receivers inside; TLS is not asked for there."""
    async with out() as outbound:
        answer = await outbound.to_receiver(asked(f"{stage.address}{PATH}"))

    assert isinstance(answer, Response)
    assert (answer.status, receiver.faults, dict(receiver.accepted)) == (200, [], {"msg_1": 1})


async def test_the_operating_system_says_each_address_once():
    """`getaddrinfo` repeats them for each kind of socket."""
    assert await resolved("127.0.0.1", 443) == ["127.0.0.1"]


# ── TLS ──


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for receiver.example that signs itself, and a context that trusts it."""
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.example")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder, ssl.create_default_context(cafile=folder / "cert.pem")


@pytest.fixture(scope="module")
def tls_stage(authority):
    folder, _ = authority
    stage = Stage()
    with serving(stage, ssl_certfile=folder / "cert.pem", ssl_keyfile=folder / "key.pem"):
        yield stage


@pytest.mark.parametrize(
    ("host", "expected"),
    [("receiver.example", 200), ("another.example", "tls")],
    ids=["its own", "another's"],
)
async def test_a_certificate_is_that_of_the_name(authority, tls_stage, host, expected):
    """The connection goes to an address, and the certificate is still asked for by name."""
    receiver = Receiver()
    tls_stage.enter(receiver)
    port = httpx.URL(tls_stage.address).port
    async with Outbound(networks=LOOPBACK, resolve=Names(["127.0.0.1"]), verify=authority[1]) as outbound:
        answer = await outbound.to_receiver(asked(f"https://{host}:{port}{PATH}"))

    actual = answer.status if isinstance(answer, Response) else answer.code
    assert (actual, len(receiver.calls)) == (expected, 1 if expected == 200 else 0)


async def test_two_names_of_one_address_share_no_connection(authority, tls_stage):
    """What was proved for one name proves nothing for another one behind the same address."""
    tls_stage.enter(Receiver())
    port = httpx.URL(tls_stage.address).port
    hosts = ("receiver.example", "another.example")
    async with Outbound(networks=LOOPBACK, resolve=Names(["127.0.0.1"]), verify=authority[1]) as outbound:
        answers = [await outbound.to_receiver(asked(f"https://{host}:{port}{PATH}")) for host in hosts]

    assert [answer.status for answer in answers] == [200, "retry"]


async def test_a_certificate_that_nobody_vouches_for(tls_stage):
    """What signs itself is refused unless it is trusted."""
    async with Outbound(networks=LOOPBACK) as outbound:
        answer = await outbound.to_receiver(asked(f"{tls_stage.address}{PATH}"))

    assert isinstance(answer, Verdict)
    assert (answer.status, answer.code) == ("retry", "tls")


# ── what comes back ──

IMPATIENT = Limits(silence=0.2)
IN_A_HURRY = Limits(total=0.25)
LONG = Instead(Response(status=200, body=b"{" + b" " * 50_000 + b"}"))
BAD_DAYS = {
    "no answer": (Silent(), IMPATIENT, "timeout"),
    "a long answer": (LONG, Limits(), 200),
    "a cut connection": (Cut("before"), Limits(), "cut"),
    "a receiver's own fault": (BROKEN, Limits(), 500),
    "a proxy's page": (page(502), Limits(), 502),
}


@pytest.mark.parametrize(("way", "limits", "expected"), BAD_DAYS.values(), ids=BAD_DAYS)
async def test_a_receivers_bad_days(stage, receiver, way, limits, expected, caplog):
    """An answer or a verdict, never an exception; and no log line, however much is logged, tells the address."""
    caplog.set_level(logging.DEBUG)
    receiver.next(way)
    async with out(limits=limits) as outbound:
        answer = await outbound.to_receiver(asked(f"{stage.address}{PATH}"))

    assert (answer.status if isinstance(answer, Response) else answer.code) == expected
    assert receiver.faults == []
    assert "T0p-secret" not in f"{caplog.text}{answer!r}"


async def test_a_byte_at_a_time_is_not_silence_and_ends_all_the_same(stage):
    """The whole answer has a deadline of its own."""
    meta = Meta()
    stage.enter(meta)
    meta.next(Drip(0.1))
    async with (
        Elsewhere(meta) as elsewhere,
        Outbound(transport=elsewhere, to_platforms=IN_A_HURRY) as outbound,
    ):
        answer = await outbound.to_platform(
            Request(url="https://graph.facebook.com/v26.0/1/events", headers={}, body=b"")
        )

    assert isinstance(answer, Verdict)
    assert (answer.status, answer.code) == ("retry", "timeout")


async def test_a_redirect_is_an_answer_and_nothing_else(stage, receiver, caplog):
    """It is not followed, not even to where we are already; the address in it is not logged."""
    caplog.set_level(logging.DEBUG)
    receiver.next(moved(f"{stage.address}{PATH}/"))
    async with out() as outbound:
        answer = await outbound.to_receiver(asked(f"{stage.address}{PATH}"))

    assert isinstance(answer, Response)
    assert (answer.status, len(receiver.calls)) == (307, 1)
    assert "T0p-secret" not in caplog.text


async def test_others_still_log_with_the_same_library(stage, receiver, caplog):
    """Only our own requests are quiet; the host's are its own."""
    caplog.set_level(logging.DEBUG)
    async with out() as outbound, httpx.AsyncClient() as client:
        await outbound.to_receiver(asked(f"{stage.address}{PATH}"))
        quiet = "receive_response_headers" in caplog.text
        await client.post(f"{stage.address}{PATH}")

    assert (quiet, "receive_response_headers" in caplog.text) == (False, True)


async def test_an_endless_answer_is_read_up_to_its_bound(stage, receiver):
    """The rest is not waited for."""
    receiver.next(Endless())
    async with out(limits=Limits(body=100_000)) as outbound:
        answer = await outbound.to_receiver(asked(f"{stage.address}{PATH}"))

    assert isinstance(answer, Response)
    assert (answer.status, len(answer.body)) == (200, 100_000)


async def test_a_bomb_is_not_unpacked(stage, receiver):
    """We ask for nothing compressed, and what comes so stays so."""
    bomb = gzip.compress(b"a" * 10_000_000)
    receiver.next(Instead(Response(status=200, headers={"content-encoding": "gzip"}, body=bomb)))
    async with out() as outbound:
        answer = await outbound.to_receiver(asked(f"{stage.address}{PATH}"))

    assert isinstance(answer, Response)
    assert answer.body == bomb
    assert receiver.calls[0].headers["accept-encoding"] == "identity"


async def test_a_cookie_is_not_kept(stage, receiver):
    """The stand-in refuses a request with a cookie; each request stands for itself."""
    receiver.next(Instead(Response(status=204, headers={"set-cookie": "who=us; Path=/"})))
    async with out() as outbound:
        for _ in range(2):
            await outbound.to_receiver(asked(f"{stage.address}{PATH}"))

    assert (receiver.faults, len(receiver.calls)) == ([], 2)


@pytest.mark.parametrize("token", ["a-secret\ntoken", "a-secret-tökén"], ids=["a line break", "a letter"])
async def test_a_credential_that_fits_no_header(stage, token, caplog):
    """Trying again mends nothing; the cure is told, and the value is not, however much is logged."""
    caplog.set_level(logging.DEBUG)
    meta = Meta()
    stage.enter(meta)
    request = Request(
        url=f"{stage.address}/v26.0/1/events", headers={"authorization": f"Bearer {token}"}, body=b"{}"
    )
    async with Outbound() as outbound:
        answer = await outbound.to_platform(request)

    assert isinstance(answer, Verdict)
    assert (answer.status, answer.code, meta.calls) == ("credential", "unusable_credential", [])
    assert "a-secret" not in f"{caplog.text}{answer!r}"


async def test_nobody_there(stage):
    """A closed port is no exception."""
    with serving(Receiver()) as (address,):
        pass
    async with out() as outbound:
        answer = await outbound.to_receiver(asked(f"{address}{PATH}"))

    assert isinstance(answer, Verdict)
    assert (answer.status, answer.code) == ("retry", "unreachable")


async def test_it_opens_again_after_it_was_closed(stage, receiver):
    """A stop and a start of the app leave it as it was."""
    outbound = out()
    for _ in range(2):
        await outbound.to_receiver(asked(f"{stage.address}{PATH}"))
        await outbound.aclose()

    assert dict(receiver.accepted) == {"msg_1": 2}


# ── addresses as they are typed ──

TYPED = {
    "an address": ("https://Receiver.example/hooks?a=1", "https://receiver.example/hooks?a=1"),
    "letters of any script": ("https://bücher.example/", "https://xn--bcher-kva.example/"),
    "a port": ("https://receiver.example:8443/", "https://receiver.example:8443/"),
}


@pytest.mark.parametrize(("text", "expected"), TYPED.values(), ids=TYPED)
def test_an_address_has_one_form(text, expected):
    """As it is sent."""
    assert checked_address(text) == expected


MISTYPED = {
    "no address": "receiver",
    "nothing": "",
    "another scheme": "ftp://receiver.example/T0p",
    "not secure": "http://receiver.example/T0p",
    "no host": "https:///T0p",
    "a password": "https://ada:T0p@receiver.example/",
    "another service": "https://receiver.example:22/T0p",
    "a port that there is not": "https://receiver.example:65536/T0p",
    "a fragment": "https://receiver.example/#T0p",
    "a line break": "https://receiver.example/\nT0p",
    "a space": " https://receiver.example/T0p",
    "too long": f"https://receiver.example/T0p{'a' * 2_000}",
    "half an IPv6": "https://[::1/T0p",
}


@pytest.mark.parametrize("text", MISTYPED.values(), ids=MISTYPED)
def test_what_is_no_address_is_refused_and_not_repeated(text):
    """Some addresses are secrets; the message has the cure."""
    with pytest.raises(InvalidInput, match=r"https") as caught:
        checked_address(text)

    assert "T0p" not in str(caught.value)
    assert caught.value.where == "url"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_inside_a_network_of_ones_own_http_will_do():
    """Whom it leads to is looked at when something is sent."""
    assert checked_address("http://10.1.2.3:8080/hooks", insecure=True) == "http://10.1.2.3:8080/hooks"
