"""Plain numbered SQL files, each applied once, in a transaction of its own (or none: `-- transaction: none`), one migrator at a time."""

from hashlib import sha256
from importlib import resources
from typing import Any, LiteralString, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import args_row, tuple_row

from meterbook.errors import InvalidRequest, NotADemo, WrongLedger
from meterbook.postgres.fetching import fetch_value
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import read_trusted, statements_beside

SQL = statements_beside(__file__)
_OWN_TRANSACTION = "-- transaction: none"


class Settled(NamedTuple):
    """What was decided for good when the ledger was made."""

    currency: str
    free_period: str
    is_demo: bool


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


async def migrate(conn: AsyncConnection[Any], *, currency: str = "USD", free_period: str = "lifetime") -> list[str]:
    """Applies what is missing and gives its names; a second one waits for the first. `conn` is autocommit.

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
                await cursor.execute(SQL["settle_ledger"], {"currency": currency, "free_period": free_period})
                settled = await cursor.fetchone()
                await cursor.execute(SQL["ensure_partitions"], {"at": None})
            finally:
                await cursor.execute(SQL["unlock_migrations"])
    check_ledger(settled, currency, free_period)
    return [migration.name for migration in missing]


def check_ledger(settled: tuple[str, str] | None, currency: str, free_period: str) -> None:
    if settled != (currency, free_period):
        raise WrongLedger(
            f"the ledger was made with {settled}, the catalog says {(currency, free_period)}; neither can change later"
        )


async def find_settled(conn: AsyncConnection[Any]) -> Settled | None:
    with refusals():
        async with conn.cursor(row_factory=args_row(Settled)) as cursor:
            await cursor.execute(SQL["find_settled"])
            return await cursor.fetchone()


async def begin_demo(conn: AsyncConnection[Any]) -> None:
    """Raises `NotADemo` where somebody is known already, `NotPermitted`."""
    if not await fetch_value(conn, SQL["begin_demo"], {}):
        raise NotADemo


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
