"""Statements of the cutover. Their tables are read through views of the session, which a mapping makes; only a rollback writes there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row, dict_row, tuple_row

from meterbook.core.legacy_mapping import (
    RELATIONS,
    FieldType,
    LegacyMapping,
    MappedRelation,
    says_utc,
    type_problem,
)
from meterbook.errors import CutoverRefused, InvalidMapping, InvalidRequest
from meterbook.postgres.refusals import refusals
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)
Row = TypeVar("Row")
ANY_ZONE = timedelta(days=1)
"""More than any clock on Earth differs from UTC."""
_NULLS: Mapping[FieldType, LiteralString] = {
    "text": "null::text",
    "amount": "null::numeric",
    "time": "null::timestamptz",
    "count": "null::bigint",
    "flag": "null::boolean",
}


@dataclass(frozen=True, slots=True)
class LegacyTables:
    """Their tables, attached to a session. `has_bare_times`: the audit log's indexed time has no zone; `is_local`: nor is it in UTC."""

    mapping: LegacyMapping
    has_bare_times: bool
    is_local: bool = False

    def earliest(self, at: datetime) -> datetime:
        """To compare with `indexed_at`, in its own type, so that its index serves: rows from `at` on are all later."""
        return self._bare(at - ANY_ZONE) if self.is_local else self._bare(at)

    def latest(self, at: datetime) -> datetime:
        """The same for rows before `at`: all are earlier. Which of them really are, `occurred_at` says."""
        return self._bare(at + ANY_ZONE) if self.is_local else self._bare(at)

    def _bare(self, at: datetime) -> datetime:
        return at.astimezone(UTC).replace(tzinfo=None) if self.has_bare_times else at


async def attach(conn: AsyncConnection[Any], mapping: LegacyMapping) -> LegacyTables:
    """Checks each expression against the live tables, then makes the views. Raises `InvalidMapping` with all that is wrong."""
    types: dict[tuple[str, str], str] = {}
    problems: list[str] = []
    for name, relation in mapping.relations.items():
        problems += await _check_relation(conn, name, relation, types)
    if problems:
        raise InvalidMapping(problems)
    with refusals():
        for name in RELATIONS:
            await _make_view(conn, name, mapping.relations.get(name))
    audit = mapping.relations.get("audit")
    field = "indexed_at" if audit is not None and "indexed_at" in audit.expressions else "occurred_at"
    is_bare = types.get(("audit", field)) == "timestamp"
    return LegacyTables(mapping, is_bare, is_bare and not (audit is not None and says_utc(audit)))


async def _make_view(conn: AsyncConnection[Any], name: str, relation: MappedRelation | None) -> None:
    """Raises `InvalidMapping` for expressions that can be computed each by itself, and not of the same row."""
    try:
        await conn.execute(_view(name, relation), binary=True)
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise InvalidMapping([f"{name}: {error.diag.message_primary or error}"]) from error


async def detach(conn: AsyncConnection[Any]) -> None:
    with refusals():
        for name in RELATIONS:
            await conn.execute(sql.SQL(SQL["detach"]).format(view=sql.Identifier(f"legacy_{name}")))


async def _check_relation(
    conn: AsyncConnection[Any], name: str, relation: MappedRelation, types: dict[tuple[str, str], str]
) -> list[str]:
    error = await _try(conn, relation.source, "1")
    if error[1]:
        return [f"{name}.from: {relation.source!r}: {error[1]}"]
    problems = []
    for field, expression in relation.expressions.items():
        found, said = await _try(conn, relation.source, expression)
        if said:
            there = await _columns(conn, relation.source)
            problems.append(f"{name}.{field}: {expression!r}: {said}{there}")
            continue
        types[name, field] = found
        problem = type_problem(name, field, expression, found)
        problems += [] if problem is None else [problem]
    if relation.where is not None:
        found, said = await _try(conn, relation.source, relation.where)
        if said or found != "bool":
            problems.append(f"{name}.where: {relation.where!r}: {said or f'is {found}, not true or false'}")
    return problems


async def _try(conn: AsyncConnection[Any], source: str, expression: str) -> tuple[str, str]:
    """The type that an expression gives over a table, or what PostgreSQL says against it."""
    statement = sql.SQL(SQL["try_expression"]).format(expression=_theirs(expression), source=_theirs(source))
    try:
        async with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(statement, binary=True)  # so that it is one statement, and no second one hides in it
            types = [column.type_code for column in cursor.description or ()]
            known = psycopg.adapters.types.get(types[0])
            if known is not None and known.name == "record":
                return "", "gives several columns; write one expression"
            return ("a type of its own" if known is None else known.name), ""
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        return "", error.diag.message_primary or str(error)


async def _columns(conn: AsyncConnection[Any], source: str) -> str:
    """What there is to choose from, where the source is a table."""
    try:
        async with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL["list_columns"], {"source": source})
            names = [row[0] for row in await cursor.fetchall()]
    except psycopg.ProgrammingError:
        return ""  # a sub-select has no name that could be looked up
    return f"; {source} has {', '.join(names)}" if names else ""


