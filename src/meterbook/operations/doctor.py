"""What an operator should look at: the engine, the settings that decide whether money can be lost, the ledger's own upkeep."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection

from meterbook.core.upkeep import Finding
from meterbook.postgres import health
from meterbook.postgres.migrate import list_pending

VERSION_MIN = 150000
PARTITIONS_AHEAD_MIN = 3
LAG_MAX = timedelta(minutes=1)
DELTA_BYTES_MAX = 200_000_000
CLOCK_DIFFERENCE_MAX = timedelta(seconds=5)


async def examine_ledger(conn: AsyncConnection[Any], engine: str, here: datetime, at: datetime | None) -> list[Finding]:
    """`engine` names how the server was reached; `here` is this process's clock, to compare with the database's."""
    server = await health.read_health(conn, "read_health", at)
    pending = await list_pending(conn)
    findings = [Finding("engine", engine, True, ""), *_server(server, here)]  # noqa: FBT003
    findings.append(_finding("migrations pending", ", ".join(pending) or "none", not pending, "run: meterbook migrate"))
    if not pending:
        findings += _ledger(await health.read_health(conn, "read_ledger_health", at), server["clock"], at)
    return findings


def _finding(name: str, value: object, ok: bool, advice: str) -> Finding:  # noqa: FBT001
    return Finding(name, str(value), ok, "" if ok else advice)


def _server(server: Mapping[str, Any], here: datetime) -> Iterator[Finding]:
    yield _finding(
        "server",
        f"PostgreSQL {server['version']}",
        server["version_number"] >= VERSION_MIN,
        "PostgreSQL 15 or newer is needed",
    )
    yield _finding(
        "database",
        f"{server['database']} as {server['user']}",
        not server["standby"],
        "a standby can't record; connect to the primary",
    )
    for setting in ("fsync", "full_page_writes"):
        yield _finding(
            setting, server[setting], server[setting] == "on", f"money is lost in a crash: set {setting} = on"
        )
    durable = server["synchronous_commit"] != "off"
    yield _finding(
        "synchronous_commit",
        server["synchronous_commit"],
        durable,
        "what was acknowledged is lost in a crash: set it to on",
    )
    yield _finding(
        "encoding", server["encoding"], server["encoding"] == "UTF8", "names are stored as UTF-8: use a UTF8 database"
    )
    yield Finding("jit", server["jit"], True, "")  # noqa: FBT003  our functions turn it off for themselves
    yield Finding("max_connections", server["max_connections"], True, "")  # noqa: FBT003
    difference = abs(server["clock"] - here)
    yield _finding("clock difference", f"{difference.total_seconds():.3f} s", difference <= CLOCK_DIFFERENCE_MAX,
                   "this machine's clock and the database's differ: entries stamped here may be refused as future")  # fmt: skip


def _ledger(ledger: Mapping[str, Any], clock: datetime, at: datetime | None) -> Iterator[Finding]:
    yield Finding("ledger", f"{ledger['currency']}, free period {ledger['free_period']}", True, "")  # noqa: FBT003
    yield _finding("roles", "all there" if not ledger["roles_missing"] else f"missing: {ledger['roles_missing']}",
                   not ledger["roles_missing"], "run: meterbook migrate as a user who may create roles")  # fmt: skip
    ahead = ledger["partitions_ahead"]
    yield _finding(
        "partitions ahead",
        f"{ahead} months",
        ahead >= PARTITIONS_AHEAD_MIN,
        "run: meterbook compact, or a worker, which makes them",
    )
    yield _finding("default partition", "has rows" if ledger["default_has_rows"] else "empty", not ledger["default_has_rows"],
                   "entries of a month without a partition lie there: they count; move them before its partition is made")  # fmt: skip
    lag = timedelta(0) if ledger["oldest_delta"] is None else max(timedelta(0), (at or clock) - ledger["oldest_delta"])
    yield _finding("compaction lag", f"{ledger['deltas']} deltas, the oldest {lag.total_seconds():.0f} s", lag <= LAG_MAX,
                   "reads stay exact but get slower: run a worker, or meterbook compact")  # fmt: skip
    size = ledger["delta_bytes"]
    yield _finding(
        "usage_delta size",
        f"{size / 1_000_000:.1f} MB",
        size <= DELTA_BYTES_MAX,
        "a long transaction keeps vacuum away, or no compactor runs",
    )
    waiting = ledger["stripe_events_waiting"]
    yield _finding("Stripe events waiting", waiting, waiting == 0,
                   "meterbook stripe events --state failed says why; mended, meterbook stripe replay --failed applies them")  # fmt: skip
    twice = ledger["subscriptions_twice"]
    yield _finding("subscriptions twice", twice, twice == 0,
                   "one that is known by two ids may bill twice: cancel what Stripe does not tell of (docs/guides/stripe.md)")  # fmt: skip
    yield Finding("key conflicts noted", str(ledger["conflicts"]), True, "")  # noqa: FBT003
