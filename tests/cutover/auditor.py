"""What a switch must make of a product's tables, computed from the rows alone: nothing here is shared with the code that it judges."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from tests.ledger import P1

RANKS = {"pro": 10, "pro_6000": 10, "pro_25000": 10, "team": 20, "team_6000": 20, "team_25000": 20}
REFRESH = {
    "pro": "0.20", "pro_6000": "0.25", "pro_25000": "1", "team": "0.40", "team_6000": "0.25", "team_25000": "1",
}  # fmt: skip
STATS = (
    b"select user_id, current_period_cost, pro_period_cost_snapshot, pro_period_cost_snapshot_at from public.user_stats"
)


@dataclass
class Expected:
    """One entity's running period at the switch."""

    baseline: Decimal = Decimal(0)
    refresh_per_day: Decimal = Decimal(0)
    days: dict[int, Decimal] = field(default_factory=dict)

    @property
    def refresh(self) -> Decimal:
        return sum((min(cost, self.refresh_per_day) for cost in self.days.values()), Decimal(0))


def expected(url: str, now: datetime) -> dict[str, Expected]:
    """By entity, for tables whose subscriptions all run in June."""
    with psycopg.connect(url) as conn:
        stats = {row[0]: row[1:] for row in conn.execute(STATS)}
        member = {
            row[0]: row[1:] for row in conn.execute("select user_id, organization_id, created_at from public.member")
        }
        plans = {row[0]: row[1:] for row in conn.execute("select reference_id, plan, seats from public.subscription")}
        departed: dict[str, Decimal] = dict(
            conn.execute("select id, departed_member_usage from public.organization").fetchall()
        )
        rows = conn.execute("select user_id, created_at, cost from public.usage_log order by created_at").fetchall()
    found: dict[str, Expected] = {f"organization:{name}": Expected(amount) for name, amount in departed.items()}
    for owner, (plan, seats) in plans.items():
        entity = f"organization:{owner}" if owner in departed else f"user:{owner}"
        found.setdefault(entity, Expected()).refresh_per_day = Decimal(REFRESH[plan]) * (seats or 1)
    for user, (running, kept, kept_at) in stats.items():
        organization, joined = member.get(user, (None, None))
        pooled = organization is not None and RANKS[plans[organization][0]] > RANKS.get(plans.get(user, ("",))[0], 0)
        mine = found.setdefault(f"user:{user}", Expected())
        if pooled:
            since = max(P1[0].replace(tzinfo=None), joined)
            _add(found[f"organization:{organization}"], running, _of(rows, user, since, now.replace(tzinfo=None)))
            if kept and user in plans:
                _add(mine, kept, _of(rows, user, P1[0].replace(tzinfo=None), kept_at))
            elif kept:
                mine.baseline += kept
        else:
            _add(mine, running, _of(rows, user, P1[0].replace(tzinfo=None), now.replace(tzinfo=None)))
    return found


def _of(rows: list[Any], user: str, since: datetime, until: datetime) -> list[tuple[int, Decimal]]:
    start = P1[0].replace(tzinfo=None)
    return [((at - start).days, cost) for name, at, cost in rows if name == user and since <= at < until]


def _add(entity: Expected, counter: Decimal, rows: list[tuple[int, Decimal]]) -> None:
    entity.baseline += counter
    left = counter
    for day, cost in rows:
        part = min(cost, left)
        left -= part
        if part:
            entity.days[day] = entity.days.get(day, Decimal(0)) + part


def tables(url: str) -> dict[str, bytes]:
    """The product's tables byte for byte, in the order of their keys."""
    found = {}
    with psycopg.connect(url) as conn:
        for table, key in (
            ("organization", "id"),
            ("member", "id"),
            ("subscription", "id"),
            ("user_stats", "user_id"),
            ("usage_log", "id"),
        ):
            with conn.cursor().copy(f"copy (select * from public.{table} order by {key}) to stdout".encode()) as copy:
                found[table] = b"".join(bytes(part) for part in copy)
    return found
