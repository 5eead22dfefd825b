"""Plain numbered SQL files, each applied once, in a transaction of its own (or none: `-- transaction: none`), one migrator at a time."""

from hashlib import sha256
from importlib import resources
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from meterbook.errors import InvalidRequest, WrongLedger
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import read_trusted, statements_beside

SQL = statements_beside(__file__)
_OWN_TRANSACTION = "-- transaction: none"


class Migration(NamedTuple):
    number: int
    name: str
    text: LiteralString

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()


def known_migrations() -> list[Migration]:
    """Every migration that this version knows, in order."""
    folder = resources.files("meterbook.postgres") / "migrations"
    names = sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))
    return [Migration(int(name[:4]), name, read_trusted(folder / f"{name}.sql")) for name in names]


async def migrate(
    conn: AsyncConnection[Any], *, currency: str = "USD", free_period: str = "lifetime", callers_clock: bool = False
) -> list[str]:
    """Applies what is missing and gives its names; a second one waits for the first. `conn` is autocommit.

    With `callers_clock` a new ledger obeys the times that callers pass, for tests and replays; for good.
    Raises `WrongLedger` if the ledger has another currency, kind of free period or clock, `InvalidRequest` if an applied file was changed.
    """
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["lock_migrations"])
            try:
                await cursor.execute(SQL["make_schema"])
                await cursor.execute(SQL["list_applied"])
                applied: dict[int, str] = dict(await cursor.fetchall())
                missing = _missing(applied)
                for migration in missing:
                    await _apply(conn, migration)
                await cursor.execute(
                    SQL["settle_ledger"],
                    {
                        "currency": currency,
                        "free_period": free_period,
                        "clock": "callers" if callers_clock else "database",
                    },
                )
                settled = await cursor.fetchone()
                await cursor.execute(SQL["ensure_partitions"], {"at": None})
            finally:
                await cursor.execute(SQL["unlock_migrations"])
    check_ledger(settled, currency, free_period, callers_clock=callers_clock)
    return [migration.name for migration in missing]


def check_ledger(settled: tuple[str, str, str] | None, currency: str, free_period: str, *, callers_clock: bool) -> None:
    """A ledger that callers bring the clock for may be used by the database's as well, never the other way round."""
    made_with = None if settled is None else settled[:2]
    if made_with != (currency, free_period):
        message = f"the ledger was made with {made_with}, the catalog says {(currency, free_period)}"
        raise WrongLedger(f"{message}; neither can change later")
    if callers_clock and settled is not None and settled[2] != "callers":
        raise WrongLedger(
            "this ledger goes by the database's clock and takes no other: open it without `clock`, "
            "or make one for tests and replays by: meterbook migrate --callers-clock"
        )


async def find_settled(conn: AsyncConnection[Any]) -> tuple[str, str, str] | None:
    """Currency, kind of free period, and whose clock counts."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["find_settled"])
            return await cursor.fetchone()


async def list_pending(conn: AsyncConnection[Any]) -> list[str]:
    """Names of the migrations that this version knows and the database has not seen."""
    with refusals():
        return await _list_pending(conn)


async def _list_pending(conn: AsyncConnection[Any]) -> list[str]:
    async with conn.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(SQL["has_schema"])
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return [migration.name for migration in known_migrations()]
        await cursor.execute(SQL["list_applied_to_all"])
        applied = {number for number, _ in await cursor.fetchall()}
    return [migration.name for migration in known_migrations() if migration.number not in applied]


def _missing(applied: dict[int, str]) -> list[Migration]:
    missing = []
    for migration in known_migrations():
        if migration.number not in applied:
            missing.append(migration)
        elif applied[migration.number] != migration.checksum:
            raise InvalidRequest(
                f"migration {migration.name} was applied with other contents: a released migration never changes"
            )
    return missing


async def _apply(conn: AsyncConnection[Any], migration: Migration) -> None:
    if migration.text.startswith(_OWN_TRANSACTION):
        await conn.execute(migration.text)
        await conn.execute(SQL["note_applied"], _applied(migration))
        return
    async with conn.transaction():
        await conn.execute(SQL["bound_locks"])
        await conn.execute(migration.text)
        await conn.execute(SQL["note_applied"], _applied(migration))


def _applied(migration: Migration) -> dict[str, object]:
    return {"number": migration.number, "name": migration.name, "checksum": migration.checksum}
