"""Histories in which the Book and the auditor once disagreed, shrunk; each is kept with the rule that was broken."""

from datetime import UTC, datetime

import pytest

from tests.conftest import Clock
from tests.simulation.histories import History, Step
from tests.simulation.stage import stage

START = datetime(2026, 6, 20, 12, tzinfo=UTC)


def subscribed(entity: str, plan: str, seats: int = 1, back: int = 0, *, ids: bool = True) -> Step:
    said = {"plan": plan, "seats": seats, "interval": "month", "back": back, "status": "active", "ids": ids}
    return Step("subscribe", {"entity": entity} | said)


def rests(entity: str, status: str = "unpaid") -> Step:
    return Step("status", {"entity": entity, "status": status})


def organization(name: str, owner: str) -> Step:
    return Step("organization", {"name": name, "owner": owner})


def jumped(**said: object) -> Step:
    return Step("jump", said)


def recorded(user: str, amount: str) -> Step:
    plain = dict.fromkeys(("workspace", "entity", "period", "when"))
    return Step("record", {"user": user, "amount": amount, "description": "fee"} | plain)


def corrected(nth: int, share: str, *, again: bool = False) -> Step:
    return Step("correct", {"nth": nth, "share": share, "again": again})


def changed(entity: str, plan: str, seats: int, effective: str | int | None) -> Step:
    return Step("change", {"entity": entity, "plan": plan, "seats": seats, "effective": effective})


