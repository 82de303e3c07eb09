"""Webhooks against the vectors of Standard Webhooks, and what a receiver's answer means."""

from __future__ import annotations

import uuid
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from goodanalytics.errors import InvalidInput
from goodanalytics.platforms import Notice, Request, Response, Webhook
from goodanalytics.platforms.webhook import new_secret, signature, verified

# https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/javascript/src/webhook.test.ts
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_AT = datetime.fromtimestamp(1614265330, UTC)
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOOK = Webhook(url="https://receiver.example/hooks")
NOTICE = Notice(
    dispatch_id=uuid.UUID(int=7),
    id="msg_sale-A-1001",
    type="sale.created",
    occurred_at=NOW - timedelta(hours=1),
    data={"amount_cents": 4900, "email": "ada@example.org"},
)


def test_the_published_vector():
    """The specification's own libraries all sign this so."""
    actual = signature(SECRET, VECTOR_ID, VECTOR_AT, VECTOR_BODY)

    assert actual == VECTOR


def test_the_golden_request():
    """Id and time stand in headers, and what is signed is what is sent."""
    request = HOOK.build([NOTICE], {"signing_secret": SECRET}, NOW)

    body = b'{"type":"sale.created","timestamp":"2026-11-20T11:00:00Z","data":{"amount_cents":4900,"email":"ada@example.org"}}'
    assert request == Request(
        url="https://receiver.example/hooks",
        headers={
            "content-type": "application/json",
            "webhook-id": "msg_sale-A-1001",
            "webhook-timestamp": "1795176000",
            "webhook-signature": signature(SECRET, "msg_sale-A-1001", NOW, body),
        },
        body=body,
    )


def test_a_second_try_has_the_same_id_and_a_new_time():
    """So a receiver can drop what it has seen, and what is old."""
    first, second = (
        HOOK.build([NOTICE], {"signing_secret": SECRET}, NOW + timedelta(hours=hours)) for hours in (0, 5)
    )

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert verified(second.headers, second.body, SECRET, NOW + timedelta(hours=5))


def test_while_a_secret_changes_both_sign():
    """A receiver with either of them believes us."""
    fresh = new_secret(bytes(range(32)))
    request = HOOK.build([NOTICE], {"signing_secret": fresh, "previous_signing_secret": SECRET}, NOW)

    actual = [verified(request.headers, request.body, secret, NOW) for secret in (fresh, SECRET)]

    assert actual == [True, True]