def _view(name: str, relation: MappedRelation | None) -> sql.Composed:
    """Columns stay as they are, so that what is a bare column in the mapping can be given back through the view."""
    columns = []
    for field, wanted in RELATIONS[name].items():
        column: sql.Composable = sql.SQL(_NULLS[wanted.type])
        if relation is not None and field in relation.expressions:
            column = _theirs(relation.expressions[field])
            column = column if wanted.type != "time" or field == "indexed_at" else _sound_time(column)
        elif relation is not None and field == "indexed_at":
            column = _theirs(relation.expressions["occurred_at"])
        columns.append(sql.SQL("({}\n) as {}").format(column, sql.Identifier(field)))
    return sql.SQL(SQL["attach"]).format(
        view=sql.Identifier(f"legacy_{name}"),
        columns=sql.SQL(", ").join(columns),
        source=sql.SQL("(values (1)) as nothing") if relation is None else _theirs(relation.source),
        condition=sql.SQL("false") if relation is None else _theirs(relation.where or "true"),
    )


def _sound_time(column: sql.Composable) -> sql.Composable:
    """Null for what no calendar has, infinity or a year beyond 9999."""
    return sql.SQL(SQL["sound_time"]).format(column=column)


def _theirs(text: LiteralString) -> sql.SQL:
    """SQL of the operator who runs the cutover, as much to be trusted as a migration of theirs."""
    return sql.SQL(text)


# ----------------------------------------------------------------------------------------------------------------- statements


async def rows_of(
    conn: AsyncConnection[Any], kind: type[Row], statement: str, arguments: Mapping[str, Any] | None = None
) -> list[Row]:
    """Each row as an object of this kind; the columns are its fields."""
    with refusals():
        async with conn.cursor(row_factory=class_row(kind)) as cursor:
            await cursor.execute(SQL[statement], arguments or {})
            return await cursor.fetchall()


async def records_of(
    conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    with refusals():
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(SQL[statement], arguments or {})
            return await cursor.fetchall()


async def value_of(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """The first column of the first row; None: there is none."""
    with refusals():
        async with conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(SQL[statement], arguments or {})
            row = await cursor.fetchone() if cursor.description else None
    return None if row is None else row[0]


async def change(conn: AsyncConnection[Any], statement: str, arguments: Mapping[str, Any]) -> int:
    """Gives the number of rows that it changed."""
    with refusals():
        async with conn.cursor() as cursor:
            await cursor.execute(SQL[statement], arguments)
            return cursor.rowcount


async def lock_cutover(conn: AsyncConnection[Any]) -> None:
    """Until the connection ends, or it is unlocked. Raises `CutoverRefused` while another step runs."""
    if not await value_of(conn, "lock_cutover"):
        raise CutoverRefused("another step of the cutover is running; try again when it has ended")


async def unlock_cutover(conn: AsyncConnection[Any]) -> None:
    await value_of(conn, "unlock_cutover")


def columns_of(rows: Sequence[Mapping[str, Any]], *names: str) -> dict[str, list[Any]]:
    """Rows as arrays, for a statement that unnests them; the array of `name` is called `names`."""
    return {f"{name}s": [row[name] for row in rows] for name in names}


# ------------------------------------------------------------------------------------------------------------------- the trigger


async def put_trigger(conn: AsyncConnection[Any], tables: LegacyTables, *, stands: bool) -> bool:
    """Has the falls of their counters noted by a trigger on their table, or takes it away. In the connection's transaction; gives whether
    it changed anything. The one statement that locks that table: it waits 50 ms for it at most, then raises `InProgress`.
    """
    names = await _counter_columns(conn, tables)
    if await value_of(conn, "has_trigger", {"source": names["source"]}) == stands:
        return False
    await value_of(conn, "limit_lock_wait")
    parts = {
        "table": sql.Identifier(names["schema"], names["name"]),
        "running": sql.Identifier(names["running"]),
        "user": sql.Literal(names["user_id"]),
        "counter": sql.Literal(names["running"]),
    }
    verbs = (
        ("create_fall_trigger", "create_deletion_trigger") if stands else ("drop_fall_trigger", "drop_deletion_trigger")
    )
    with refusals():
        for verb in verbs:
            await conn.execute(sql.SQL(SQL[verb]).format(**parts))
    return True


async def has_trigger(conn: AsyncConnection[Any], tables: LegacyTables) -> bool:
    """Whether falls of their counters are noted."""
    source = tables.mapping.relations["counter"].source
    try:
        return bool(await value_of(conn, "has_trigger", {"source": source}))
    except InvalidRequest:
        return False  # a sub-select is no table


async def _counter_columns(conn: AsyncConnection[Any], tables: LegacyTables) -> dict[str, Any]:
    counter = tables.mapping.relations["counter"]
    arguments = {
        "source": counter.source,
        "user_id": counter.expressions["user_id"],
        "running": counter.expressions["running"],
    }
    try:
        found = await records_of(conn, "find_counter_columns", arguments)
    except InvalidRequest:
        found = []
    if not found:
        raise CutoverRefused(f"a trigger stands on a table, and counter.from is {counter.source!r}")
    for field in ("user_id", "running"):
        if found[0][field] is None:
            raise CutoverRefused(f"a trigger reads a bare column, and counter.{field} is {arguments[field]!r}")
    return found[0]
