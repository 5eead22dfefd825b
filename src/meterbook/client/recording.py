"""The calls that record: now, and acknowledged by the server; or, with a spool, on this machine's disk."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterbook.client import wire
from meterbook.client.calls import CORRECTION, CUMULATIVE, Call, batch_call, entry_call, new_key, other_call
from meterbook.client.results import Receipt
from meterbook.client.sending import Sending, now
from meterbook.core.attribution import Attribution
from meterbook.core.entries import KEY_LENGTH_MAX, Usage, check_entries, check_parsed, check_party, check_text
from meterbook.core.money import parse_amount, parse_usage
from meterbook.core.recorded import Recorded


class RecordingCalls(Sending):
    """Exactly once: keys are made before the first try, and kept over retries and on disk."""

    async def record(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: str | Decimal | int,
        event_key: str | None = None,
        category: str = "model",
        line: str | None = None,
        entity: str | None = None,
        period: int | None = None,
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        source_reference: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        attribution: Attribution | str | None = None,
    ) -> Receipt:
        """Records one entry, tried until the server answers or `deadline_s` are over; then spooled, if there is a spool.

        Without an `event_key`, `execution` or `source_reference` a key is made. Raises `InvalidUsage` before anything is sent;
        `KeyConflict`, `InvalidKey`, `ScopeMissing`; without a spool `Unreachable` and the server's `Unavailable`; with one `SpoolFull`,
        `SpoolFailed`.
        """
        usage = Usage(
            actor, source, description, amount, category, event_key, line, entity, period, workspace, workflow,
            execution, source_reference, occurred_at, metadata, attribution,
        )  # fmt: skip
        return await self._record(entry_call(usage, now()))

    async def record_many(self, entries: Sequence[Usage | Mapping[str, Any]]) -> Receipt:
        """Several entries (`Usage`, or dicts of its fields), all or nothing, also later from the spool."""
        call = batch_call(entries, now())
        return await self._record(call) if call.bodies else Receipt("recorded", ())

    async def enqueue(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: str | Decimal | int,
        event_key: str | None = None,
        category: str = "model",
        line: str | None = None,
        entity: str | None = None,
        period: int | None = None,
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        source_reference: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        attribution: Attribution | str | None = None,
    ) -> Receipt:
        """Hands one entry to the sender, which sends it with others, and waits for no server: spooled, or queued without a spool.

        One that is refused holds up and refuses no other; it is told to `on_refused`, or raised by `flush` and `close`. Raises
        `InvalidUsage` before anything is kept; `SpoolFull`, `SpoolFailed`, and without a spool `Overloaded`.
        """
        usage = Usage(
            actor, source, description, amount, category, event_key, line, entity, period, workspace, workflow,
            execution, source_reference, occurred_at, metadata, attribution,
        )  # fmt: skip
        call = entry_call(usage, now())
        await self._later(call)
        return Receipt("spooled" if self._has_spool else "queued", call.event_keys)

    async def record_cumulative(
        self,
        actor: str,
        *,
        request: str,
        total: str | Decimal | int,
        source: str,
        description: str,
        category: str | None = None,
        entity: str | None = None,
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        source_reference: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        attribution: Attribution | str | None = None,
    ) -> Receipt:
        """Keeps the maximum of a request's running total: records the rise, if there is one."""
        check_text("request", request)
        money = check_parsed(parse_usage, total, "total")
        said = {
            "actor": actor, "source": source, "description": description, "entity": entity, "workspace": workspace,
            "workflow": workflow, "execution": execution, "source_reference": source_reference,
            "occurred_at": occurred_at, "metadata": metadata, "attribution": attribution,
        }  # fmt: skip
        check_entries([{**said, "amount": money, "event_key": request, "category": category or "model"}], "XXX")
        call = other_call(CUMULATIVE, {**said, "request": request, "total": money, "category": category}, now())
        return await self._record(call)

    async def correct(
        self, entry: str, *, amount: str | Decimal | int, reason: str, event_key: str | None = None
    ) -> Receipt:
        """Adds `amount` (negative takes back) to an entry by a new one; for `admin` keys. Raises `UnknownEntry`, `CorrectionRefused`."""
        check_text("entry", entry)
        check_text("reason", reason, 512)
        key = new_key() if event_key is None else check_text("event_key", event_key, KEY_LENGTH_MAX)
        money = check_parsed(parse_amount, amount)
        said = {"entry": entry, "amount": money, "reason": reason, "event_key": key}
        return await self._record(other_call(CORRECTION, said, now()))

    async def resolve(self, actor: str, workspace: str | None = None) -> Attribution:
        """Who pays now: resolved before work begins, given when it is recorded. Raises `Unreachable`: never a guess."""
        check_party(actor, workspace)
        said = {"actor": actor, "workspace": workspace}
        line = self._open().line
        return await line.ask("POST", "/v1/attributions", said, wire.attribution, self._settings.deadline_s)

    async def _record(self, call: Call) -> Receipt:
        recorded = await self._now_or_later(call, wire.recorded)
        return receipt(call, recorded)


def receipt(call: Call, recorded: Recorded | None) -> Receipt:
    if recorded is None:
        return Receipt("spooled", call.event_keys)
    return Receipt("recorded", call.event_keys, *recorded)