FOUND = {
    "§10 a window nobody came by to open begins with the plan of before": [
        subscribed("user:u1", "pro_25000"),
        jumped(seconds=33 * 86_400),
        changed("user:u1", "pro", 1, 1),
    ],
    "§10 windows nobody came by to open are there when the subscription ends": [
        subscribed("user:u1", "pro_6000"),
        jumped(seconds=70 * 86_400),
        Step("end", {"entity": "user:u1", "back": 7200}),
    ],
    "§10 a change effective at the start replaces what the clock assumed": [
        subscribed("user:u1", "pro_25000", 2, back=86_400),
        changed("user:u1", "team_6000", 2, "start"),
    ],
    "§10 a change across overage at the very start cuts nothing": [
        subscribed("user:u1", "enterprise"),
        changed("user:u1", "pro", 2, None),
    ],
    "§10 the end that Stripe moves is also that of the rest after a cut": [
        subscribed("user:u1", "pro_25000", 2, back=1_728_000),
        changed("user:u1", "enterprise", 5, 1),
        Step("move_end", {"entity": "user:u1", "days": 5}),
    ],
    "§3.7 more than an entry's amount may be taken back after a positive correction": [
        recorded("u1", "0.01"),
        corrected(0, "0.2"),
        corrected(0, "-1.01"),
    ],
    "§3.6 a running total of somebody new, for an entity that is named": [
        Step("cumulative", {"user": "u1", "request": 0, "total": "7", "entity": "user:u3", "when": None}),
    ],
    "§10 a period that was cut while its subscription rested stays cut when that pays again": [
        subscribed("user:u1", "enterprise"),
        changed("user:u1", "team_6000", 2, None),
        rests("user:u1", "paused"),
        jumped(to="user:u1", offset_us=-1),
        changed("user:u1", "enterprise", 3, None),
        rests("user:u1", "trialing"),
    ],
    "§7 the window that opens after a rest has the allowance of what is in force by then": [
        subscribed("user:u2", "team_25000", 2, back=777_600),
        rests("user:u2"),
        jumped(seconds=41 * 86_400),
        changed("user:u2", "enterprise", 2, None),
        rests("user:u2", "active"),
    ],
    "§7 what the allowance has risen to a cut at that instant does not take back": [
        subscribed("user:u2", "team_6000"),
        jumped(seconds=60),
        changed("user:u2", "team_6000", 5, None),
        Step("end", {"entity": "user:u2", "back": 0}),
    ],
    "§10 windows nobody came by to open are there when our cancellation ends the subscription": [
        organization("o2", "u2"),
        subscribed("organization:o2", "pro_6000", 3),
        subscribed("user:u2", "team_6000", 2, back=1_728_000),
        jumped(to="user:u2", offset_us=3_600_000_001),
        changed("organization:o2", "team", 2, None),
        jumped(seconds=70 * 86_400),
    ],
    "§12 the clock's end of the organization's subscription takes back when it was, not when somebody comes by": [
        organization("o1", "u1"),
        subscribed("organization:o1", "enterprise"),
        subscribed("user:u5", "pro", 2),
        Step("cancel", {"entity": "organization:o1", "cancel": True}),
        jumped(seconds=86_400),
        Step("join", {"organization": "o1", "user": "u5"}),
        jumped(seconds=35 * 86_400),
    ],
    "§3.3 the key of a correction that is said again for another entry is a conflict, also for one that can't be corrected": [
        recorded("u1", "31"),
        recorded("u2", "31"),
        corrected(2, "-0.5", again=True),
        corrected(2, "-0.5", again=True),
    ],
    "§8 credits that expire lower the limit, and who is beyond it then is told": [
        subscribed("user:u4", "pro_6000"),
        Step("grant", {"entity": "user:u4", "amount": "5", "priority": 50, "expires": 3600}),
        Step("brim", {"entity": "user:u4", "overage": "0.50"}),
        Step("sweep", {}),
        jumped(seconds=7200),
        Step("sweep", {}),
    ],
    "§10 an end that is learned after the boundary leaves the rows of the window since where they are": [
        subscribed("user:u1", "pro_6000"),
        jumped(to="user:u1", offset_us=0),
        jumped(seconds=3599),
        recorded("u1", "40.505"),
        Step("end", {"entity": "user:u1", "back": 7200}),
        recorded("u1", "1.00"),
        jumped(seconds=7200),
        Step("sweep", {}),
    ],
    "§12 an end that is told takes nothing back of what had ended before": [
        organization("o1", "u1"),
        subscribed("organization:o1", "team_6000"),
        subscribed("user:u5", "pro", 2, back=86_400),
        Step("join", {"organization": "o1", "user": "u5"}),
        jumped(to="user:u5", offset_us=3_600_000_000),
        Step("end", {"entity": "organization:o1", "back": 7200}),
        jumped(seconds=60),
        Step("sweep", {}),
    ],
    "§10 what a transaction commits after the seal is late, and its period stays as it is": [
        subscribed("user:u1", "pro_6000"),
        Step("slow", {"user": "u1", "amount": "40.505", "when": None}),
        jumped(to="user:u1", offset_us=3_600_000_000),
        Step("sweep", {}),
        Step("commit", {"nth": 0}),
    ],
    "§8 whose free period pays again is told that it is used up": [
        organization("o2", "u2"),
        subscribed("user:u1", "team", back=86_400),
        Step("record", {"user": "u1", "amount": "260.755", "description": "fee", "workspace": None, "entity": None,
                        "period": None, "when": ("edge", -3_600_000_000)}),
        Step("sweep", {}),
        Step("convert", {"user": "u1", "organization": "o2", "seats": 2}),
        Step("sweep", {}),
    ],
    "§12 what ended by the clock stays ended when the organization's end is told at that instant": [
        organization("o2", "u2"),
        subscribed("user:u2", "pro_25000", back=1_728_000),
        subscribed("organization:o2", "pro_25000", back=86_400),
        jumped(to="user:u2", offset_us=0),
        Step("end", {"entity": "organization:o2", "back": 1}),
    ],
    "§5 of two periods that end at one instant the last is the better one's": [
        organization("o1", "u1"),
        subscribed("organization:o1", "enterprise"),
        subscribed("organization:o1", "team"),
        Step("cumulative", {"user": "u1", "request": 2, "total": "140.5", "entity": None, "when": None}),
        jumped(to="organization:o1", offset_us=3_599_999_999),
    ],
    "§12 whom an organization begins to pay for by the clock has the rest set to cancel": [
        organization("o1", "u1"),
        subscribed("user:u1", "team_6000"),
        subscribed("organization:o1", "pro_6000", 3),
        subscribed("user:u1", "pro_6000"),
        Step("cancel", {"entity": "user:u1", "cancel": True}),
        jumped(to="organization:o1", offset_us=0),
    ],
    "§12 what is set to cancel by the clock ends with the term that runs when it is noticed": [
        organization("o1", "u1"),
        subscribed("user:u1", "enterprise", back=1_728_000),
        subscribed("organization:o1", "enterprise"),
        subscribed("user:u1", "pro_25000", back=60),
        changed("organization:o1", "team", 3, None),
        jumped(seconds=3_024_000),
        jumped(seconds=40 * 86_400),
        recorded("u1", "1.00"),
    ],
    "§12 what the clock had us cancel is taken back on leaving": [
        organization("o1", "u1"),
        subscribed("organization:o1", "pro"),
        subscribed("user:u5", "pro_6000", 3, back=1_728_000),
        Step("join", {"organization": "o1", "user": "u5"}),
        changed("user:u5", "team_6000", 5, "start"),
        subscribed("user:u5", "pro_6000", 2, back=777_600),
        jumped(seconds=3_024_000),
        Step("leave", {"organization": "o1", "user": "u5"}),
        jumped(seconds=40 * 86_400),
    ],
    "§10 the newest word holds, also where what came before it was said of a later instant": [
        subscribed("user:u5", "enterprise", 3, back=86_400),
        changed("user:u5", "enterprise", 3, 1),
        changed("user:u5", "pro_6000", 2, "start"),
        jumped(seconds=35 * 86_400),
        recorded("u5", "61.00"),
    ],
    "§7 what was said to be in force counts, and the next window has what was said last": [
        subscribed("user:u1", "pro_25000", 2, back=86_400),
        changed("user:u1", "pro_25000", 2, 7200),
        changed("user:u1", "pro_6000", 1, "start"),
        jumped(seconds=35 * 86_400),
        recorded("u1", "61.00"),
    ],
    "§10 an anchor that is named holds, also where the end is the one that was known": [
        jumped(seconds=72 * 86_400),
        subscribed("user:u1", "team_6000"),
        jumped(to="user:u1", offset_us=-3_600_000_000),
        Step("move_end", {"entity": "user:u1", "days": -3}),
        jumped(seconds=86_400),
    ],
    "§12 what is deleted is judged with the credits of now, at which it is cut": [
        organization("o1", "u1"),
        organization("o2", "u2"),
        Step("grant", {"entity": "organization:o1", "amount": "300", "priority": 50, "expires": 3600}),
        subscribed("organization:o1", "team_6000", 0, back=60, ids=False),
        Step("brim", {"entity": "organization:o1", "overage": "12.345"}),
        Step("delete_organization", {"name": "o1"}),
        jumped(seconds=7200),
        Step("sweep", {}),
    ],
    "§12 what is deleted is judged with the days that are left of it when it is cut": [
        organization("o1", "u1"),
        subscribed("organization:o1", "team_6000", 0, back=86_400, ids=False),
        Step("record", {"user": "u1", "amount": "20.00", "description": "fee", "workspace": None, "entity": None,
                        "period": None, "when": ("ago", 3600)}),
        Step("brim", {"entity": "organization:o1", "overage": "0.49"}),
        Step("delete_organization", {"name": "o1"}),
        jumped(seconds=7200),
        Step("sweep", {}),
    ],
    "§12 of two reasons to refuse a deletion the money is named": [
        organization("o1", "u1"),
        subscribed("user:u4", "pro", 2, back=60, ids=False),
        Step("join", {"organization": "o1", "user": "u4"}),
        Step("transfer", {"organization": "o1", "user": "u4"}),
        Step("brim", {"entity": "user:u4", "overage": "0.495"}),
        Step("delete_user", {"user": "u4"}),
    ],
    "§12 a credit is counted for one of the periods that a deletion leaves to be closed": [
        organization("o1", "u1"),
        organization("o2", "u2"),
        Step("grant", {"entity": "organization:o1", "amount": "25.10", "priority": 50, "expires": None}),
        subscribed("organization:o1", "team_6000", ids=False),
        Step("brim", {"entity": "organization:o1", "overage": "17.50"}),
        jumped(to="organization:o1", offset_us=1),
        Step("brim", {"entity": "organization:o1", "overage": "12.345"}),
        Step("delete_organization", {"name": "o1"}),
        jumped(seconds=7200),
        Step("sweep", {}),
    ],
    "§12 the clock's end of an organization's subscription that rests takes back as well": [
        organization("o1", "u1"),
        Step("subscribe", {"entity": "user:u1", "plan": "pro_6000", "seats": 3, "interval": "year", "back": 86_400,
                           "status": "trialing", "ids": True}),
        subscribed("user:u2", "enterprise", 3, back=1_728_000),
        Step("cancel", {"entity": "user:u2", "cancel": True}),
        Step("convert", {"user": "u2", "organization": "o1", "seats": 2}),
        rests("organization:o1", "paused"),
        jumped(to="organization:o1", offset_us=3_600_000_000),
    ],
    "§10 an end that is told says when, and changes nothing of what was in force": [
        organization("o1", "u1"),
        subscribed("organization:o1", "pro_6000", back=60),
        jumped(to="organization:o1", offset_us=3_600_000_000),
        changed("organization:o1", "enterprise", 5, 1),
        Step("end", {"entity": "organization:o1", "back": 7200}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule", FOUND)
async def test_a_history_that_once_differed_agrees(rule: str, database_url: str, clock: Clock) -> None:
    """The rule in the test's name holds in the history that broke it."""
    async with stage(database_url, clock) as on:
        await on.play(History(0, START, tuple(FOUND[rule])))
        assert on.played == 1
