"""Gives a test's database back as it was after its migration, in a few milliseconds, or says that only a new one will do."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

ROWS_MAX = 3_000
"""More rows than that leave so much dead behind that a new database is cheaper, and kinder to the next test's plans."""

# A row of a catalog that was changed has a younger xmin; those below 16384 are the server's own. Vacuum and analyze write theirs in place:
# they count once a planner would notice.
CATALOGS = {"pg_attribute": "attrelid"} | dict.fromkeys(
    ("pg_class", "pg_constraint", "pg_default_acl", "pg_extension", "pg_namespace", "pg_policy", "pg_proc", "pg_publication", "pg_type"),
    "oid",
)  # fmt: skip
# Those are switched off and on again below, which writes their rows anew: what they say is what counts.
TRIGGERS = "select 'triggers', count(*), hashtextextended(string_agg(concat(oid, tgenabled), ',' order by oid), 0) from pg_trigger"
STATE = " union all ".join(
    [
        f"select '{name}', count(*), max(xmin::text::bigint) from {name} where {key} >= 16384"
        for name, key in CATALOGS.items()
    ]
    + [
        TRIGGERS,
        "select 'statistics', count(*), 0 from pg_statistic where starelid >= 16384",
        "select 'counted', count(*), 0 from pg_class where reltuples > 1000 and oid >= 16384",
        "select 'settings', count(*), 0 from pg_db_role_setting, pg_database d where setdatabase = d.oid and datname = current_database()",
    ]
)
TABLES = """
select oid::regclass::text from pg_class
where relnamespace = 'meterbook'::regnamespace and relkind = 'r' and pg_relation_size(oid) > 0
"""
GUARDS = (
    "select tgrelid::regclass::text, array_agg(tgname::text) from pg_trigger where tgenabled = 'A' group by tgrelid"
)
STRANGERS = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
REWIND = "select setval(s.seqrelid::regclass, s.seqstart, false) from pg_sequence s; select pg_stat_reset()"


@dataclass(frozen=True, slots=True)
class Pristine:
    """A database after its migration: its catalogs, the rows that the migration wrote, and the triggers that guard rows, by table."""

    catalogs: tuple[Any, ...]
    seeds: dict[str, bytes]
    guards: dict[str, list[str]]

    @classmethod
    def of(cls, url: str) -> "Pristine":
        with psycopg.connect(url, autocommit=True) as conn:
            seeds = {table: _rows(conn, table) for (table,) in conn.execute(TABLES).fetchall()}
            guards: dict[str, list[str]] = dict(conn.execute(GUARDS).fetchall())
            return cls(_catalogs(conn), {table: rows for table, rows in seeds.items() if rows}, guards)

    def restore(self, url: str) -> bool:
        """False: its schema is another, or too much was written; drop it."""
        try:
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute(STRANGERS)
                return _catalogs(conn) == self.catalogs and self._empty(conn)
        except psycopg.Error:
            return False

    def _empty(self, conn: psycopg.Connection[Any]) -> bool:
        conn.execute("set session_replication_role = replica; set lock_timeout = '2s'")  # past every ordinary trigger
        written = {table for (table,) in conn.execute(TABLES).fetchall()}
        changed = {table for table, rows in self.seeds.items() if _rows(conn, table) != rows}
        deleted = self._delete(conn, written - self.seeds.keys() | changed)
        for table in changed:
            with conn.cursor().copy(_statement("copy {} from stdin", table)) as copy:
                copy.write(self.seeds[table])
        conn.execute(REWIND)
        return deleted <= ROWS_MAX

    def _delete(self, conn: psycopg.Connection[Any], tables: set[str]) -> int:
        """In one round trip and transaction; the guards are off inside it alone."""
        if not tables:
            return 0
        cursor = conn.execute(sql.SQL(";").join(self._deletion(table) for table in sorted(tables)))
        deleted = cursor.rowcount
        while cursor.nextset():
            deleted += max(cursor.rowcount, 0)
        return deleted

    def _deletion(self, table: str) -> sql.Composed:
        guards = [sql.Identifier(guard) for guard in self.guards.get(table, [])]
        off = [_statement("alter table only {} disable trigger ", table) + guard for guard in guards]
        on = [_statement("alter table only {} enable always trigger ", table) + guard for guard in guards]
        return sql.SQL(";").join([*off, _statement("delete from only {}", table), *on])


def _statement(statement: str, table: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.SQL(table))  # quoted by regclass


def _catalogs(conn: psycopg.Connection[Any]) -> tuple[Any, ...]:
    return tuple(conn.execute(STATE).fetchall())


def _rows(conn: psycopg.Connection[Any], table: str) -> bytes:
    with conn.cursor().copy(_statement("copy {} to stdout", table)) as copy:
        return b"".join(bytes(block) for block in copy)
