"""What every step of a cutover works with."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from meterbook.core.plans import Catalog
from meterbook.operations.attribute_usage import Attribute
from meterbook.postgres.cutover import LegacyTables

Feed = Literal["audit", "application"]
"""Who records usage while counters still count: the cutover from the audit log, or the application, under the key `legacy:<audit id>`."""


LATE_SOURCE = "legacy-counter"
"""Source of the entries that are late increments of old instances."""


@dataclass(frozen=True, slots=True)
class CutoverStep:
    """`at`: now. `clock`: the time that the ledger's calls are given; None: the database's own. `attribute`: on another connection."""

    tables: LegacyTables
    catalog: Catalog
    attribute: Attribute
    feed: Feed
    at: datetime
    clock: datetime | None
