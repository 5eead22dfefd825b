"""The server of a run: an embedded PostgreSQL of its own, durable, gone afterwards; one database for each that needs one."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from meterbook.postgres.embedded import embedded, erase
from meterbook.sync.postgres.migrate import migrate

BUILD = Path(__file__).resolve().parent.parent / "build" / "benchmarks"
SETTINGS = {"max_connections": "300"}
"""Besides the engine's own: 256 callers with a connection each have to fit."""
SHOWN_SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "data_checksums", "shared_buffers",
    "work_mem", "max_wal_size", "checkpoint_timeout", "autovacuum", "jit", "max_connections",
)  # fmt: skip


@dataclass(slots=True)
class Server:
    """Fresh databases on one server."""

    url: str
    _made: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def database(self, name: str, *, migrated: bool = True) -> str:
        """The URL of a new database, empty or with a ledger."""
        numbered = f"{name}_{next(self._numbers)}"
        self._made.append(numbered)
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(numbered)))
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{numbered}"))
        if migrated:
            with psycopg.connect(url, autocommit=True) as conn:
                migrate(conn)
        return url

    def drop_databases(self) -> None:
        """So that no group pays for what another left behind."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            for name in self._made:
                conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            conn.execute("checkpoint")
        self._made.clear()

    def settings(self) -> Mapping[str, str]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            rows = conn.execute(
                "select name, current_setting(name) from unnest(%s::text[]) name", [list(SHOWN_SETTINGS)]
            )
            return dict(rows.fetchall())


@contextmanager
def server() -> Iterator[Server]:
    folder = BUILD / "engine"
    erase(folder)
    with embedded(folder, SETTINGS) as engine:
        yield Server(engine.url)
    erase(folder)
