"""May this work begin? (BEHAVIOUR §8). One order of questions, a stable code, the numbers compared, a sentence for the person."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from meterbook.core.derivation import Derivation, amount_text
from meterbook.core.money import EXACT, ZERO
from meterbook.core.usage_report import UsageReport

Code = Literal[
    "allowed",
    "billing_off",
    "actor_blocked",
    "payment_failed",
    "dispute",
    "blocked",
    "member_cap_reached",
    "limit_reached",
    "check_failed",
    "unreachable",
    "allowed_unreachable",
]
Scope = Literal["user", "organization", "member"]

BLOCK_MESSAGES = {
    "dispute": "A payment of {entity} is disputed; usage is stopped until the dispute is settled.",
    "payment_failed": "A payment of {entity} failed; usage is stopped until it is paid.",
    "administrative": "{entity} has been stopped by an administrator.",
}
"""In order of precedence."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a check. `used` and `held` are compared, together, with `limit`; unknown (None) where nothing was compared.

    `overshoot`: how far beyond the limit the work that this answer lets begin can end. 0: it may not begin, or its amount is set aside (a
    hold, settled at no more than was held). None: nothing bounds it. A check reserves nothing, so that it ends beyond the limit by whatever
    this work and all that was let in beside it cost more than `limit - used - held`.
    """

    allowed: bool
    code: Code
    message: str
    scope: Scope
    entity: str | None
    used: Decimal | None = None
    held: Decimal | None = None
    limit: Decimal | None = None
    retryable: bool = False
    overshoot: Decimal | None = ZERO


class Party(NamedTuple):
    """Who would pay for an actor's work, and what is known of the actor. `cap` None: no cap, and then no total was looked for."""

    entity_id: int
    actor_id: int
    actor_blocked: bool
    cap: Decimal | None
    member_total: Decimal
    member_held: Decimal


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """What a check compares, from one snapshot; `held` and `member_held` with what was granted since by the same decision."""

    usage: UsageReport
    party: Party
    held: Decimal
    member_held: Decimal


def admit(facts: AdmissionFacts, wanted: Decimal = ZERO) -> Admission:
    """`wanted` 0 is a check: denied when used + held reach the limit. More is a hold: granted while used + held + wanted fit in it."""
    return _blocked(facts) or _capped(facts, wanted) or _limited(facts, wanted)


def admission_derivation(facts: AdmissionFacts) -> Derivation:
    """The questions in the order in which a check asks them, each with the numbers that it compares (§14)."""
    answer, usage = admit(facts), facts.usage
    terms = (
        Derivation("the actor's own block", "yes" if facts.party.actor_blocked else "none"),
        Derivation(f"blocks of {usage.entity}", ", ".join(usage.facts.blocks) or "none"),
        _cap_derivation(facts),
        _taken_derivation(facts),
        limit_derivation(usage),
    )
    code = "allowed" if answer.allowed else f"denied: {answer.code}"
    return Derivation("check", code, answer.message, terms)


def _cap_derivation(facts: AdmissionFacts) -> Derivation:
    if facts.party.cap is None:
        return Derivation("member's cap", "none")
    terms = (
        Derivation("member's total", facts.party.member_total, "no refresh"),
        Derivation("member's holds", facts.member_held),
    )
    return Derivation("member's cap", facts.party.cap, "denied if total + holds ≥ cap", terms)


def _taken_derivation(facts: AdmissionFacts) -> Derivation:
    effective = facts.usage.figure.effective.derivation()
    taken = EXACT.add(facts.usage.effective, facts.held)
    terms = effective, Derivation("active holds", facts.held)
    return Derivation("effective usage + holds", taken, "denied if ≥ limit", terms)


def limit_derivation(usage: UsageReport) -> Derivation:
    """Why the limit of a period is what it is."""
    if usage.figure.included is None:
        return Derivation("limit", usage.limit, f"of plan {usage.period.plan}")
    terms = (
        Derivation("stored", ZERO if usage.facts.stored is None else usage.facts.stored),
        Derivation("included", usage.figure.included),
        Derivation("credits", usage.facts.credits_for_limit, "left, and spent on this period"),
    )
    return Derivation("limit", usage.limit, "max(stored, included + credits)", terms)


