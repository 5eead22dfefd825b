"""Back to the counters, to the cent (BEHAVIOUR §13): what was used, billed and spent here since the switch is given back to their rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.cutover import Carried, RolledBack
from meterbook.core.money import EXACT, ZERO, total_of
from meterbook.errors import CutoverRefused, InvalidRequest
from meterbook.operations.list_own_usage import list_own_usage
from meterbook.postgres import cutover


@dataclass(frozen=True, slots=True)
class _Money:
    """What was billed and granted here beyond the product's figures, less what was spent; `owner`: on whose row bills stand; `left`: what
    is not written back.
    """

    billed: Decimal
    credits: Decimal
    owner: str | None
    left: str = ""


async def roll_back_entity(conn: AsyncConnection[Any], entity_id: int, entity: str, at: datetime) -> RolledBack:
    """In the connection's transaction, the product's rows last. Nothing is taken out of the ledger; from now on it is not billed here.

    Again: what was recorded here since goes back as well. Raises `CutoverRefused`; `InProgress` while others hold those rows.
    """
    (state,) = await cutover.records_of(conn, "find_state", {"entity_id": entity_id})
    if state["state"] == "rolled_back":
        return await _give_back_the_rest(conn, entity_id, entity, state)
    usage: Sequence[dict[str, Any]] = ()
    money = _Money(ZERO, ZERO, None)
    if state["state"] != "shadow":
        _check(state, at)
        usage = await list_own_usage(conn, entity_id, state)
        _check_place(usage)
        money = await _owed(conn, entity_id, entity, state["period_id"], at)
    await cutover.change(conn, "roll_back_entity", {"entity_id": entity_id})
    await cutover.change(conn, "shadow_entity", {"entity_id": entity_id, "at": at})
    await _give_back_usage(conn, entity_id, entity, usage)
    await _give_back_money(conn, entity, money)
    return RolledBack(
        entity, "rolled_back", total_of(one["amount"] for one in usage), money.billed, money.credits, left=money.left
    )


def _check(state: dict[str, Any], at: datetime) -> None:
    if state["state"] == "retired" or state["period_state"] != "open" or state["ends_at"] <= at:
        raise CutoverRefused("its first period has ended here: what was billed since can't go back to a counter")


def _check_place(usage: Sequence[dict[str, Any]]) -> None:
    """There is one counter for all periods: what belongs to another one has no place on it."""
    elsewhere = total_of(one["elsewhere"] for one in usage)
    if elsewhere:
        raise CutoverRefused(
            f"{elsewhere:f} were used in another period than the one that was switched: a counter has one period"
        )


async def _give_back_the_rest(
    conn: AsyncConnection[Any], entity_id: int, entity: str, state: dict[str, Any]
) -> RolledBack:
    usage = [] if state["switched_at"] is None else await list_own_usage(conn, entity_id, state)
    usage = [one for one in usage if one["amount"]]
    await _give_back_usage(conn, entity_id, entity, usage)
    return RolledBack(entity, "rolled_back" if usage else "before", total_of(one["amount"] for one in usage))


async def _give_back_usage(
    conn: AsyncConnection[Any], entity_id: int, entity: str, usage: Sequence[dict[str, Any]]
) -> None:
    """Each actor's usage that no counter has goes to the actor's counter, all in one statement."""
    if not usage:
        return
    users = [one["user_id"] for one in usage]
    arguments = {"users": users, "amounts": [one["amount"] for one in usage]}
    await cutover.change(conn, "note_returned", {**arguments, "entity_id": entity_id})
    missing = await cutover.records_of(conn, "list_without_counter", {"users": users})
    if missing:
        amounts = dict(zip(users, arguments["amounts"], strict=True))
        who = missing[0]["user_id"]
        raise CutoverRefused(f"{amounts[who]:f} of {entity} has to go back to running of {who}, who has no row there")
    said = f"{total_of(arguments['amounts']):f} of {entity} has to go back to running"
    await _write(conn, "give_back_usage", arguments, said, len(users))


async def _owed(conn: AsyncConnection[Any], entity_id: int, entity: str, period_id: int, at: datetime) -> _Money:
    kind, _, name = entity.partition(":")
    user, organization = (name, None) if kind == "user" else (None, name)
    (theirs,) = await cutover.rows_of(conn, Carried, "read_carried", {"user": user, "organization": organization})
    pool = [] if user is None else await cutover.records_of(conn, "find_pool", {"user": user})
    is_owner = any(one["is_owner"] for one in pool)
    (here,) = await cutover.records_of(
        conn, "read_spendable", {"entity_id": entity_id, "period_id": period_id, "at": at}
    )
    credit = EXACT.subtract(Decimal(here["credits_cents"]).scaleb(-2), Decimal(theirs.credits_cents).scaleb(-2))
    billed = ZERO if is_owner else Decimal(here["billed_cents"] - theirs.billed_cents).scaleb(-2)
    owner = user if user is not None else await cutover.value_of(conn, "owner_of", {"organization": organization})
    (kept,) = await cutover.records_of(conn, "read_kept", {"entity_id": entity_id})
    return _Money(billed, credit, owner, _left(theirs, kept, pooled=bool(pool)))


def _left(theirs: Carried, kept: dict[str, Any], *, pooled: bool) -> str:
    """A limit or a block that differs. Who is in a pool has no block of their own to compare."""
    said = []
    if theirs.stored_limit != kept["stored"] and kept["stored"] is not None:
        said.append(f"its limit is {kept['stored']:f} here and {_word(theirs.stored_limit)} there")
    if not pooled and (theirs.blocked is None) != (kept["blocks"] is None):
        said.append(f"its block is {_word(kept['blocks'])} here and {_word(theirs.blocked)} there")
    return "; ".join(said)


def _word(said: object) -> str:
    return "none" if said is None else f"{said}"


async def _give_back_money(conn: AsyncConnection[Any], entity: str, money: _Money) -> None:
    kind, _, name = entity.partition(":")
    if money.billed:
        said = f"{money.billed:f} of {entity} has to go back to billed of {money.owner}"
        await _write(conn, "give_back_billed", {"users": [money.owner], "amount": money.billed}, said, 1)
    if money.credits:
        statement = "give_back_organization_credits" if kind == "organization" else "give_back_user_credits"
        said = f"{money.credits:f} of {entity} has to go back to credits of {name}"
        await _write(conn, statement, {"users": [name], "amount": money.credits}, said, 1)


async def _write(conn: AsyncConnection[Any], statement: str, arguments: dict[str, Any], said: str, rows: int) -> None:
    """Raises `CutoverRefused` where the mapping has no bare column to write, or no such row is there: nothing is lost without a word."""
    field = said.partition(" has to go back to ")[2].partition(" ")[0]
    await cutover.value_of(conn, "limit_lock_wait")
    try:
        changed = await cutover.change(conn, statement, arguments)
    except InvalidRequest as error:
        raise CutoverRefused(f"{said}, but the mapping's {field} is no bare column: {error}") from error
    if changed != rows:
        raise CutoverRefused(f"{said}, who has no row there")