@pytest.mark.parametrize("with_public_half", [False, True])
def test_a_private_key_signs_for_its_public_half(with_public_half):
    """`v1a` is Ed25519; the key may be written as libsodium writes it, with the public half behind."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    written = key.private_bytes_raw() + (key.public_key().public_bytes_raw() if with_public_half else b"")

    version, _, encoded = signature(
        f"whsk_{b64encode(written).decode()}", VECTOR_ID, VECTOR_AT, VECTOR_BODY
    ).partition(",")

    signed = f"{VECTOR_ID}.1614265330.".encode() + VECTOR_BODY
    key.public_key().verify(b64decode(encoded), signed)  # raises when it is another's
    assert version == "v1a"


GOOD = {"webhook-id": VECTOR_ID, "webhook-timestamp": "1614265330", "webhook-signature": VECTOR}
FORGED = {
    "as it was sent": (GOOD, VECTOR_BODY, timedelta(), True),
    "within five minutes": (GOOD, VECTOR_BODY, timedelta(minutes=5), True),
    "among others": (
        GOOD | {"webhook-signature": f"v1,bm9wZQ== v1a,bm9wZQ== {VECTOR}"},
        VECTOR_BODY,
        timedelta(),
        True,
    ),
    "another body": (GOOD, b'{"test": 2432232315}', timedelta(), False),
    "another id": (GOOD | {"webhook-id": "msg_other"}, VECTOR_BODY, timedelta(), False),
    "another time": (GOOD | {"webhook-timestamp": "1614265331"}, VECTOR_BODY, timedelta(), False),
    "too late": (GOOD, VECTOR_BODY, timedelta(minutes=6), False),
    "too early": (GOOD, VECTOR_BODY, timedelta(minutes=-6), False),
    "no time": (GOOD | {"webhook-timestamp": "now"}, VECTOR_BODY, timedelta(), False),
    "no signature": ({**GOOD, "webhook-signature": ""}, VECTOR_BODY, timedelta(), False),
    "another version": (GOOD | {"webhook-signature": f"v2{VECTOR[2:]}"}, VECTOR_BODY, timedelta(), False),
    "letters beyond ASCII": (GOOD | {"webhook-signature": "v1,ü"}, VECTOR_BODY, timedelta(), False),
    "no headers": ({}, VECTOR_BODY, timedelta(), False),
}


@pytest.mark.parametrize(("headers", "body", "later", "expected"), FORGED.values(), ids=FORGED)
def test_who_is_believed(headers, body, later, expected):
    """Only what was signed with the secret, in the last five minutes."""
    actual = verified(headers, body, SECRET, VECTOR_AT + later)

    assert actual is expected


ANSWERS = {
    200: ("delivered", "http_200"),
    204: ("delivered", "http_204"),
    302: ("retry", "http_302"),
    401: ("retry", "http_401"),
    404: ("retry", "http_404"),
    410: ("permanent", "gone"),
    429: ("rate_limited", "http_429"),
    500: ("retry", "http_500"),
}


@pytest.mark.parametrize(("status", "expected"), ANSWERS.items())
def test_what_an_answer_means(status, expected):
    """2xx is success, 410 is farewell, all else is tried again; a redirect is not followed."""
    (outcome,) = HOOK.read([NOTICE], Response(status=status, body=b"ada@example.org"))

    assert (outcome.status, outcome.code, outcome.message) == (*expected, f"HTTP {status}")


def test_a_receivers_wish_is_kept():
    """`Retry-After` goes with the outcome."""
    (outcome,) = HOOK.read([NOTICE], Response(status=503, headers={"retry-after": "30"}))

    assert outcome.retry_after == timedelta(seconds=30)


BAD_SECRETS = {
    "too short": "whsec_c2hvcnQ=",
    "not base64": "whsec_!!!",
    "empty": "",
    "a short key": "whsk_c2hvcnQ=",
}


@pytest.mark.parametrize("secret", BAD_SECRETS.values(), ids=BAD_SECRETS)
def test_a_bad_secret_is_refused_and_not_told(secret):
    """The message says what is wrong and what to do, never the value."""
    with pytest.raises(InvalidInput, match="at least 24 bytes in base64; make a new one") as caught:
        signature(secret, VECTOR_ID, VECTOR_AT, VECTOR_BODY)

    assert secret == "" or secret not in str(caught.value)


@pytest.mark.parametrize("length", [0, 23, 65])
def test_a_secret_is_long_enough(length):
    """24 to 64 bytes, as the specification says."""
    with pytest.raises(InvalidInput, match=f"not of {length}"):
        new_secret(bytes(length))


def test_a_new_secret_signs():
    """What is made can be used."""
    secret = new_secret(bytes(24))

    assert (secret[:6], signature(secret, "a", NOW, b"")[:3]) == ("whsec_", "v1,")


def test_a_notice_shows_nothing_of_its_data():
    """What lands in a log line names the notice, not the person."""
    assert f"{NOTICE!r}{NOTICE}".count("ada@example.org") == 0


def test_an_address_may_be_a_secret_and_is_not_shown():
    """Neither the receiver nor the request to it tells path, query or password."""
    hook = Webhook(url="https://ada:secret@receiver.example/hooks/T0p-secret")
    request = hook.build([NOTICE], {"signing_secret": SECRET}, NOW)

    assert "secret@" not in f"{hook!r}{request!r}"
    assert "T0p" not in f"{hook!r}{request!r}"
    assert repr(request) == f"Request(POST receiver.example, {len(request.body)} bytes)"


def test_the_official_library_believes_us(monkeypatch):
    """Standard Webhooks' own Python library verifies what we sign (standardwebhooks, a dev dependency)."""
    library = pytest.importorskip("standardwebhooks.webhooks")

    class Clock(datetime):
        @classmethod
        def now(cls, tz):
            return NOW.astimezone(tz)

    monkeypatch.setattr(library, "datetime", Clock)
    request = HOOK.build([NOTICE], {"signing_secret": SECRET}, NOW)

    actual = library.Webhook(SECRET).verify(request.body, request.headers)

    assert actual["type"] == "sale.created"
