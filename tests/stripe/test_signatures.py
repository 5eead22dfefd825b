"""Nobody but Stripe is heard: bad signatures, altered bodies, old ones, huge ones; nothing of them is stored."""

import pytest

import meterbook
from meterbook import Book
from meterbook.errors import BadEvent, BadSignature
from meterbook.stripe.gateway import StripeAccount
from meterbook.stripe.signatures import BODY_BYTES_MAX, TOLERANCE_S
from tests.ledger import P1, count
from tests.stripe.hooks import OTHER_SECRET, SECRET, Subscription, body_of, signed

CREATED = Subscription("sub_u", "user:u").event("created", P1[0])
BODY = body_of(CREATED)


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
async def test_each_live_secret_is_accepted(book: Book, secret: str) -> None:
    """Two are live while one is replaced."""
    assert (await book.apply_stripe_event(BODY, signed(BODY, secret))).state == "applied"


async def test_a_body_signed_with_both_secrets_is_accepted(book: Book) -> None:
    """As Stripe signs while a secret is being rolled: one of the signatures is enough."""
    both = signed(BODY, "whsec_gone") + "," + signed(BODY, SECRET).partition(",")[2]
    assert (await book.apply_stripe_event(BODY, both)).state == "applied"


BAD = {
    "of another secret": (BODY, signed(BODY, "whsec_other")),
    "of another body": (BODY, signed(body_of({**CREATED, "id": "evt_other"}))),
    "altered by one byte": (BODY.replace(b'"quantity": 1', b'"quantity": 9'), signed(BODY)),
    "older than the tolerance": (BODY, signed(BODY, age_s=TOLERANCE_S + 60)),
    "empty": (BODY, ""),
    "no header at all": (BODY, "nonsense"),
    "without a time": (BODY, signed(BODY).partition(",")[2]),
    "of another scheme": (BODY, signed(BODY).replace("v1=", "v0=")),
    "not ASCII": (BODY, signed(BODY)[:-1] + "é"),
    "of a body that is no UTF-8": (b"\xff" + BODY, signed(BODY)),
    "of a body of 10 MB": (b" " * 10_000_000, signed(b" " * 10_000_000)),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_signature_is_refused_and_nothing_stored(book: Book, database_url: str, name: str) -> None:
    """One error with a stable code, whatever is wrong."""
    body, signature = BAD[name]
    with pytest.raises(BadSignature) as refused:
        await book.apply_stripe_event(body, signature)
    assert refused.value.code == "bad_signature"
    assert (count(database_url, "stripe_event"), count(database_url, "subscription")) == (0, 0)


async def test_a_signature_is_good_until_the_tolerance_ends(book: Book) -> None:
    """4 minutes old, as on a slow way."""
    assert (await book.apply_stripe_event(BODY, signed(BODY, age_s=TOLERANCE_S - 60))).state == "applied"


@pytest.mark.parametrize("secrets", [(), ("",)])
async def test_without_a_secret_nothing_is_accepted(database_url: str, secrets: tuple[str, ...]) -> None:
    """An account without a webhook secret trusts nobody, also not a body signed with an empty one."""
    async with meterbook.open(database_url, stripe=StripeAccount(webhook_secrets=secrets)) as book:
        with pytest.raises(BadSignature):
            await book.apply_stripe_event(BODY, signed(BODY, ""))


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"{}", b'{"id": "evt_1", "type": "a.b", "created": true, "data": {"object": {}}}']
)
async def test_a_signed_body_that_is_no_event_is_refused(book: Book, database_url: str, body: bytes) -> None:
    """It says what is missing; without an id there is nothing to keep it under."""
    with pytest.raises(BadEvent):
        await book.apply_stripe_event(body, signed(body))
    assert count(database_url, "stripe_event") == 0


async def test_a_body_just_below_the_limit_is_read(book: Book) -> None:
    """Blanks behind an event are part of what is signed, and of no meaning."""
    padded = BODY + b" " * (BODY_BYTES_MAX - len(BODY))
    assert (await book.apply_stripe_event(padded, signed(padded))).state == "applied"
