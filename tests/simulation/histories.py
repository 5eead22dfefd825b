"""Random histories: lists of steps that say what to try, not what it will do. Data, so that one can be printed, replayed and shrunk.

A small world, so that rules interact: two organizations, five users, three workspaces. What a step means (which entry is the
third, when the next boundary is) is decided when it is played, so a history stays playable when steps are left out of it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

USERS = ("u1", "u2", "u3", "u4", "u5")
ORGANIZATIONS = ("o1", "o2")
ENTITIES = tuple(f"user:{user}" for user in USERS) + tuple(f"organization:{name}" for name in ORGANIZATIONS)
WORKSPACES = ("w1", "w2", "w3")
HOUR_US = 3_600_000_000
# Month ends, leap days, odd hours and minutes, the last microsecond of a year.
STARTS = (
    datetime(2026, 6, 20, 12, tzinfo=UTC),
    datetime(2028, 1, 31, 17, 45, 30, tzinfo=UTC),
    datetime(2028, 2, 29, 6, 30, tzinfo=UTC),
    datetime(2027, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 10, 31, 0, 0, 0, 1, tzinfo=UTC),
    datetime(2027, 3, 1, tzinfo=UTC),
)
EDGES_US = (0, 1, -1, HOUR_US, HOUR_US - 1, HOUR_US + 1, -HOUR_US)
AMOUNTS = (
    "0.01",
    "0.10",
    "0.25",
    "1.00",
    "3.333333",
    "0.000000000001",
    "29.999",
    "30.00",
    "40.505",
    "130.25",
    "260.755",
)
# Where an overage becomes a charge, is written off, is rounded.
BRIMS = ("0", "0.49", "0.495", "0.50", "0.494999", "12.345", "99.99", "99.995", "100.00", "130.456", "250", "17.50")
DESCRIPTIONS = ("gpt-4o", "search", "fee")
PLANS_OF = {
    "user": ("pro", "pro_6000", "pro_25000", "enterprise", "team_6000"),
    "organization": ("team_6000", "team_25000", "team", "enterprise", "pro_6000"),
}
STATUSES = ("active", "past_due", "unpaid", "trialing", "paused")


@dataclass(frozen=True, slots=True)
class Step:
    kind: str
    said: Mapping[str, Any]

    def __str__(self) -> str:
        return (
            f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.said.items() if value is not None)})"
        )


@dataclass(frozen=True, slots=True)
class History:
    seed: int
    start: datetime
    steps: tuple[Step, ...]

    @property
    def crowded(self) -> bool:
        """One in three is played amid two sweepers and two compactors."""
        return self.seed % 3 == 1

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}, from {self.start}", *map(str, self.steps)])


def _when(random: Random) -> tuple[str, int] | None:
    """Occurred now, some seconds ago (also in the future), or at a distance in µs from the start of the payer's running period,
    or of the last closed one.
    """
    chosen = random.random()
    if chosen < 0.55:
        return None
    if chosen < 0.7:
        return ("closed", random.choice(EDGES_US))
    if chosen < 0.85:
        return ("edge", random.choice(EDGES_US))
    return ("ago", random.choice((-299, -301, 1, 3600, 86_400, 5 * 86_400, 40 * 86_400, 400 * 86_400)))


def _jump(random: Random) -> dict[str, Any]:
    if random.random() < 0.55:
        return {"to": random.choice(ENTITIES), "offset_us": random.choice(EDGES_US)}
    return {"seconds": random.choice((1, 60, 3599, 7200, 86_400, 3 * 86_400, 11 * 86_400, 35 * 86_400, 70 * 86_400))}


def _record(random: Random) -> dict[str, Any]:
    return {
        "user": random.choice(USERS),
        "amount": random.choice(AMOUNTS),
        "description": random.choice(DESCRIPTIONS),
        "workspace": random.choice((*WORKSPACES, "nowhere")) if random.random() < 0.15 else None,
        "entity": random.choice(ENTITIES) if random.random() < 0.1 else None,
        "period": random.randrange(4) if random.random() < 0.12 else None,
        "when": _when(random),
    }


def _batch(random: Random) -> dict[str, Any]:
    lines = [(random.choice(DESCRIPTIONS), random.choice((*AMOUNTS, "0"))) for _ in range(random.randint(2, 5))]
    return {"user": random.choice(USERS), "execution": random.randrange(3), "lines": lines}


def _subscribe(random: Random) -> dict[str, Any]:
    entity = random.choice(ENTITIES)
    return {
        "entity": entity,
        "plan": random.choice(PLANS_OF[entity.split(":")[0]]),
        "seats": random.choice((None, 0, 1, 2, 3)),
        "interval": random.choice(("month", "month", "month", "year")),
        "back": random.choice((0, 0, 0, 60, 86_400, 9 * 86_400, 20 * 86_400)),
        "status": random.choice(("active", "active", "active", "trialing")),
        "ids": random.random() < 0.75,
    }


def _change(random: Random) -> dict[str, Any]:
    entity = random.choice(ENTITIES)
    return {
        "entity": entity,
        "plan": random.choice(PLANS_OF[entity.split(":")[0]]),
        "seats": random.choice((1, 2, 3, 5)),
        "effective": random.choice((None, None, "start", 1, 7200)),
    }


def _correct(random: Random) -> dict[str, Any]:
    share = random.choice(("-1", "-0.5", "-0.1", "-1.01", "0.2", "0"))
    return {
        "nth": random.randrange(20),
        "share": share,
        "again": random.random() < 0.15,
        "closed": random.random() < 0.4,
    }


MAKERS: Mapping[str, tuple[float, Callable[[Random], dict[str, Any]]]] = {
    "jump": (12, _jump),
    "record": (26, _record),
    "batch": (4, _batch),
    "retry": (7, lambda r: {"nth": r.randrange(12), "change": r.choice((None, None, "amount", "entity")), "turn": 1}),
    "cumulative": (
        6,
        lambda r: {
            "user": r.choice(USERS[:2]),
            "request": r.randrange(3),
            "total": r.choice(("0", "0.4", "0.8", "1.3", "7", "31", "140.5")),
            "entity": r.choice(ENTITIES) if r.random() < 0.1 else None,
            "when": _when(r),
        },
    ),
    "correct": (8, _correct),
    "brim": (9, lambda r: {"entity": r.choice(ENTITIES), "overage": r.choice(BRIMS)}),
    "resolve": (4, lambda r: {"user": r.choice(USERS), "workspace": r.choice((None, None, *WORKSPACES))}),
    "attributed": (4, lambda r: {"nth": r.randrange(4), "amount": r.choice(AMOUNTS), "when": _when(r)}),
    "workspace": (1, lambda r: {"name": r.choice(WORKSPACES), "payer": r.choice((None, *ENTITIES))}),
    "subscribe": (7, _subscribe),
    "change": (5, _change),
    "status": (4, lambda r: {"entity": r.choice(ENTITIES), "status": r.choice(STATUSES)}),
    "cancel": (3, lambda r: {"entity": r.choice(ENTITIES), "cancel": r.random() < 0.7}),
    "end": (2, lambda r: {"entity": r.choice(ENTITIES), "back": r.choice((0, 0, 1, 7200))}),
    "reanchor": (
        2,
        lambda r: {
            "entity": r.choice(ENTITIES),
            "back": r.choice((0, 0, 1, 7200)),
            "interval": r.choice(("month", "year")),
        },
    ),
    "move_end": (2, lambda r: {"entity": r.choice(ENTITIES), "days": r.choice((-3, 1, 5, 20))}),
    "convert": (2, lambda r: {"user": r.choice(USERS), "organization": r.choice(ORGANIZATIONS), "seats": 2}),
    "join": (5, lambda r: {"organization": r.choice(ORGANIZATIONS), "user": r.choice(USERS)}),
    "leave": (3, lambda r: {"organization": r.choice(ORGANIZATIONS), "user": r.choice(USERS)}),
    "transfer": (1, lambda r: {"organization": r.choice(ORGANIZATIONS), "user": r.choice(USERS)}),
    "compact": (3, lambda _: {}),
    "threshold": (5, lambda r: {"entity": r.choice(ENTITIES)}),
    "sweep": (7, lambda _: {}),
    "grant": (
        4,
        lambda r: {
            "entity": r.choice(ENTITIES),
            "amount": r.choice(("5", "25.10", "0.40", "300", "1.005")),
            "priority": r.choice((10, 50, 50, 90)),
            "expires": r.choice((None, None, 3600, 10 * 86_400, 40 * 86_400)),
        },
    ),
    "purchase": (1, lambda r: {"entity": r.choice(ENTITIES), "amount": r.choice(("9.99", "10", "50", "1000.01"))}),
    "limit": (
        2,
        lambda r: {
            "entity": r.choice(ENTITIES),
            "amount": r.choice(("30", "59.995", "200", "1000")),
            "by": r.choice((None, None, None, *USERS)),
        },
    ),
    "cap": (
        2,
        lambda r: {
            "organization": r.choice(ORGANIZATIONS),
            "user": r.choice(USERS),
            "amount": r.choice((None, "0", "10", "50")),
        },
    ),
    "check": (5, lambda r: {"user": r.choice(USERS), "workspace": r.choice((None, None, None, *WORKSPACES))}),
    "hold": (
        6,
        lambda r: {
            "user": r.choice(USERS),
            "amount": r.choice(AMOUNTS),
            "ttl_s": r.choice((60, 3600, 90_000)),
            "workspace": r.choice((None, None, None, *WORKSPACES)),
        },
    ),
    "hold_again": (2, lambda r: {"nth": r.randrange(6), "amount": r.choice((None, None, "0.02"))}),
    "hold_rest": (3, lambda r: {"user": r.choice(USERS), "beyond": r.choice(("0", "0", "0.000000000001", "-0.01"))}),
    "settle": (4, lambda r: {"nth": r.randrange(6), "amount": r.choice((*AMOUNTS, "0"))}),
    "release": (2, lambda r: {"nth": r.randrange(6)}),
    "block": (1, lambda r: {"entity": r.choice(ENTITIES), "reason": r.choice(("dispute", "administrative"))}),
    "unblock": (2, lambda r: {"entity": r.choice(ENTITIES), "reason": r.choice(("dispute", "administrative"))}),
    "ids": (3, lambda r: {"entity": r.choice(ENTITIES)}),
    "baseline": (
        1,
        lambda r: {
            "entity": r.choice(ENTITIES),
            "amount": r.choice(("18.40", "3.00", "45.5")),
            "rows": [r.randrange(5) for _ in range(3)],
        },
    ),
    "crash": (4, lambda r: {"statement": r.choice((1, 1, 1, 2, 3, 4, 6, 9, 14, 20)), "answered": r.random() < 0.5}),
    "slow": (4, lambda r: {"user": r.choice(USERS), "amount": r.choice(AMOUNTS), "when": _when(r)}),
    "commit": (3, lambda r: {"nth": r.randrange(3)}),
    "delete_organization": (0.4, lambda r: {"name": r.choice(ORGANIZATIONS)}),
    "delete_user": (1, lambda r: {"user": r.choice(USERS[2:])}),
}

# Less is spent on what the ledger alone shows.
WEIGHTS = {kind: weight for kind, (weight, _) in MAKERS.items()} | {
    "batch": 2, "retry": 3, "workspace": 0.5, "compact": 1, "resolve": 2, "attributed": 3, "subscribe": 4, "status": 3,
    "cancel": 2, "change": 4, "jump": 15, "record": 16, "brim": 14, "sweep": 12, "correct": 10,
}  # fmt: skip


def make_history(seed: int, length: int) -> History:
    """The same seed gives the same history. It begins with the world: two organizations, workspaces, some subscriptions."""
    random = Random(seed)
    start = random.choice(STARTS)
    steps = [
        Step("organization", {"name": name, "owner": user}) for name, user in zip(ORGANIZATIONS, USERS, strict=False)
    ]
    steps += [Step("workspace", {"name": "w1", "payer": "organization:o1"}), Step("workspace", {"name": "w2"})]
    first = random.sample(ENTITIES, 4)
    steps += [
        Step("subscribe", _subscribe(random) | {"entity": entity, "ids": random.random() < 0.8}) for entity in first
    ]
    drawn = random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=max(0, length - len(steps)))
    steps += [Step(kind, MAKERS[kind][1](random)) for kind in drawn]
    return History(seed, start, tuple(steps))


async def shrink(history: History, fails: Callable[[History], Awaitable[bool]]) -> History:
    """Leaves out chunks, then single steps, as long as it still fails: at the end no single step can be left out."""
    size = max(1, len(history.steps) // 2)
    while True:
        smaller = await _leave_out(history, size, fails)
        if size == 1 and smaller is history:
            return history
        history, size = smaller, max(1, size // 2)


async def _leave_out(history: History, size: int, fails: Callable[[History], Awaitable[bool]]) -> History:
    position = 0
    while position < len(history.steps):
        steps = history.steps[:position] + history.steps[position + size :]
        smaller = History(history.seed, history.start, steps)
        if await fails(smaller):
            history = smaller
        else:
            position += size
    return history
