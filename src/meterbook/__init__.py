"""Exactly-once usage metering and billing on PostgreSQL.

`meterbook.open` gives a `Book` (asyncio); `meterbook.sync.open` the same without. Errors: `meterbook.errors`.
"""

from typing import TYPE_CHECKING, Any

from meterbook.catalogs import load_catalog
from meterbook.core.attribution import Attribution
from meterbook.core.breakdown import apportion
from meterbook.core.derivation import Derivation, as_data, render
from meterbook.core.entries import Usage
from meterbook.core.entry_pages import EntryPage, UsageEntry
from meterbook.core.period_facts import Period
from meterbook.core.plans import Catalog, Plan
from meterbook.core.recorded import Recorded, RecordedEntry
from meterbook.core.usage_report import UsageReport
from meterbook.errors import (
    AttributionUnavailable,
    InvalidUsage,
    KeyConflict,
    MeterbookError,
)

if TYPE_CHECKING:
    from meterbook.book import Book, open
else:

    def __getattr__(name: str) -> Any:
        """`open` and `Book` bring a database driver along, which a program that only embeds `meterbook.client` has no use for."""
        if name not in {"Book", "open"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from meterbook import book  # noqa: PLC0415  see above

        return getattr(book, name)


__all__ = [
    "Attribution",
    "AttributionUnavailable",
    "Book",
    "Catalog",
    "Derivation",
    "EntryPage",
    "InvalidUsage",
    "KeyConflict",
    "MeterbookError",
    "Period",
    "Plan",
    "Recorded",
    "RecordedEntry",
    "Usage",
    "UsageEntry",
    "UsageReport",
    "apportion",
    "as_data",
    "load_catalog",
    "open",
    "render",
]
