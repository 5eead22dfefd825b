"""The past of a product that counts: users, organizations, subscriptions, an audit log, and counters that follow from it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from tests.ledger import P1, Window

SCHEMA = Path(__file__).with_name("schema.sql")
TABLES = ("organization", "member", "subscription", "user_stats", "usage_log")
SOURCES = ("workflow", "copilot", "wand", "knowledge-base")
MODELS = ("gpt-4o", "claude-3-5-sonnet", "o3-mini")


@dataclass
class User:
    """What the product knows of one user; the columns of user_stats by their meaning."""

    id: str
    running: Decimal = Decimal(0)
    last: Decimal = Decimal(0)
    billed: Decimal = Decimal(0)
    credits: Decimal = Decimal(0)
    limit: Decimal | None = Decimal(5)
    blocked: str | None = None
    kept: Decimal = Decimal(0)
    kept_at: datetime | None = None


@dataclass
class Product:
    """Rows for the product's tables; `write` puts them there."""

    users: dict[str, User] = field(default_factory=dict)
    organizations: list[tuple[Any, ...]] = field(default_factory=list)
    members: list[tuple[Any, ...]] = field(default_factory=list)
    subscriptions: list[tuple[Any, ...]] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)

    def user(self, name: str, **said: Any) -> User:
        self.users[name] = User(name, **said)
        return self.users[name]

    def organization(
        self,
        name: str,
        owner: str,
        *,
        joined: datetime,
        limit: str | None = None,
        balance: str = "0",
        departed: str = "0",
    ) -> None:
        limit_stored = None if limit is None else Decimal(limit)
        self.organizations.append((name, name.title(), limit_stored, Decimal(balance), Decimal(departed)))
        self.member(name, owner, joined, "owner")

    def member(self, organization: str, user: str, joined: datetime, role: str = "member") -> None:
        self.members.append((f"m_{organization}_{user}", user, organization, role, _bare(joined)))

    def subscription(
        self,
        owner: str,
        plan: str,
        window: Window = P1,
        *,
        seats: int | None = None,
        status: str = "active",
        cancels: bool = False,
    ) -> None:
        starts, ends = window
        row = (
            f"sub_{owner}",
            plan,
            owner,
            status,
            _bare(starts),
            _bare(ends),
            cancels,
            seats,
            f"cus_{owner}",
            f"stripe_{owner}",
        )
        self.subscriptions.append(row)

    def charge(
        self, user: str, amount: str | Decimal, at: datetime, *, counted: bool = True, logged: bool = True
    ) -> None:
        """One charge of the past: an audit row, and the counter; `counted` or `logged` False: one of the known inconsistencies."""
        number = len(self.rows) + 1
        if logged:
            source, model = SOURCES[number % len(SOURCES)], MODELS[number % len(MODELS)]
            row = (
                f"log_{number}",
                user,
                "model",
                source,
                model,
                Decimal(amount),
                None,
                f"flow_{number % 7}",
                f"exec_{number}",
                _bare(at),
            )
            self.rows.append(row)
        if counted:
            self.users[user].running += Decimal(amount)

    def write(self, url: str) -> None:
        with psycopg.connect(url) as conn, conn.cursor() as cursor:
            _copy(cursor, "organization", self.organizations)
            _copy(cursor, "member", self.members)
            _copy(cursor, "subscription", self.subscriptions)
            _copy(cursor, "user_stats", [_stats(user) for user in self.users.values()])
            _copy(cursor, "usage_log", self.rows)


def _bare(at: datetime | None) -> datetime | None:
    """As the product writes it: UTC, without saying so."""
    return None if at is None else at.replace(tzinfo=None)


def _stats(user: User) -> tuple[Any, ...]:
    return (
        user.id, user.running, user.last, user.billed, user.credits, user.limit, user.blocked is not None, user.blocked, user.kept,
        _bare(user.kept_at), None,
    )  # fmt: skip


def _copy(cursor: psycopg.Cursor[Any], table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with cursor.copy(f"copy public.{table} from stdin".encode()) as copy:
        for row in rows:
            copy.write_row(row)


PLANS = ("pro", "pro_6000", "pro_25000")
TEAMS = ("team", "team_6000", "team_25000")


def random_product(
    seed: int, now: datetime, *, people: int = 40, organizations: int = 4, rows_each: int = 12, window: Window = P1
) -> Product:
    """A consistent history up to `now`, with all the known inconsistencies somewhere in it.

    Free, paying and pooled people; members who joined mid-period, some with a plan of their own and its kept usage; departed members; rows
    that are missing, or that no counter has; counters that drifted; usage before the period; credits, limits, blocks.
    """
    rng = random.Random(seed)
    product = Product()
    starts, _ = window
    names = [f"user_{number}" for number in range(people)]
    for name in names:
        product.user(name)
    pooled = names[: people // 2]
    for number in range(organizations):
        _found_organization(product, rng, f"org_{number}", pooled[number::organizations], now, window)
    for name in names[people // 2 :]:
        if rng.random() < 0.6:
            product.subscription(name, rng.choice(PLANS), window)
    for name in names:
        _use(product, rng, name, _paid_since(product, name, starts), now, rng.randint(0, rows_each))
    _blemish(product, rng, names, starts)
    return product


def _found_organization(
    product: Product, rng: random.Random, name: str, people: Sequence[str], now: datetime, window: Window
) -> None:
    starts, _ = window
    limit = rng.choice([None, "300", "450.5"])
    product.organization(
        name,
        people[0],
        joined=starts - timedelta(days=40),
        limit=limit,
        balance=rng.choice(["0", "25.10"]),
        departed=rng.choice(["0", "7.50"]),
    )
    product.subscription(name, rng.choice(TEAMS), window, seats=len(people))
    for number, user in enumerate(people[1:]):
        joined = starts - timedelta(days=5) if number % 2 else starts + (now - starts) * rng.random()
        product.member(name, user, joined)
        if joined > starts and rng.random() < 0.5:
            product.subscription(user, rng.choice(PLANS), window, cancels=True)
            person = product.users[user]
            _use(product, rng, user, starts, joined, 3)
            person.kept, person.kept_at, person.running = person.running, joined, Decimal(0)


def _paid_since(product: Product, user: str, starts: datetime) -> datetime:
    joined = next((row[4] for row in product.members if row[1] == user), None)
    return starts if joined is None else max(starts, joined.replace(tzinfo=starts.tzinfo))


def _use(product: Product, rng: random.Random, user: str, since: datetime, until: datetime, times: int) -> None:
    for _ in range(times):
        amount = Decimal(rng.randint(1, 4_000_000)).scaleb(-6)
        product.charge(user, amount, since + (until - since) * rng.random())


def _blemish(product: Product, rng: random.Random, names: Sequence[str], starts: datetime) -> None:
    for name in rng.sample(list(names), max(3, len(names) // 5)):
        product.charge(name, "0.75", starts + timedelta(days=1), logged=False)
    for name in rng.sample(list(names), max(3, len(names) // 5)):
        product.charge(name, "0.4", starts + timedelta(days=2), counted=False)
    for name in names:
        product.charge(name, "1.25", starts - timedelta(days=9), counted=False)
        product.users[name].last = Decimal("1.25")
        if rng.random() < 0.15:
            product.users[name].credits = Decimal("12.5")
        if rng.random() < 0.1:
            product.users[name].blocked = rng.choice(["payment_failed", "dispute"])
    product.charge("nobody", "3", starts + timedelta(days=3), counted=False)
