"""An epoch of counters (BEHAVIOUR §13): each gets its payer and running period; what it says is baseline, what follows is ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover import pooled_days
from meterbook.core.cutover_plan import (
    ENDED,
    CounterPlace,
    LegacySubscription,
    Person,
    amount_problem,
    person_findings,
)
from meterbook.core.money import ZERO, total_of
from meterbook.operations.attribute_usage import Attribute, Parties
from meterbook.operations.cutover_step import CutoverStep
from meterbook.operations.list_own_usage import list_own_usage
from meterbook.postgres import cutover
from meterbook.postgres.cutover import LegacyTables

PEOPLE_PER_PAGE = 200


@dataclass(frozen=True, slots=True)
class StalePerson:
    """`has_ended`: the period that the counter was compared in is over; `has_begun_again`: the counter has fallen since."""

    user_id: str
    was_entity: int | None
    was_period: int | None
    has_moved_on: bool
    has_ended: bool
    has_begun_again: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Of one user: the payer with its running period, and the user as an entity with its own.

    `unexplained`: what the ledger has of the user in a period that was never compared, under keys that are no audit row's.
    """

    user_id: str
    payer_id: int
    payer: str
    payer_period: int
    own_id: int
    own_period: int | None
    unexplained: Decimal


@dataclass(frozen=True, slots=True)
class OrganizationPlace:
    id: str
    entity_id: int
    period_id: int
    departed: Decimal


@dataclass(frozen=True, slots=True)
class Begun:
    """`entities`: those whose baselines follow from the counters that began. `last`: where the next page goes on; None: there is none."""

    counters: int
    entities: frozenset[int]
    last: str | None


_Counter = tuple[str, str, str, int, int]
"""Name, kind, owner, entity, period."""


async def begin_people(
    conn: AsyncConnection[Any], step: CutoverStep, attribute: Attribute, after: str, since: datetime
) -> Begun:
    """One page of users whose counters have no place yet, or another one by now. `since`: rows from then on may be late."""
    at = step.at
    stale = await cutover.rows_of(
        conn, StalePerson, "list_stale_people", {"after": after, "rows": PEOPLE_PER_PAGE, "at": at}
    )
    if not stale:
        return Begun(0, frozenset(), None)
    people = await read_people(conn, [one.user_id for one in stale])
    await attribute(
        Parties(tuple(one.user_id for one in people), tuple(one.entity for one in people if one.kept > ZERO))
    )
    subscriptions = await subscriptions_of(conn, people)
    places = {
        one.user_id: one
        for one in await cutover.rows_of(conn, Place, "list_places", {"users": [p.user_id for p in people], "at": at})
    }
    was = {one.user_id: one for one in stale}
    unreturned = await _unreturned(conn, [one.payer_id for one in places.values()])
    counters: list[_Counter] = []
    left: set[tuple[int, int]] = set()
    for person in people:
        place, before = places[person.user_id], was[person.user_id]
        reason = _reason_against(person, place, subscriptions, step) or unreturned.get(place.payer_id)
        if reason is not None:
            for subject in {person.entity, place.payer}:
                await note_refusal(conn, subject, f"{person.entity} {reason}", at)
            continue
        if _waits(before):
            await note_wait(conn, before.was_entity)
            continue
        if before.was_entity is not None and before.was_period is not None and not before.has_begun_again:
            left.add((before.was_entity, before.was_period))
        counters.append((person.entity, "running", person.user_id, place.payer_id, place.payer_period))
        if person.kept > ZERO and place.payer_id != place.own_id and place.own_period is not None:
            counters.append((f"kept:{person.user_id}", "kept", person.user_id, place.own_id, place.own_period))
        elif place.own_period is not None and place.payer_id != place.own_id:
            await begin_bare(conn, place.own_id, place.own_period, at)
    entities = await _begin(conn, step.tables, counters, since, at)
    entities |= await _leave(conn, step, left, [one.was_entity for one in stale if one.was_entity is not None], since)
    return Begun(len(counters), entities, stale[-1].user_id)


async def _leave(
    conn: AsyncConnection[Any],
    step: CutoverStep,
    left: set[tuple[int, int]],
    before: Sequence[int],
    since: datetime,
) -> frozenset[int]:
    """A counter that goes on elsewhere, not begun again, takes its part of the baseline along; departed usage follows from who is left."""
    departed = await cutover.records_of(conn, "list_departed", {"entities": list(before)})
    counters = [(one["name"], one["kind"], one["owner"], one["entity_id"], one["period_id"]) for one in departed]
    entities = await _begin(conn, step.tables, counters, since, step.at)
    for entity_id, period_id in sorted(left):
        await set_baseline_of(conn, step.tables, entity_id, period_id, step.at)
    return entities


