"""The calls of a Book that meet Stripe: the outbox delivered, its state seen, dead letters sent again."""

from meterbook.book.access import LedgerAccess
from meterbook.book.relay import Relay, Tell
from meterbook.core.ledgers import DeliveryState, Relayed
from meterbook.errors import UnknownDelivery
from meterbook.postgres import billing, deliveries

ROWS_PER_RELAY_MAX = 100


class StripeCalls(LedgerAccess):
    """What goes to Stripe goes through the outbox, from here alone."""

    async def relay(self, *, tell: Tell | None = None, rows_max: int = ROWS_PER_RELAY_MAX) -> Relayed:
        """Delivers what is due: charges as invoices, cancellations, and alerts to `tell`. Two at once deliver each row once.

        Without a Stripe account (`meterbook.open(stripe=…)`) what is Stripe's stays due.
        """
        return await Relay(self._pool, self._gateway, tell, self._at).run(rows_max)

    async def deliveries(
        self, entity: str | None = None, *, state: str | None = None, limit: int = ROWS_PER_RELAY_MAX
    ) -> list[DeliveryState]:
        """What became of the outbox's rows, newest first; `state`: due, leased, delivered or dead."""
        async with self._pool.connection() as conn:
            entity_id = None if entity is None else await self._entity_id(conn, entity)
            return await billing.list_deliveries(conn, entity_id, state, limit)

    async def redrive(self, outbox_id: int) -> bool:
        """Sends a dead letter again, from the step where it stopped. False: it is not dead. Raises `UnknownDelivery`."""
        async with self._pool.connection() as conn:
            outcome = await deliveries.redrive_delivery(conn, outbox_id, self._at())
        if outcome == "unknown":
            raise UnknownDelivery(f"the outbox has no row {outbox_id}")
        return outcome == "due"
