"""Statements of holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row

from meterbook.core.admission import Party
from meterbook.core.ledgers import HoldState
from meterbook.core.period_facts import PeriodFacts
from meterbook.postgres.arrays import plain_array, text_array
from meterbook.postgres.facts import facts_of, party_of
from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


async def _scalar(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any]) -> Any:
    return await fetch_value(conn, SQL[statement], arguments)


@dataclass(frozen=True, slots=True)
class LockedGate:
    """Under an entity's gate: its running period (None: the clock has passed it), the parties who ask, which ids are taken."""

    period: PeriodFacts | None
    parties: Mapping[tuple[str, str | None], Party]
    taken: frozenset[str]


async def lock_and_read_gate(
    conn: AsyncConnection[Any],
    entity_id: int,
    parties: Sequence[tuple[str, str | None]],
    hold_keys: Sequence[str],
    at: datetime | None,
) -> LockedGate:
    """Locks the gate until the transaction ends; what it gives is younger than every hold granted before."""
    arguments = {
        "entity_id": entity_id,
        "actors": text_array([actor for actor, _ in parties]),
        "workspaces": text_array([workspace for _, workspace in parties]),
        "hold_keys": text_array(hold_keys),
        "at": at,
    }
    said = await _scalar(conn, "lock_and_read_gate", arguments)
    return LockedGate(
        None if said["period"] is None else facts_of(said["period"]),
        {(one["actor"], one["workspace"]): party_of(one) for one in said["parties"] or ()},
        frozenset(said["known"] or ()),
    )


async def write_holds(
    conn: AsyncConnection[Any], entity_id: int, granted: Sequence[tuple[HoldState, int, int]], at: datetime
) -> int:
    """Holds with the actor's surrogate and the seconds they last; gives how many were written."""
    arguments = {
        "entity_id": entity_id,
        "hold_keys": text_array([hold.id for hold, _, _ in granted]),
        "actor_ids": plain_array([actor_id for _, actor_id, _ in granted]),
        "workspaces": text_array([hold.workspace for hold, _, _ in granted]),
        "amounts": plain_array([hold.amount for hold, _, _ in granted]),
        "ttls": plain_array([ttl_s for _, _, ttl_s in granted]),
        "at": at,
    }
    return int(await _scalar(conn, "write_holds", arguments))


async def list_holds_by_id(
    conn: AsyncConnection[Any], hold_keys: Sequence[str], at: datetime | None
) -> dict[str, HoldState]:
    with refusals():
        async with conn.cursor(row_factory=args_row(HoldState)) as cursor:
            await cursor.execute(SQL["find_holds"], {"hold_keys": text_array(hold_keys), "at": at})
            return {hold.id: hold for hold in await cursor.fetchall()}


async def list_holds(conn: AsyncConnection[Any], entity_id: int, at: datetime | None, rows: int) -> list[HoldState]:
    with refusals():
        async with conn.cursor(row_factory=args_row(HoldState)) as cursor:
            await cursor.execute(SQL["list_holds"], {"entity_id": entity_id, "at": at, "rows": rows})
            return await cursor.fetchall()


async def lock_hold(conn: AsyncConnection[Any], hold_key: str) -> None:
    """Waits for whoever is ending it. Nothing happens if there is none."""
    await _scalar(conn, "lock_hold", {"hold_key": hold_key})


class EndedHold(NamedTuple):
    """Outcome `active` (ended now), `expired`, `released`, `settled` (dead before), `replayed`, `conflict`, `unknown` or `busy`."""

    outcome: str
    entity_id: int | None
    actor: str | None
    workspace: str | None
    first_key: str | None
    first_settled: Decimal | None


class EndingSaid(NamedTuple):
    """`how`: settled or released; `settle_key` and `settled` of a settle."""

    hold_id: str
    how: str
    settle_key: str | None
    settled: Decimal | None


async def end_holds(conn: AsyncConnection[Any], said: Sequence[EndingSaid], at: datetime | None) -> list[EndedHold]:
    """An answer each, in order; each hold is named once."""
    arguments = {
        "hold_keys": text_array([one.hold_id for one in said]),
        "hows": text_array([one.how for one in said]),
        "settle_keys": plain_array([one.settle_key for one in said]),
        "settleds": plain_array([one.settled for one in said]),
        "at": at,
    }
    with refusals():
        async with conn.cursor(row_factory=args_row(EndedHold)) as cursor:
            await cursor.execute(SQL["end_holds"], arguments)
            return await cursor.fetchall()
