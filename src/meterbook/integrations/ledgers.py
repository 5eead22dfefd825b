"""What an integration needs of a ledger. `meterbook.Book` has it, and so has a client of a server: the arguments are the same."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, Protocol

from meterbook.core.admission import Admission
from meterbook.errors import MeterbookError

Amount = str | Decimal | int
ATTEMPTS_MAX = 3
"""Of recording what was done, while the ledger says that it may succeed later."""


class Recorder(Protocol):
    async def record(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: Amount,
        event_key: str | None = None,
        category: str = "model",
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any: ...


class SyncRecorder(Protocol):
    def record(
        self,
        actor: str,
        *,
        source: str,
        description: str,
        amount: Amount,
        event_key: str | None = None,
        category: str = "model",
        workspace: str | None = None,
        workflow: str | None = None,
        execution: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any: ...


class Held(Protocol):
    ended: bool
    """Whether leaving its block leaves it as it is."""

    async def settle(
        self, *, amount: Amount, source: str, description: str, event_key: str | None = None, category: str = "model"
    ) -> Any: ...


class Ledger(Recorder, Protocol):
    async def check(self, actor: str, *, workspace: str | None = None) -> Admission: ...

    def hold(
        self, actor: str, *, amount: Amount, ttl_s: int = ..., workspace: str | None = None
    ) -> AbstractAsyncContextManager[Held]: ...


async def insist(record: Callable[[], Awaitable[object]], pause_s: float) -> None:
    """The key makes every further attempt safe; each waits longer. Raises what the last one was refused by."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            await record()
        except MeterbookError as error:
            if not error.retryable or attempt == ATTEMPTS_MAX:
                raise
        else:
            return
        await asyncio.sleep(pause_s * attempt)
