"""Sets money aside for work that has not finished (BEHAVIOUR §8): decided under the entity's gate, so that nothing overshoots.

Requests for one entity that wait at the same moment are decided together, in their order, each seeing those granted before it.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.entries import check_parsed, check_text
from meterbook.core.holding import Decision, Granted, HoldTerms, Placed, decide_holds, same_hold
from meterbook.core.ledgers import HoldState
from meterbook.core.money import parse_above_zero
from meterbook.core.plans import Catalog
from meterbook.core.usage_report import report
from meterbook.errors import Denied, InProgress, InvalidUsage, KeyConflict, Problem, Unavailable
from meterbook.postgres import holds

TTL_S_MAX = 7 * 24 * 3600

HoldAnswer = Placed | Denied | KeyConflict | None
"""None: another entity pays, or it is not known who: attribute, and ask again at its gate."""


class GateBusy(Unavailable):
    """Another process has been deciding about this entity's holds for too long; try again."""


class HoldIdTaken(Unavailable):
    """An id was taken under another entity's gate at the same moment: undo what was written, and decide again."""


async def hold_spends(
    conn: AsyncConnection[Any], entity_id: int, asked: Sequence[HoldTerms], catalog: Catalog, at: datetime | None
) -> list[HoldAnswer]:
    """In a short transaction of its own, at READ COMMITTED; an answer each. The same id again gives the same hold.

    Raises `GateBusy`, `HoldIdTaken`, `InProgress` (an id that somebody is writing for another entity); then nothing may be committed.
    """
    gate = await _lock_gate(conn, entity_id, asked, at)
    decisions: list[Decision] = [None] * len(asked)
    if gate.period is not None:
        usage = report(gate.period, catalog.plan(gate.period.period.plan))
        decisions = decide_holds(usage, gate.parties, gate.taken, asked)
        granted = [(one.state, one.actor_id, one.ttl_s) for one in decisions if isinstance(one, Granted)]
        if granted and await holds.write_holds(conn, entity_id, granted, gate.period.at) < len(granted):
            raise HoldIdTaken
    states = await holds.list_holds_by_id(conn, list(gate.taken), at) if gate.taken else {}
    states |= {one.state.id: one.state for one in decisions if isinstance(one, Granted)}
    return [_answer(wanted, decision, states) for wanted, decision in zip(asked, decisions, strict=True)]


async def _lock_gate(
    conn: AsyncConnection[Any], entity_id: int, asked: Sequence[HoldTerms], at: datetime | None
) -> holds.LockedGate:
    parties = list({wanted.party: None for wanted in asked})
    try:
        return await holds.lock_and_read_gate(conn, entity_id, parties, [wanted.hold_id for wanted in asked], at)
    except InProgress as error:
        raise GateBusy from error


def _answer(wanted: HoldTerms, decision: Decision, states: dict[str, HoldState]) -> HoldAnswer:
    if isinstance(decision, Denied):
        return decision
    known = states.get(wanted.hold_id)
    return None if known is None else _placed(same_hold(known, wanted), is_new=isinstance(decision, Granted))


def _placed(hold: HoldState | KeyConflict, *, is_new: bool) -> Placed | KeyConflict:
    return hold if isinstance(hold, KeyConflict) else Placed(hold, is_new)


async def find_same_hold(conn: AsyncConnection[Any], wanted: HoldTerms, at: datetime | None) -> Placed | None:
    """The hold of that id, if there is one. Raises `KeyConflict`."""
    known = (await holds.list_holds_by_id(conn, [wanted.hold_id], at)).get(wanted.hold_id)
    same = None if known is None else _placed(same_hold(known, wanted), is_new=False)
    if isinstance(same, KeyConflict):
        raise same
    return same


def check_hold(amount: object, hold_id: object, ttl_s: object) -> Decimal:
    """The amount. Raises `InvalidUsage`."""
    check_text("hold_id", hold_id)
    exact = check_parsed(parse_above_zero, amount)
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int) or not 0 < ttl_s <= TTL_S_MAX:
        raise InvalidUsage(
            [Problem(None, "ttl_s", "invalid_time", f"{ttl_s!r} is not between 1 and {TTL_S_MAX} seconds")]
        )
    return exact