def _reason_against(
    person: Person, place: Place, subscriptions: Mapping[str, Sequence[LegacySubscription]], step: CutoverStep
) -> str | None:
    refused = [one.message for one in person_findings(person, subscriptions, step.catalog, step.at) if one.refused]
    if place.unexplained:
        refused.append(f"has {place.unexplained:f} in the ledger that was recorded before anything was compared")
    return refused[0] if refused else None


async def _unreturned(conn: AsyncConnection[Any], entities: Sequence[int]) -> dict[int, str]:
    """By entity: why one that was rolled back can't be compared again yet."""
    found: dict[int, str] = {}
    for state in await cutover.records_of(conn, "list_rolled_back", {"entities": list(entities)}):
        rest = total_of(one["amount"] for one in await list_own_usage(conn, state["entity_id"], state))
        if rest:
            found[state["entity_id"]] = f"has {rest:f} in the ledger that is on no counter: run `rollback` again first"
    return found


def _waits(person: StalePerson) -> bool:
    """Its period is over and the product has not closed it yet: the counter still counts for it."""
    return person.has_moved_on and person.has_ended and not person.has_begun_again


async def begin_organizations(
    conn: AsyncConnection[Any], tables: LegacyTables, after: str, since: datetime, at: datetime
) -> Begun:
    """The counters of departed members, a page of organizations."""
    places = await cutover.rows_of(
        conn, OrganizationPlace, "list_organization_places", {"after": after, "rows": PEOPLE_PER_PAGE}
    )
    counters: list[_Counter] = []
    for one in places:
        problem = amount_problem("departed", one.departed)
        if problem is None:
            counters.append((f"departed:{one.id}", "departed", one.id, one.entity_id, one.period_id))
        else:
            await note_refusal(conn, f"organization:{one.id}", problem, at)
    entities = await _begin(conn, tables, counters, since, at)
    return Begun(len(counters), entities, places[-1].id if places else None)


async def begin_again(
    conn: AsyncConnection[Any], tables: LegacyTables, counters: Sequence[_Counter], since: datetime, at: datetime
) -> frozenset[int]:
    """Counters that fell: another epoch at the same place."""
    return await _begin(conn, tables, counters, since, at)


async def begin_bare(conn: AsyncConnection[Any], entity_id: int, period_id: int, at: datetime) -> None:
    """An entity without a counter of its own: whatever it uses is new."""
    arguments = {"entity_id": entity_id, "period_id": period_id, "at": at}
    await cutover.change(conn, "begin_entity", arguments)
    await cutover.change(conn, "shadow_entity", arguments)


async def _begin(
    conn: AsyncConnection[Any], tables: LegacyTables, counters: Sequence[_Counter], since: datetime, at: datetime
) -> frozenset[int]:
    if not counters:
        return frozenset()
    for entity_id, period_id in sorted({(entity, period) for _, _, _, entity, period in counters}):
        await _enter_period(conn, entity_id, period_id, at)
    names, kinds, owners, entities, periods = zip(*counters, strict=True)
    await cutover.value_of(
        conn,
        "begin_counters",
        {
            "names": list(names),
            "kinds": list(kinds),
            "owners": list(owners),
            "entities": list(entities),
            "periods": list(periods),
            "since": [tables.earliest(since)] * len(names),
            "at": at,
        },
    )
    return frozenset(entities)


async def _enter_period(conn: AsyncConnection[Any], entity_id: int, period_id: int, at: datetime) -> None:
    """The entity is compared in this period from now on. One that ended meanwhile was billed by the product, and becomes history."""
    known = await cutover.records_of(conn, "find_state", {"entity_id": entity_id})
    if (
        known
        and known[0]["period_id"] != period_id
        and known[0]["period_kind"] == "dated"
        and known[0]["ends_at"] <= at
    ):
        await cutover.value_of(conn, "lock_fold")
        await cutover.value_of(conn, "leave_to_history", {"entity_id": entity_id, "period_id": known[0]["period_id"]})
    await begin_bare(conn, entity_id, period_id, at)


async def read_people(conn: AsyncConnection[Any], users: Sequence[str]) -> list[Person]:
    arguments = {"after": "", "rows": len(users), "users": list(users)}
    return await cutover.rows_of(conn, Person, "list_people", arguments)


