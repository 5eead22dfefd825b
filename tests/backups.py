"""Backups as an operator makes them: the pg_dump and pg_restore of the embedded engine's wheel, which are as new as any server here."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from meterbook.postgres.embedded.binaries import find_binaries


def dump(url: str, file: Path, *options: str) -> Path:
    """In the format that pg_restore takes; without `options` the whole database."""
    _run("pg_dump", "--format=custom", f"--file={file}", *options, url)
    return file


@contextmanager
def restored(file: Path, server: str, *options: str) -> Iterator[str]:
    """The URL of a new database of this server with what was dumped; gone afterwards."""
    name = f"restored_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        try:
            _run("pg_restore", "--exit-on-error", *options, f"--dbname={url}", str(file))
            yield url
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [find_binaries(None).folder / program, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
