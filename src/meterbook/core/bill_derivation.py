"""Why a bill is what it is (BEHAVIOUR §9, §14): from the overage down to rows, then who pays for it."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

from meterbook.core.charges import unbilled_cents
from meterbook.core.derivation import Derivation
from meterbook.core.ledgers import Charge
from meterbook.core.money import cents
from meterbook.core.usage_report import UsageReport


class GrantSpent(NamedTuple):
    """What one grant paid of one charge."""

    charge: int
    grant_id: str
    cents: int


def bill_derivation(
    usage: UsageReport,
    overage: Derivation,
    charges: Sequence[Charge],
    spent: Iterable[GrantSpent],
    given_back_cents: int,
) -> Derivation:
    """`overage` is its derivation. What pays (charges, credits, written off, still unbilled) adds up to the bill (I7)."""
    written_off = usage.facts.written_off_cents
    owed = Derivation("overage in cents", money(cents(usage.overage)), "half up", (overage,))
    paid = [
        Derivation("paid by credits", money(usage.credits_cents), "", tuple(_spent(one, charges) for one in spent)),
        Derivation("charged", money(usage.charged_cents), "", tuple(map(_charge, _charged(charges)))),
    ]
    if written_off:
        paid.append(Derivation("written off", money(written_off), "below the smallest charge"))
    unbilled = 0 if usage.period.state == "closed" else unbilled_cents(usage)
    if usage.period.state != "closed":
        paid.append(Derivation("unbilled", money(unbilled), "max(0, overage in cents − charged − paid by credits)"))
    if given_back_cents:
        paid.append(Derivation("given back since", money(given_back_cents), "", (), "as credit, outside of the bill"))
    total = usage.billed_cents + written_off + unbilled
    return Derivation("bill", money(total), "max(overage in cents, what was billed before)", (owed, *paid))


def money(amount_cents: int) -> Decimal:
    return Decimal(amount_cents).scaleb(-2)


def _charged(charges: Iterable[Charge]) -> Iterable[Charge]:
    return (charge for charge in charges if charge.amount_cents)


def _charge(charge: Charge) -> Derivation:
    note = f"{charge.kind}, {charge.at:%Y-%m-%d %H:%M}, at an overage of {charge.overage.normalize():f}"
    return Derivation(f"charge #{charge.id}", money(charge.amount_cents), "", (), note)


def _spent(spent: GrantSpent, charges: Iterable[Charge]) -> Derivation:
    (charge,) = (charge for charge in charges if charge.id == spent.charge)
    note = f"{charge.kind}, {charge.at:%Y-%m-%d %H:%M}, charge #{charge.id}"
    return Derivation(f"grant {spent.grant_id}", money(spent.cents), "", (), note)
