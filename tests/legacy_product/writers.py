"""Traffic of a product while it is migrated: writers in threads, as old and new versions of it write, and what they really charged."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal, Self

import psycopg

Style = Literal["together", "apart", "silent", "both", "ledger"]
"""How one charge is written: counter and log in one transaction, in two, without a log row; both that and the ledger; the ledger alone."""

_COUNT = (
    b"update public.user_stats set current_period_cost = current_period_cost + %s, last_active = %s where user_id = %s"
)
_LOG = (
    b"insert into public.usage_log (id, user_id, category, source, description, cost, created_at)"
    b" values (%s, %s, 'model', 'workflow', 'gpt-4o', %s, %s)"
)
_RECORD = (
    b"select outcome from meterbook.record_usage(keys => array[meterbook.event_key(%s)], fingerprints => array["
    b"meterbook.fingerprint(%s, 'model', 'workflow', 'gpt-4o', %s::numeric, 'USD')], actors => array[%s], sources => array['workflow'],"
    b" descriptions => array['gpt-4o'], amounts => array[%s::numeric], categories => array['model'],"
    b" occurred_ats => array[%s::timestamptz], at => %s::timestamptz)"
)
Clock = Callable[[], datetime]


def database_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class Traffic:
    """Writers of a product, each on a connection of its own. `charged`: by user, what was acknowledged."""

    url: str
    users: Sequence[str]
    threads: int
    styles: Sequence[Style] = ("together",)
    clock: Clock = database_clock
    pause_s: float = 0.002
    seed: int = 1
    charged: dict[str, Decimal] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock, self._stop, self._number = threading.Lock(), threading.Event(), 0
        self._running: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._running = [threading.Thread(target=self._write, args=(number,)) for number in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    @property
    def longest_wait_ms(self) -> int:
        return int(1000 * max(self.waits, default=0))

    @property
    def writes(self) -> int:
        return len(self.waits)

    def _write(self, number: int) -> None:
        rng = random.Random(self.seed * 1000 + number)
        with psycopg.connect(self.url, autocommit=True) as conn:
            while not self._stop.is_set():
                user, style = rng.choice(self.users), rng.choice(list(self.styles))
                amount = Decimal(rng.randint(1, 20_000)).scaleb(-6)
                began = time.monotonic()
                try:
                    self._charge(conn, user, amount, style)
                except psycopg.Error as error:
                    self.failures.append(str(error))
                    continue
                with self._lock:
                    self.waits.append(time.monotonic() - began)
                    self.charged[user] = self.charged.get(user, Decimal(0)) + amount
                time.sleep(self.pause_s * rng.random())

    def _charge(self, conn: psycopg.Connection, user: str, amount: Decimal, style: Style) -> None:
        with self._lock:
            self._number += 1
            name = f"live_{self.seed}_{self._number}"
        at = self.clock()
        bare = at.astimezone(UTC).replace(tzinfo=None)
        if style == "ledger":
            self._record(conn, f"own:{name}", user, amount, at)
        elif style == "apart":
            conn.execute(_LOG, (name, user, amount, bare))
            time.sleep(0.001)
            conn.execute(_COUNT, (amount, bare, user))
        else:
            with conn.transaction():
                conn.execute(_COUNT, (amount, bare, user))
                if style != "silent":
                    conn.execute(_LOG, (name, user, amount, bare))
            if style == "both":
                self._record(conn, f"legacy:{name}", user, amount, at)

    def _record(self, conn: psycopg.Connection, key: str, user: str, amount: Decimal, at: datetime) -> None:
        row = None
        said = (key, user, amount, user, amount, at, at)
        for _ in range(20):
            row = conn.execute(_RECORD, said).fetchone()
            if row is not None and row[0] in ("inserted", "replayed"):
                return
            if row is not None and row[0] == "unattributed":
                conn.execute(b"select meterbook.attribute(array[%s], at => %s::timestamptz)", (user, at))
            else:
                time.sleep(0.005)
        raise psycopg.OperationalError(f"not recorded: {row}")
