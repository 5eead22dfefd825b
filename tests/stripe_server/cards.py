"""How the banks behind test cards answer, by Stripe's own names of payment methods for testing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    """`refusal`: code and decline code of every charge, if it refuses. `disputed`: what a dispute of each charge is opened as."""

    brand: str = "visa"
    last4: str = "4242"
    refusal: tuple[str, str] | None = None
    attaches: bool = True
    disputed: str | None = None


GOOD = Card()
DECLINED = Card(last4="0341", refusal=("card_declined", "generic_decline"))
"""Can be attached to a customer; charging it fails."""

TEST_CARDS = {
    "pm_card_visa": GOOD,
    "pm_card_mastercard": Card("mastercard", "4444"),
    "pm_card_amex": Card("amex", "8431"),
    "pm_card_chargeCustomerFail": DECLINED,
    "pm_card_visa_chargeDeclined": Card(last4="0002", refusal=("card_declined", "generic_decline"), attaches=False),
    "pm_card_chargeDeclined": Card(last4="0002", refusal=("card_declined", "generic_decline"), attaches=False),
    "pm_card_chargeDeclinedInsufficientFunds": Card(
        last4="9995", refusal=("card_declined", "insufficient_funds"), attaches=False
    ),
    "pm_card_chargeDeclinedExpiredCard": Card(last4="0069", refusal=("expired_card", "expired_card"), attaches=False),
    "pm_card_createDispute": Card(last4="0259", disputed="needs_response"),
    "pm_card_createDisputeInquiry": Card(last4="1976", disputed="warning_needs_response"),
}
