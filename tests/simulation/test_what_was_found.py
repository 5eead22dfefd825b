"""Histories in which the Book and the auditor once disagreed, shrunk; each is kept with the rule that was broken."""

from datetime import UTC, datetime

import pytest

from tests.conftest import Clock
from tests.simulation.histories import History, Step
from tests.simulation.stage import stage

START = datetime(2026, 6, 20, 12, tzinfo=UTC)


def subscribed(entity: str, plan: str, seats: int = 1, interval: str = "month", back: int = 0) -> Step:
    said = {"plan": plan, "seats": seats, "interval": interval, "back": back, "status": "active", "ids": True}
    return Step("subscribe", {"entity": entity} | said)


def changed(entity: str, plan: str, seats: int, effective: str | int | None) -> Step:
    return Step("change", {"entity": entity, "plan": plan, "seats": seats, "effective": effective})


FOUND = {
    "§10 a window nobody came by to open begins with the plan of before": [
        subscribed("user:u1", "pro_25000"),
        Step("jump", {"seconds": 33 * 86_400}),
        changed("user:u1", "pro", 1, 1),
    ],
    "§10 windows nobody came by to open are there when the subscription ends": [
        subscribed("user:u1", "pro_6000"),
        Step("jump", {"seconds": 70 * 86_400}),
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
        Step("record", {"user": "u1", "amount": "0.01", "description": "fee", "workspace": None, "entity": None,
                        "period": None, "when": None}),
        Step("correct", {"nth": 0, "share": "0.2", "again": False}),
        Step("correct", {"nth": 0, "share": "-1.01", "again": False}),
    ],
    "§3.6 a running total of somebody new, for an entity that is named": [
        Step("cumulative", {"user": "u1", "request": 0, "total": "7", "entity": "user:u3", "when": None}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule", FOUND)
async def test_a_history_that_once_differed_agrees(rule: str, database_url: str, clock: Clock) -> None:
    """The rule in the test's name holds in the history that broke it."""
    async with stage(database_url, clock) as on:
        await on.play(History(0, START, tuple(FOUND[rule])))
        assert on.played == 1
