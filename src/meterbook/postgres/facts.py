"""From the JSON of meterbook.period_terms to facts. Amounts travel as strings, so that nothing is lost on the way."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterbook.core.admission import AdmissionFacts, Party
from meterbook.core.credits import Grant
from meterbook.core.money import EXACT, ZERO
from meterbook.core.period_facts import Addressee, Period, PeriodFacts, Term
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import report


def facts_of(said: Mapping[str, Any]) -> PeriodFacts:
    by_day, entries = _recorded(said["days"])
    given_back = by_day.pop("", ZERO)
    return PeriodFacts(
        _time(said["at"]),
        said["entity"],
        said["entity_id"],
        period_of(said),
        {int(day): amount for day, amount in by_day.items()},
        given_back,
        entries,
        tuple(
            sorted(
                Term(grain, part, detail, Decimal(amount)) for grain, part, detail, amount in said["breakdown"] or ()
            )
        ),
        _amount(said["baseline"]) or ZERO,
        {day: Decimal(amount) for day, amount in said["baseline_days"] or ()},
        _amount(said["stored"]),
        said["charged_cents"],
        said["credits_cents"],
        said["written_off_cents"],
        tuple(_grant(*grant) for grant in said["grants"] or ()),
        Decimal(said["held"]),
        tuple(sorted(set(said["blocks"] or ()))),
        _amount(said["included_now"]),
        Addressee(said["status"], said["stripe_customer"], said["stripe_subscription"], said["has_owner"]),
    )


def _recorded(days: tuple[list[Any] | None, list[Any] | None]) -> tuple[dict[str, Decimal], int]:
    """Amounts by day, folded and waiting ones together, and how many entries they are."""
    folded, waiting = (part or () for part in days)
    by_day = {day: Decimal(amount) for day, amount, _ in folded}
    for day, amount, _ in waiting:
        by_day[day] = EXACT.add(by_day.get(day, ZERO), Decimal(amount))
    return by_day, sum(entries for _, _, entries in (*folded, *waiting))


def period_of(said: Mapping[str, Any]) -> Period:
    return Period(
        said["id"],
        said["kind"],
        _time(said["starts_at"]),
        _time(said["ends_at"]),
        said["plan"],
        said["seats"],
        _amount(said["included"]),
        Decimal(said["refresh_per_day"]),
        said["state"],
        said["subscription"],
    )


def admission_facts_of(said: Mapping[str, Any], catalog: Catalog) -> AdmissionFacts:
    facts, party = facts_of(said["period"]), party_of(said)
    return AdmissionFacts(report(facts, catalog.plan(facts.period.plan)), party, facts.held, party.member_held)


def party_of(said: Mapping[str, Any]) -> Party:
    """Entity 0, which nobody is, where who pays is not resolved."""
    return Party(
        said["entity_id"] or 0,
        said["actor_id"] or 0,
        bool(said["actor_blocked"]),
        _amount(said["cap"]),
        _amount(said["member_total"]) or ZERO,
        _amount(said["member_held"]) or ZERO,
    )


def _grant(grant: int, remaining: int, priority: int, expires_at: str | None, granted_at: str) -> Grant:
    return Grant(grant, remaining, priority, None if expires_at is None else _time(expires_at), _time(granted_at))


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
