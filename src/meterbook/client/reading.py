"""The calls that read. They need a key with the scope `read`, and an answer: nothing is read from what waits here."""

from datetime import datetime

from meterbook.client import wire
from meterbook.client.results import UsageFigures
from meterbook.client.sending import Sending
from meterbook.core.entry_pages import EntryPage
from meterbook.core.ledgers import HoldState
from meterbook.core.period_facts import Period


class ReadingCalls(Sending):
    """As the Book's calls of the same names. Raises `Unreachable` when the server can't answer."""

    async def usage(self, entity: str, period: str | int = "current") -> UsageFigures:
        """`period`: "current", "last" or an id. What waits in a spool is not in it: see `spooled`."""
        return await self._read("/v1/usage", {"entity": entity, "period": period}, wire.usage)

    async def entries(
        self,
        entity: str,
        *,
        actor: str | None = None,
        workspace: str | None = None,
        source: str | None = None,
        category: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        period: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
        summary: bool = True,
    ) -> EntryPage:
        """Newest first; `[start, end)` is of occurred at. The summary covers the whole filter. Raises `InvalidCursor`."""
        wanted = {
            "entity": entity, "actor": actor, "workspace": workspace, "source": source, "category": category,
            "start": start, "end": end, "period": period, "limit": limit, "cursor": cursor, "summary": summary,
        }  # fmt: skip
        return await self._read("/v1/entries", wanted, wire.entries)

    async def periods(self, entity: str) -> list[Period]:
        """Every period of an entity, newest first."""
        return await self._read("/v1/periods", {"entity": entity}, wire.periods)

    async def holds(self, entity: str, *, limit: int = 100) -> list[HoldState]:
        """Money set aside, newest first, ended ones too."""
        return await self._read("/v1/holds", {"entity": entity, "limit": limit}, wire.holds)