async def subscriptions_of(conn: AsyncConnection[Any], people: Sequence[Person]) -> dict[str, list[LegacySubscription]]:
    """By owner: the entitled ones of these people and their organizations."""
    owners = {one.entity for one in people} | {one.organization for one in people if one.organization is not None}
    arguments = {"owners": sorted(owners), "ended": list(ENDED)}
    found: dict[str, list[LegacySubscription]] = {}
    for one in await cutover.rows_of(conn, LegacySubscription, "list_subscriptions", arguments):
        found.setdefault(str(one.owner), []).append(one)
    return found


async def note_refusal(conn: AsyncConnection[Any], subject: str, reason: str, at: datetime) -> None:
    await cutover.change(conn, "note_refusal", {"subject": subject, "reason": reason, "at": at})


async def note_wait(conn: AsyncConnection[Any], entity_id: int | None) -> None:
    note = "its period is over, and the product has not closed it yet"
    await cutover.change(conn, "note_entity", {"entity_id": entity_id, "note": note})


# ------------------------------------------------------------------------------------------------------------------ baselines


async def set_baseline_of(
    conn: AsyncConnection[Any], tables: LegacyTables, entity_id: int, period_id: int, at: datetime
) -> tuple[Decimal, Decimal]:
    """The baseline follows from its counters' bases, the days from their rows. Gives it, and how much of it is dated."""
    counters = await cutover.records_of(conn, "list_bases", {"entity_id": entity_id, "period_id": period_id})
    bases = {one["name"]: one["base"] for one in counters}
    amount = sum(bases.values(), ZERO)
    days: dict[int, Decimal] = {}
    if tables.mapping.has("audit") and any(one["refreshes"] for one in counters):
        places = [_place(one, at) for one in counters if one["kind"] != "departed" and one["base"] > ZERO]
        dated = await audit_days(conn, tables, places)
        for one in counters:
            if one["kind"] == "departed" and one["base"] > ZERO:
                dated[one["name"]] = await departed_days(
                    conn, tables, one["entity"], one["starts_at"], one["ends_at"], at
                )
        days = pooled_days(bases, dated)
    arguments = {"entity_id": entity_id, "period_id": period_id, "amount": max(amount, ZERO), "at": at}
    await cutover.value_of(conn, "set_baseline", {**arguments, "days": list(days), "amounts": list(days.values())})
    return amount, sum(days.values(), ZERO)


def _place(one: dict[str, Any], at: datetime) -> CounterPlace:
    joined = one["joined_at"] if one["kind"] == "running" else None
    since = max(one["starts_at"], joined) if joined is not None and one["is_pooled"] else one["starts_at"]
    until = at if one["kind"] == "running" else max(since, one["kept_until"] or at)
    return CounterPlace(
        one["name"], one["owner"], one["entity"], one["base"], one["starts_at"], one["ends_at"], since, until
    )


async def audit_days(
    conn: AsyncConnection[Any], tables: LegacyTables, places: Sequence[CounterPlace]
) -> dict[str, dict[int, Decimal]]:
    """By counter and day."""
    if not places:
        return {}
    found: dict[str, dict[int, Decimal]] = {}
    arguments = {
        "names": [one.name for one in places],
        "users": [one.user for one in places],
        "entities": [one.entity for one in places],
        "starts": [one.starts_at for one in places],
        "ends": [one.ends_at for one in places],
        "since": [one.since for one in places],
        "until": [one.until for one in places],
        "earliest": [tables.earliest(one.since) for one in places],
        "latest": [tables.latest(one.until) for one in places],
    }
    for row in await cutover.records_of(conn, "sum_audit_days", arguments):
        found.setdefault(row["name"], {})[row["day"]] = row["amount"]
    return found


async def departed_days(
    conn: AsyncConnection[Any], tables: LegacyTables, entity: str, starts_at: datetime, ends_at: datetime, at: datetime
) -> dict[int, Decimal]:
    """By day, what departed members of an organization used, where the log says who paid; else nobody knows."""
    if not tables.mapping.has("audit", "payer"):
        return {}
    arguments = {
        "entity": entity,
        "starts": starts_at,
        "ends": ends_at,
        "until": at,
        "earliest": tables.earliest(starts_at),
        "latest": tables.latest(at),
    }
    return {row["day"]: row["amount"] for row in await cutover.records_of(conn, "sum_departed_days", arguments)}
