"""Statements of billing: terms to decide by, and what was decided. None commits; those that lock are named lock_…."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row, tuple_row
from psycopg.types.json import Jsonb

from meterbook.core.bill_derivation import GrantSpent
from meterbook.core.charges import Bill
from meterbook.core.give_back import CorrectedDay
from meterbook.core.ledgers import Charge, DeliveryState, GrantState, MemberCap, OutboxRow
from meterbook.core.period_facts import PeriodFacts
from meterbook.postgres.facts import facts_of
from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def _scalar(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any]) -> Any:
    return await fetch_value(conn, SQL[statement], arguments)


async def read_admission(
    conn: AsyncConnection[Any], actor: str, workspace: str | None, at: datetime | None
) -> dict[str, Any]:
    said: dict[str, Any] = await _scalar(conn, "read_admission", {"actor": actor, "workspace": workspace, "at": at})
    return said


async def read_period(conn: AsyncConnection[Any], entity_id: int, period_id: int, at: datetime | None) -> PeriodFacts:
    arguments = {"entity_id": entity_id, "period_id": period_id, "at": at}
    return facts_of(await _scalar(conn, "read_period_by_id", arguments))


async def begin(conn: AsyncConnection[Any]) -> None:
    """A transaction on a connection that has none yet; in autocommit nothing."""
    await _scalar(conn, "begin", {})


async def find_entity(conn: AsyncConnection[Any], entity: str) -> int | None:
    found: int | None = await _scalar(conn, "find_entity", {"entity": entity})
    return found


async def lock_period(conn: AsyncConnection[Any], entity_id: int, period_id: int) -> str:
    """The period's row, then the entity's grants; gives the state that the row has."""
    state: str = await _scalar(conn, "lock_period", {"entity_id": entity_id, "period_id": period_id})
    return state


class LockedPeriod(NamedTuple):
    """A period under its lock: the state of its row, and what is known of it; the last two of one that is being sealed."""

    state: str | None
    facts: PeriodFacts | None
    corrections: tuple[CorrectedDay, ...] = ()
    event_waits: bool = False


async def lock_and_read_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int | None, at: datetime | None
) -> LockedPeriod:
    """Of the period, or of the running one; without a running one neither state nor facts."""
    arguments = {"entity_id": entity_id, "period_id": period_id, "at": at}
    return _locked(await _scalar(conn, "lock_and_read_period", arguments))


async def lock_and_fold_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, at: datetime | None
) -> LockedPeriod:
    """Under the fold's lock too, its deltas folded; facts only if its state is `sealing`."""
    arguments = {"entity_id": entity_id, "period_id": period_id, "at": at}
    return _locked(await _scalar(conn, "lock_and_fold_period", arguments))


def _locked(said: Mapping[str, Any]) -> LockedPeriod:
    period = said.get("period")
    return LockedPeriod(
        said["state"],
        None if period is None else facts_of(period),
        tuple(
            CorrectedDay(day, here, Decimal(amount), Decimal(negative))
            for day, here, amount, negative in said.get("corrections") or ()
        ),
        said.get("event_waits", False),
    )


async def event_waits(conn: AsyncConnection[Any], entity_id: int, period_id: int) -> bool:
    """Whether Stripe told something of its subscription that could not be applied."""
    return bool(await _scalar(conn, "event_waits", {"entity_id": entity_id, "period_id": period_id}))


async def write_bill(conn: AsyncConnection[Any], facts: PeriodFacts, kind: str, bill: Bill, overage: Decimal) -> None:
    await _scalar(conn, "write_charge", _bill_arguments(facts, bill) | {"kind": kind, "overage": overage})


def _bill_arguments(facts: PeriodFacts, bill: Bill) -> dict[str, Any]:
    return {
        "entity_id": facts.entity_id,
        "period_id": facts.period.id,
        "charged": bill.charged_cents,
        "credits": bill.credits_cents,
        "written_off": bill.written_off_cents,
        "grant_ids": [spend.grant_id for spend in bill.spends],
        "grant_cents": [spend.cents for spend in bill.spends],
        "at": facts.at,
    }


async def grant_credit(
    conn: AsyncConnection[Any],
    entity_id: int,
    grant_key: str,
    cents: int,
    source: str,
    *,
    priority: int,
    expires_at: datetime | None,
    period_id: int | None,
    at: datetime | None,
) -> str:
    """granted | replayed | conflict."""
    arguments = {
        "entity_id": entity_id,
        "grant_key": grant_key,
        "cents": cents,
        "source": source,
        "priority": priority,
        "expires_at": expires_at,
        "period_id": period_id,
        "at": at,
    }
    outcome: str = await _scalar(conn, "grant_credit", arguments)
    return outcome


