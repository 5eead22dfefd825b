"""What meterbook is measured against, done as well as it can be: the counter row, and the origin's ledger."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, LiteralString

import psycopg

from benchmarks.workload import Event
from meterbook.postgres.statements import statements_beside

SQL = statements_beside(__file__)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A statement that records one event, on tables of its own."""

    name: str
    tables: LiteralString
    insert: LiteralString

    def make(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(self.tables)


COUNTER = Baseline("counter row", SQL["make_counter"], SQL["insert_counter"])
ORIGIN = Baseline("origin", SQL["make_origin"], SQL["insert_origin"])


def arguments(event: Event) -> dict[str, Any]:
    """What the origin's caller says: keys are 64 hex digits, ids are text."""
    digest = sha256(event.key.encode()).hexdigest()
    return {
        "id": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
        "user": event.actor,
        "source": event.source,
        "model": event.model,
        "amount": event.amount,
        "key": digest,
        "workspace": f"workspace_{event.entity % 100}",
        "workflow": f"workflow_{event.entity % 1000}",
        "execution": digest[32:64],
    }
