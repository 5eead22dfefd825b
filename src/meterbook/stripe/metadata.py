"""What metadata say: whom something concerns, and the terms of a contract. Their values are always texts."""

import re
from decimal import Decimal

from meterbook.core.entries import check_entity, check_text
from meterbook.core.money import ZERO, parse_amount
from meterbook.errors import InvalidUsage
from meterbook.stripe.effects import OwnerSaid
from meterbook.stripe.fields import Fields

CREDIT_PURCHASE = "credit_purchase"
OWNER = "billing_entity"
REFERENCE = "referenceId"
USER = "userId"
NAMED = "billing_subscription"
"""Of a subscription: its id here, where `put_subscription` gave it one."""
_SEATS = re.compile(r"[1-9][0-9]{0,6}")


def owner_said(metadata: Fields) -> OwnerSaid:
    """`billing_entity` ("user:…", "organization:…"), or the origin's `referenceId`. Raises `BadEvent` for what can't name anybody."""
    entity, reference, user = (metadata.find_text(name) for name in (OWNER, REFERENCE, USER))
    try:
        if entity is not None:
            check_entity(entity)
        for each in (reference, user):
            if each is not None:
                check_text(REFERENCE, each)
    except InvalidUsage as refused:
        raise metadata.bad(OWNER if entity else REFERENCE, str(refused)) from refused
    return OwnerSaid(entity, reference, user)


def subscription_named(metadata: Fields) -> str | None:
    """Raises `BadEvent` for what can't be an id here."""
    named = metadata.find_text(NAMED)
    if named is None:
        return None
    try:
        return check_text(NAMED, named)
    except InvalidUsage as refused:
        raise metadata.bad(NAMED, str(refused)) from refused


def money(metadata: Fields, name: str) -> Decimal:
    """Raises `BadEvent`."""
    text = metadata.text(name)
    try:
        amount = parse_amount(text)
    except ValueError as wrong:
        raise metadata.bad(name, str(wrong)) from wrong
    if amount < ZERO:
        raise metadata.bad(name, f"is negative: {text}")
    return amount


def seats(metadata: Fields) -> int:
    """Raises `BadEvent`."""
    text = metadata.text("seats")
    if not _SEATS.fullmatch(text):
        raise metadata.bad("seats", f"is no number of seats: {text!r}")
    return int(text)