class FirstGrant(NamedTuple):
    entity_id: int
    cents: int
    source: str
    priority: int
    expires_at: datetime | None


async def find_first_grant(conn: AsyncConnection[Any], grant_key: str) -> FirstGrant:
    """What the grant that has this key says."""
    with refusals():
        async with conn.cursor(row_factory=args_row(FirstGrant)) as cursor:
            await cursor.execute(SQL["find_first_grant"], {"grant_key": grant_key})
            first = await cursor.fetchone()
    assert first is not None  # noqa: S101  nothing deletes a grant
    return first


async def fence_period(conn: AsyncConnection[Any], entity_id: int, period_id: int) -> None:
    await _scalar(conn, "fence_period", {"entity_id": entity_id, "period_id": period_id})


async def unfence_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, reason: str, at: datetime | None
) -> None:
    await _scalar(conn, "unfence_period", {"entity_id": entity_id, "period_id": period_id, "reason": reason, "at": at})


async def fence_due_period(
    conn: AsyncConnection[Any], entity_id: int, period_id: int, grace: timedelta, at: datetime | None
) -> Literal["fenced", "nothing_to_do", "undecided"]:
    """A transaction of its own, so that the seal looks at what is there after its commit."""
    arguments = {"entity_id": entity_id, "period_id": period_id, "grace": grace, "at": at}
    outcome: Literal["fenced", "nothing_to_do", "undecided"] = await _scalar(conn, "fence_due_period", arguments)
    return outcome


async def charge_and_seal_period(
    conn: AsyncConnection[Any], facts: PeriodFacts, bill: Bill, given_back_cents: int, figures: Mapping[str, Decimal]
) -> None:
    """`figures`: baseline, refresh, effective, overage."""
    said = _bill_arguments(facts, bill) | {"given_back": given_back_cents, **figures}
    await _scalar(conn, "charge_and_seal_period", said)


async def list_corrections(conn: AsyncConnection[Any], entity_id: int, period_id: int) -> list[CorrectedDay]:
    with refusals():
        async with conn.cursor(row_factory=args_row(CorrectedDay)) as cursor:
            await cursor.execute(SQL["list_corrections"], {"entity_id": entity_id, "period_id": period_id})
            return await cursor.fetchall()


class Corrected(NamedTuple):
    """Where a correction's entry is, and where the correction was booked."""

    of_day: int | None
    of_period: int
    booked: int
    entity_id: int


async def find_correction(conn: AsyncConnection[Any], entity: str, key: str) -> Corrected | None:
    with refusals():
        async with conn.cursor(row_factory=args_row(Corrected)) as cursor:
            await cursor.execute(SQL["find_correction"], {"entity": entity, "key": key})
            return await cursor.fetchone()


async def sum_given_back(conn: AsyncConnection[Any], entity_id: int, period_id: int) -> int:
    return int(await _scalar(conn, "sum_given_back", {"entity_id": entity_id, "period_id": period_id}))


async def list_due_closes(
    conn: AsyncConnection[Any],
    grace: timedelta,
    at: datetime | None,
    *,
    entity_id: int | None,
    held_back: Sequence[int],
    rows: int,
) -> list[tuple[int, int]]:
    """Entity and period, oldest first within an entity."""
    arguments = {"grace": grace, "at": at, "entity_id": entity_id, "held_back": list(held_back), "rows": rows}
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["list_due_closes"], arguments)
            return await cursor.fetchall()


async def list_due_clocks(conn: AsyncConnection[Any], at: datetime | None, rows: int) -> tuple[list[int], list[int]]:
    """Entities whose periods, and actors whose payer have to be looked at."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["list_due_clocks"], {"at": at, "rows": rows})
            row = await cursor.fetchone()
    return ([], []) if row is None else (row[0], row[1])


async def pass_clocks(
    conn: AsyncConnection[Any], entities: Sequence[int], actors: Sequence[int], at: datetime | None
) -> None:
    await _scalar(conn, "pass_clocks", {"entities": list(entities), "actors": list(actors), "at": at})


async def list_moved(
    conn: AsyncConnection[Any], after: int, at: datetime | None, rows: int
) -> list[tuple[int, list[int]]]:
    """Entities that moved, and which of their moves are known by now."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["list_moved"], {"after": after, "at": at, "rows": rows})
            return await cursor.fetchall()


