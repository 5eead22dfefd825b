"""Databases for tests: one template a run and server, migrated once, and a copy of it for each test.

A copy is emptied and used again where that will do (`emptying.py`), by a thread, while the next test runs: making and dropping costs more.
"""

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from meterbook.postgres.migrate import migrate
from tests.emptying import Pristine

PREFIX = "meterbook_test"
USES_MAX = 40
"""After so many tests the dead rows of a database are dropped with it."""


def in_database(server: str, name: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


class Databases:
    """The databases of one test process.

    Processes of one run agree on `run`; each holds a shared advisory lock of that name, so that the last one drops
    the template, and the next run drops what a killed run left.
    """

    def __init__(self, server: str, run: str, process: str) -> None:
        self._server = server
        self._run = run
        self._process = process
        self._numbers = itertools.count()
        self._template = f"{PREFIX}_{run}_template"
        self._conn = psycopg.connect(server, autocommit=True)
        self._pristine: Pristine | None = None
        self._cleaner = ThreadPoolExecutor(1)
        self._given_back: deque[Future[tuple[str, int] | None]] = deque()

    def __enter__(self) -> Self:
        self._lock("pg_advisory_lock", PREFIX)
        self._drop_leftovers()
        if not self._exists(self._template):
            self._make_template()
        self._lock("pg_advisory_lock_shared", self._run)
        self._lock("pg_advisory_unlock", PREFIX)
        return self

    def __exit__(self, *_: object) -> None:
        self._cleaner.shutdown()
        for emptied in filter(None, (each.result() for each in self._given_back)):
            self._drop(emptied[0])
        self._lock("pg_advisory_lock", PREFIX)
        self._lock("pg_advisory_unlock_shared", self._run)
        if self._lock("pg_try_advisory_lock", self._run):
            self._drop(self._template)
        self._conn.close()

    @contextmanager
    def fresh(self, *, migrated: bool = True) -> Iterator[str]:
        """A database with nothing but the schema in it, or without it; gone or emptied afterwards, whoever is still connected."""
        name, uses = self._next() if migrated else (self._copy(migrated=False), USES_MAX)
        try:
            yield in_database(self._server, name)
        finally:
            self._given_back.append(self._cleaner.submit(self._clean, name, uses))

    def _next(self) -> tuple[str, int]:
        """An emptied one and how often it was used. While the only one is being emptied, a new one; the next test uses the other."""
        while self._given_back and (self._given_back[0].done() or len(self._given_back) > 1):
            emptied = self._given_back.popleft().result()
            if emptied is not None:
                return emptied
        return self._copy(migrated=True), 0

    def _clean(self, name: str, uses: int) -> tuple[str, int] | None:
        url = in_database(self._server, name)
        if uses < USES_MAX and self._pristine is not None and self._pristine.restore(url):
            return name, uses + 1
        self._drop(name)
        return None

    def _copy(self, *, migrated: bool) -> str:
        name = f"{PREFIX}_{self._run}_{self._process}_{next(self._numbers)}"
        self._create(name, self._template if migrated else "template0")
        if migrated and self._pristine is None:
            self._pristine = Pristine.of(in_database(self._server, name))
        return name

    def _make_template(self) -> None:
        unfinished = f"{self._template}_unfinished"
        self._drop(unfinished)
        self._create(unfinished, "template0")
        # A thread of its own: asyncio.run would take the loop away from the test that asked first.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _migrate(in_database(self._server, unfinished))).result()
        self._execute("alter database {} with allow_connections false", unfinished)
        self._execute("alter database {} rename to {}", unfinished, self._template)

    def _drop_leftovers(self) -> None:
        found = self._conn.execute("select datname from pg_database where datname like %s", [f"{PREFIX}\\_%"])
        for (name,) in found.fetchall():
            run = name.removeprefix(f"{PREFIX}_").split("_")[0]
            if run != self._run and self._lock("pg_try_advisory_lock", run):
                self._drop(name)
                self._lock("pg_advisory_unlock", run)

    def _lock(self, function: str, name: str) -> bool:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        row = self._conn.execute(sql.SQL("select {}(%s)").format(sql.Identifier(function)), [number]).fetchone()
        assert row is not None
        return row[0] is not False

    def _exists(self, name: str) -> bool:
        return self._conn.execute("select 1 from pg_database where datname = %s", [name]).fetchone() is not None

    def _create(self, name: str, template: str) -> None:
        self._execute("create database {} template {} strategy = wal_log", name, template)

    def _drop(self, name: str) -> None:
        self._execute("drop database if exists {} with (force)", name)

    def _execute(self, statement: str, *names: str) -> None:
        self._conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


async def _migrate(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await migrate(conn)
        # The months that the tests' clock is about to need: otherwise each first sweep makes them, and its database is no other test's.
        await conn.execute("select meterbook.ensure_partitions(at => '2026-06-01')")
