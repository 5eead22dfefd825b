"""Which of the holds that wait are granted, in their order (BEHAVIOUR §8): each sees those granted before it."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple

from meterbook.core.admission import AdmissionFacts, Party, admit
from meterbook.core.ledgers import HoldState
from meterbook.core.money import EXACT, ZERO
from meterbook.core.usage_report import UsageReport
from meterbook.errors import Conflict, Denied, KeyConflict


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """Who wants to hold how much, under which id, for how long; without `billing` nothing is denied."""

    actor: str
    workspace: str | None
    amount: Decimal
    hold_id: str
    ttl_s: int
    billing: bool = True
    is_named: bool = True
    """Its id is the caller's."""

    @property
    def party(self) -> tuple[str, str | None]:
        return self.actor, self.workspace


class Placed(NamedTuple):
    """A hold that somebody asked for. `is_new`: granted to this call; else it was there, and is somebody else's to release."""

    state: HoldState
    is_new: bool


@dataclass(frozen=True, slots=True)
class Granted:
    """A hold to be written."""

    state: HoldState
    actor_id: int
    ttl_s: int


Decision = Granted | Denied | None
"""None: nothing to decide, for it is somebody else who pays."""


def decide_holds(
    usage: UsageReport,
    parties: Mapping[tuple[str, str | None], Party],
    taken: Container[str],
    asked: Sequence[HoldTerms],
) -> list[Decision]:
    """One decision each, for what has an id that is not `taken`. The same id again decides nothing: it is the first one's hold."""
    decisions: list[Decision] = []
    seen: set[str] = set()
    held, members = usage.held, dict[int, Decimal]()
    for wanted in asked:
        party = parties.get(wanted.party)
        if wanted.hold_id in taken or wanted.hold_id in seen:
            decisions.append(None)
            continue
        if party is None or party.entity_id != usage.facts.entity_id:
            decisions.append(None)
            continue
        member_held = EXACT.add(party.member_held, members.get(party.actor_id, ZERO))
        facts = AdmissionFacts(usage, party, held, member_held)
        admission = admit(facts, wanted.amount)
        if wanted.billing and not admission.allowed:
            decisions.append(Denied(admission))
            continue
        seen.add(wanted.hold_id)
        held = EXACT.add(held, wanted.amount)
        members[party.actor_id] = EXACT.add(members.get(party.actor_id, ZERO), wanted.amount)
        decisions.append(Granted(_state(usage, wanted), party.actor_id, wanted.ttl_s))
    return decisions


def _state(usage: UsageReport, wanted: HoldTerms) -> HoldState:
    at = usage.facts.at
    return HoldState(
        wanted.hold_id,
        usage.entity,
        wanted.actor,
        wanted.workspace,
        wanted.amount,
        at,
        at + timedelta(seconds=wanted.ttl_s),
        "active",
        None,
        None,
    )


def same_hold(known: HoldState, wanted: HoldTerms) -> HoldState | KeyConflict:
    """The hold that has the id, or a conflict when it is another person's or of another amount."""
    if (known.actor, known.amount) == (wanted.actor, wanted.amount):
        return known
    said: dict[str, str | Decimal | int | None] = {"actor": wanted.actor, "amount": wanted.amount}
    return KeyConflict([Conflict(0, known.id, {"actor": known.actor, "amount": known.amount}, said)])