async def forget_moved(conn: AsyncConnection[Any], entity_id: int, moves: Sequence[int]) -> None:
    await _scalar(conn, "forget_moved", {"entity_id": entity_id, "ids": list(moves)})


async def claim_marks(
    conn: AsyncConnection[Any], facts: PeriodFacts, marks: Sequence[int], payload: Mapping[str, str]
) -> bool:
    """True for the one call that tells about the last of `marks`."""
    return bool(
        await _scalar(
            conn,
            "claim_marks",
            {
                "entity_id": facts.entity_id,
                "period_id": facts.period.id,
                "marks": list(marks),
                "told": marks[-1],
                "payload": Jsonb(dict(payload)),
                "at": facts.at,
            },
        )
    )


async def arm_marks(conn: AsyncConnection[Any], facts: PeriodFacts) -> None:
    await _scalar(conn, "arm_marks", {"entity_id": facts.entity_id, "period_id": facts.period.id})


async def set_limit(
    conn: AsyncConnection[Any], entity_id: int, stored: Decimal, by: str | None, at: datetime | None
) -> None:
    await _scalar(conn, "set_limit", {"entity_id": entity_id, "stored": stored, "by": by, "at": at})


async def set_member_cap(conn: AsyncConnection[Any], organization: str, user: str, cap: Decimal | None) -> None:
    await _scalar(conn, "set_member_cap", {"organization": organization, "user": user, "cap": cap})


async def list_member_caps(conn: AsyncConnection[Any], entity_id: int) -> list[MemberCap]:
    with refusals():
        async with conn.cursor(row_factory=args_row(MemberCap)) as cursor:
            await cursor.execute(SQL["list_member_caps"], {"entity_id": entity_id})
            return await cursor.fetchall()


async def set_block(
    conn: AsyncConnection[Any], entity_id: int, reason: str, reference: str, *, blocked: bool, at: datetime | None
) -> bool:
    arguments = {"entity_id": entity_id, "reason": reason, "reference": reference, "blocked": blocked, "at": at}
    return bool(await _scalar(conn, "set_block", arguments))


async def set_baseline(
    conn: AsyncConnection[Any], facts: PeriodFacts, amount: Decimal, by_day: Mapping[int, Decimal]
) -> None:
    arguments = {
        "entity_id": facts.entity_id,
        "period_id": facts.period.id,
        "amount": amount,
        "days": list(by_day),
        "amounts": list(by_day.values()),
        "at": facts.at,
    }
    await _scalar(conn, "set_baseline", arguments)


async def list_charges(conn: AsyncConnection[Any], entity_id: int, period_id: int | None) -> list[Charge]:
    with refusals():
        async with conn.cursor(row_factory=args_row(Charge)) as cursor:
            await cursor.execute(SQL["list_charges"], {"entity_id": entity_id, "period_id": period_id})
            return await cursor.fetchall()


async def list_spent(conn: AsyncConnection[Any], entity_id: int, period_id: int) -> list[GrantSpent]:
    with refusals():
        async with conn.cursor(row_factory=args_row(GrantSpent)) as cursor:
            await cursor.execute(SQL["list_spent"], {"entity_id": entity_id, "period_id": period_id})
            return await cursor.fetchall()


async def list_grants(conn: AsyncConnection[Any], entity_id: int) -> list[GrantState]:
    with refusals():
        async with conn.cursor(row_factory=args_row(GrantState)) as cursor:
            await cursor.execute(SQL["list_grants"], {"entity_id": entity_id})
            return await cursor.fetchall()


async def list_outbox(conn: AsyncConnection[Any], entity_id: int | None) -> list[OutboxRow]:
    with refusals():
        async with conn.cursor(row_factory=args_row(OutboxRow)) as cursor:
            await cursor.execute(SQL["list_outbox"], {"entity_id": entity_id})
            return await cursor.fetchall()


async def list_deliveries(
    conn: AsyncConnection[Any], entity_id: int | None, state: str | None, rows: int
) -> list[DeliveryState]:
    with refusals():
        async with conn.cursor(row_factory=args_row(DeliveryState)) as cursor:
            await cursor.execute(SQL["list_deliveries"], {"entity_id": entity_id, "state": state, "rows": rows})
            return await cursor.fetchall()