def billing_off() -> Admission:
    return Admission(True, "billing_off", "Billing is off: everything is allowed.", "user", None, overshoot=None)  # noqa: FBT003


def check_failed(why: str) -> Admission:
    """Fail closed: nothing was compared."""
    message = f"Whether there is usage left could not be determined ({why}). Please try again."
    return Admission(False, "check_failed", message, "user", None, retryable=True)  # noqa: FBT003


def unreachable(why: str, *, allowed: bool) -> Admission:
    """A client's answer when its server gives none: as the caller chose. Nothing was compared; what is allowed so, nothing bounds."""
    said = f"Whether there is usage left could not be asked ({why})."
    if allowed:
        return Admission(True, "allowed_unreachable", said, "user", None, overshoot=None)  # noqa: FBT003
    return Admission(False, "unreachable", f"{said} Please try again.", "user", None, retryable=True)  # noqa: FBT003


def _blocked(facts: AdmissionFacts) -> Admission | None:
    entity, scope = facts.usage.entity, _scope(facts.usage)
    if facts.party.actor_blocked:
        return Admission(False, "actor_blocked", "You have been stopped by an administrator.", "user", entity)  # noqa: FBT003
    for reason, message in BLOCK_MESSAGES.items():
        if reason in facts.usage.facts.blocks:
            code: Code = "blocked" if reason == "administrative" else reason  # type: ignore[assignment]  # a key of the table
            return Admission(False, code, message.format(entity=entity), scope, entity)  # noqa: FBT003
    return None


def _capped(facts: AdmissionFacts, wanted: Decimal) -> Admission | None:
    if facts.party.cap is None or _fits(facts.party.member_total, facts.member_held, wanted, facts.party.cap):
        return None
    used, cap = amount_text(facts.party.member_total), amount_text(facts.party.cap)
    message = f"You have used {used} of the {cap} that your organization lets you use{_needs(wanted)}."
    numbers = facts.party.member_total, facts.member_held, facts.party.cap
    return Admission(False, "member_cap_reached", message, "member", facts.usage.entity, *numbers)  # noqa: FBT003


def _limited(facts: AdmissionFacts, wanted: Decimal) -> Admission:
    usage, held, scope = facts.usage, facts.held, _scope(facts.usage)
    numbers = usage.effective, held, usage.limit
    if _fits(usage.effective, held, wanted, usage.limit):
        left = EXACT.subtract(usage.limit, EXACT.add(usage.effective, held))
        overshoot = ZERO if wanted else None
        if facts.party.cap is not None:
            own = EXACT.subtract(facts.party.cap, EXACT.add(facts.party.member_total, facts.member_held))
            if own < left:
                said = f"{amount_text(own)} is left of what your organization lets you use."
                capped = facts.party.member_total, facts.member_held, facts.party.cap
                return Admission(True, "allowed", said, "member", usage.entity, *capped, overshoot=overshoot)  # noqa: FBT003
        said = f"{amount_text(left)} is left."
        return Admission(True, "allowed", said, scope, usage.entity, *numbers, overshoot=overshoot)  # noqa: FBT003
    aside = f", and {amount_text(held)} is set aside" if held else ""
    used, limit = amount_text(usage.effective), amount_text(usage.limit)
    message = f"{usage.entity} has used {used} of {limit}{aside}{_needs(wanted)}."
    return Admission(False, "limit_reached", message, scope, usage.entity, *numbers)  # noqa: FBT003


def _needs(wanted: Decimal) -> str:
    return f"; this work needs {amount_text(wanted)}" if wanted else ""


def _fits(used: Decimal, held: Decimal, wanted: Decimal, limit: Decimal) -> bool:
    taken = EXACT.add(used, held)
    return EXACT.add(taken, wanted) <= limit if wanted else taken < limit


def _scope(usage: UsageReport) -> Scope:
    return "user" if usage.entity.startswith("user:") else "organization"
